"""The move from ``mlflow models serve`` to Backline, as ``backline parity`` judges it: ``python -m benchmarks.parity``.

For each environment of MLflow that is named (2: Flask under gunicorn; 3: FastAPI under uvicorn): trains a regression
with it, saves it both as MLflow's model and as a folder for Backline, has MLflow serve its own, records what it answers
to good and bad requests of five kinds, and holds Backline against that. What must come out is known before:

- the same model: no difference, but for the requests that MLflow refuses and Backline answers;
- one coefficient off by a millionth, two columns in each other's place, a rounding to four places: found in exactly the
  requests that they touch.

Prints a JSON line for each run, and fails where a verdict is not the one that is known. See README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
START_TIMEOUT = 120.0
KINDS = ("csv", "dataframe_split", "dataframe_records", "instances", "inputs")
BY_NAME = frozenset({"csv", "dataframe_split", "dataframe_records"})  # the others give values by their places

# Run by the environment's own python: the model as MLflow keeps it, as a folder of Backline, and the planted ones.
MAKE = """
import pickle, shutil, sys
from pathlib import Path

import mlflow.sklearn
from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

place = Path(sys.argv[1])
patients = load_diabetes(as_frame=True, scaled=False)
model = make_pipeline(StandardScaler(), Ridge()).fit(patients.data, patients.target)
mlflow.sklearn.save_model(model, place / "mlflow", pip_requirements=[], serialization_format="cloudpickle")

def folder(name, model, hooks=None):
    (place / name).mkdir()
    (place / name / "model.pkl").write_bytes(pickle.dumps(model))
    (place / name / "model-metadata.yaml").write_text("name: diabetes\\ntargetType: regression\\ntype: inference\\n")
    if hooks is not None:
        (place / name / "custom.py").write_text(hooks)

folder("same", model)
coefficient = pickle.loads(pickle.dumps(model))
coefficient[-1].coef_[2] *= 1 + 1e-6
folder("coefficient", coefficient)
columns = pickle.loads(pickle.dumps(model))
names = columns[0].feature_names_in_.copy()
names[[0, 2]] = names[[2, 0]]
columns[0].feature_names_in_ = names
folder("columns", columns)
folder("rounding", model, "def post_process(predictions, model):\\n    return predictions.round(4)\\n")
"""

BAD = (
    ("application/json", b"{"),
    ("application/json", b'{"dataframe_split": {"columns": ["age"], "data": [[1]]}}'),
    ("application/json", b'{"instances": [["a", 1, 1, 1, 1, 1, 1, 1, 1, 1]]}'),
    ("application/json", b'{"dataframe_split": {"columns": ["age"], "data": [[1]]}, "instances": [[1]]}'),
    ("application/json", b'{"nothing": 1}'),
    ("text/csv", b"age,sex\n1,2\n"),
    ("text/csv", (",".join(NAMES) + "\n" + ",".join("x" * 10) + "\n").encode()),
    ("application/xml", b"<rows/>"),
)
# MLflow wants its wrapper around the split form; Backline reads it without as well.
ONLY_HERE = (
    "application/json",
    json.dumps({"columns": NAMES, "data": [[50, 1, 25, 90, 180, 110, 50, 4, 5, 90]]}).encode(),
)


def main() -> int:
    """Do it for every environment; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mlflow", type=Path, nargs="+", required=True, help="bin folders of environments with MLflow")
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--keep", type=Path, help="a folder for stores and reports")
    arguments = parser.parse_args()
    failed = 0
    for environment in arguments.mlflow:
        with tempfile.TemporaryDirectory() as name:
            for line in judge(environment.resolve(), Path(name), arguments.requests):
                print(json.dumps(line), flush=True)
                failed += not line["right"]
            if arguments.keep is not None:
                keep(Path(name), arguments.keep / environment.resolve().parent.name)
    return 1 if failed else 0


def judge(environment: Path, place: Path, count: int) -> Iterator[dict[str, Any]]:
    """Yield a line for each comparison."""
    python = environment / "python"
    run([python, "-W", "ignore", "-c", MAKE, place], env=cleaned(environment))
    asked = traffic(count)
    with mlflow_server(environment, place) as url:
        calls = place / "calls.sqlite"
        statuses = record(url, calls, [(content_type, body) for _, content_type, body in asked], place)
        by_kind: dict[str, dict[str, int]] = {}
        for (kind, _, _), status in zip(asked, statuses, strict=True):
            of_kind = by_kind.setdefault(kind, {})
            of_kind[str(status)] = of_kind.get(str(status), 0) + 1
        yield {"what": "recorded", "environment": environment.parent.name, "by_kind": by_kind, "right": True}
        only_here = {number for number, (kind, *_) in enumerate(asked, 1) if kind == "only here"}
        good = {number: kind for number, (kind, *_) in enumerate(asked, 1) if kind in KINDS}
        expected = {
            "same": only_here,
            "coefficient": only_here | set(good),
            "columns": only_here | {number for number, kind in good.items() if kind in BY_NAME},
            "rounding": only_here | set(good),
        }
        for name, wanted in expected.items():
            yield compare(name, calls, calls, place, python, wanted)
        # Side by side with the server itself, which is then asked again where answers differ.
        yield compare("same", url, calls, place, python, only_here)


def compare(
    name: str, reference: Path | str, requests: Path, place: Path, python: Path, wanted: set[int]
) -> dict[str, Any]:
    """Run the comparison with one folder; the line says which requests differ and whether these are the known ones."""
    live = reference != requests
    stem = place / f"{name}{'-live' if live else ''}"
    store = stem.with_suffix(".sqlite")
    # Far below what was planted, and above the last bits, which differ with how many rows share a call of the model.
    command = [sys.executable, "-m", "backline", "parity", "run", "--reference", str(reference), "--candidate",
               str(place / name), "--candidate-python", str(python), "--store", str(store), "--tolerance", "1e-12",
               "--html", str(stem.with_suffix(".html")), "--json", str(stem.with_suffix(".json"))]  # fmt: skip
    if live:
        command += ["--requests", str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode not in (0, 1):
        raise SystemExit(done.stderr)
    figures = json.loads(stem.with_suffix(".json").read_text())
    listed = subprocess.run(
        [sys.executable, "-m", "backline", "parity", "show", str(store), "--run", "1"],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    found = {int(line.split()[0]) for line in listed.splitlines() if line.split()[1] == "different"}
    return {
        "what": name,
        "reference": "the server" if live else "recorded",
        "exit": done.returncode,
        "verdicts": figures["verdicts"],
        "statuses": {f"{each['reference']} {each['candidate']}": each["requests"] for each in figures["statuses"]},
        "fields": {each["field"]: each["differing"] for each in figures["fields"] if each["differing"]},
        "missed": len(wanted - found),
        "false": len(found - wanted),
        "right": found == wanted and done.returncode == (1 if wanted else 0),
    }


def traffic(count: int) -> list[tuple[str, str, bytes]]:
    """Return kind, content type and body of requests: five kinds in turn, every sixth bad, a few that differ."""
    chance = random.Random(5)
    asked: list[tuple[str, str, bytes]] = []
    for number in range(count):
        if number % 60 == 59:
            asked.append(("only here", *ONLY_HERE))
        elif number % 6 == 5:
            asked.append(("bad", *BAD[number // 6 % len(BAD)]))
        else:
            kind = KINDS[number % len(KINDS)]
            rows = [row(chance) for _ in range(chance.choice((1, 1, 1, 3, 10)))]
            content_type, body = (
                ("text/csv", csv(rows)) if kind == "csv" else ("application/json", document(kind, rows))
            )
            asked.append((kind, content_type, body))
    return asked


def row(chance: random.Random) -> list[float]:
    """Return a patient as the data set might have one."""
    ranges = ((20, 80), (1, 2), (18, 42), (62, 133), (97, 301), (41, 242), (22, 99), (2, 9), (3, 6.1), (58, 124))
    return [round(chance.uniform(low, high), 3) for low, high in ranges]


def csv(rows: list[list[float]]) -> bytes:
    """Return rows as CSV."""
    return "\n".join([",".join(NAMES), *(",".join(map(str, each)) for each in rows), ""]).encode()


def document(kind: str, rows: list[list[float]]) -> bytes:
    """Return rows in one of MLflow's JSON forms."""
    forms: dict[str, Any] = {
        "dataframe_split": {"columns": NAMES, "data": rows},
        "dataframe_records": [dict(zip(NAMES, each, strict=True)) for each in rows],
        "instances": rows,
        "inputs": rows,
    }
    return json.dumps({kind: forms[kind]}).encode()


def record(url: str, store: Path, bodies: list[tuple[str, bytes]], place: Path) -> list[int]:
    """Send everything through the recording proxy; return the statuses."""
    command = [sys.executable, "-m", "backline", "parity", "record", "--target", url, "--output", str(store),
               "--address", "127.0.0.1:0"]  # fmt: skip
    with started(command, place / "recorder.log") as process:
        address = listening(process, place / "recorder.log")
        statuses = [post(address, "/invocations", content_type, body) for content_type, body in bodies]
        process.send_signal(signal.SIGTERM)
        if process.wait(60) != 0:
            raise SystemExit((place / "recorder.log").read_text())
    return statuses


def post(url: str, path: str, content_type: str, body: bytes) -> int:
    """Return the status of one POST."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        connection.request("POST", path, body, {"content-type": content_type})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@contextlib.contextmanager
def mlflow_server(environment: Path, place: Path) -> Iterator[str]:
    """Run ``mlflow models serve`` for the block."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [str(environment / "mlflow"), "models", "serve", "-m", str(place / "mlflow"), "-p", str(port),
               "-h", "127.0.0.1", "--env-manager", "local"]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with started(command, place / "mlflow.log", env=cleaned(environment)) as process:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with contextlib.suppress(OSError):
                if post(url, "/invocations", "text/csv", b"x\n1\n"):
                    break
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit((place / "mlflow.log").read_text())
            time.sleep(0.2)
        yield url


@contextlib.contextmanager
def started(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command for the block, in a session of its own that is ended with it."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env=env, start_new_session=True)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def listening(process: subprocess.Popen[bytes], log: Path) -> str:
    """Return the address that the log names."""
    deadline = time.monotonic() + START_TIMEOUT
    while (found := re.search(r"Listening on (http://\S+)", log.read_text())) is None:
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(log.read_text())
        time.sleep(0.05)
    return found[1]


def cleaned(environment: Path) -> dict[str, str]:
    """Return our environment with the other one's programs first: MLflow starts its server by name."""
    return {**os.environ, "PATH": f"{environment}{os.pathsep}{os.environ['PATH']}"}


def run(command: list[Any], env: dict[str, str]) -> None:
    """Run a command that is expected to succeed."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise SystemExit(done.stderr)


def keep(place: Path, folder: Path) -> None:
    """Copy stores and reports."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in place.iterdir():
        if file.suffix in (".sqlite", ".html", ".json", ".log"):
            shutil.copy(file, folder)


if __name__ == "__main__":
    sys.exit(main())
