"""Serves models of many environments by servers of every track, and compares answers with the library's own.

``scripts/matrix`` runs it and writes ``docs/reference/environment-matrix.md``. Model environments are made as users
make them, by ``--env auto``, and kept between runs; servers are those that ``scripts/test --track`` uses.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reference" / "environment-matrix.md"
WORK = ROOT / ".cache" / "matrix"
SERVERS = {"current": ".venv", "floor": ".venv-floor", "conservative": ".venv-conservative-lowest"}
PYTHONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
NUMPY = {"1": "numpy>=1.19,<2", "2": "numpy>=2,<3"}
PANDAS = {"1": "pandas>=1.3,<2", "2": "pandas>=2,<3", "3": "pandas>=3,<4"}
PYDANTIC = {"none": "", "1": "pydantic<2", "2": "pydantic>=2"}
# The oldest that can be installed beside the rest, and the newest.
SKLEARN = {"old": "scikit-learn>=1.0,<1.5", "new": "scikit-learn>=1.5"}
START_TIMEOUT, BUILD_TIMEOUT = 120.0, 900.0

# Run by the model's own Python: the artifact, rows, and what the library answers to them.
TRAIN = """
import json, pickle, sys
import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = sys.argv[1]
random = np.random.RandomState(3)
x = pd.DataFrame(random.normal(size=(300, 3)), columns=["a", "b", "c"])
x["n"] = random.randint(0, 9, 300)
y = np.array(["no", "yes"])[(x["a"] + x["n"] / 9 > 0.5).astype(int)]
model = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
with open(folder + "/model.pkl", "wb") as file:
    pickle.dump(model, file)
rows = x.head(50)
rows.to_csv(folder + "/rows.csv", index=False)
rows.to_json(folder + "/rows.json", orient="records", double_precision=15)
frames = {"csv": pd.read_csv(folder + "/rows.csv"), "json": pd.DataFrame(json.load(open(folder + "/rows.json")))}
answers = {name: [{"yes": b, "no": a} for a, b in model.predict_proba(x).tolist()] for name, x in frames.items()}
with open(folder + "/own.json", "w") as file:
    json.dump(answers, file)
"""
# A hook that needs its pydantic, and looks at each row with it.
HOOKS = {
    "none": "",
    "1": """
import pickle

from pydantic import BaseModel, validator


class Row(BaseModel):
    a: float
    n: int

    @validator("n")
    def small(cls, value):
        assert value < 1000
        return value

    class Config:
        allow_mutation = False


def load_model(code_dir):
    with open(code_dir + "/model.pkl", "rb") as file:
        return pickle.load(file)


def transform(data, model):
    for record in data.to_dict("records"):
        Row.parse_obj(record)
    return data
""",
    "2": """
import pickle

from pydantic import BaseModel, field_validator


class Row(BaseModel):
    a: float
    n: int

    @field_validator("n")
    @classmethod
    def small(cls, value):
        assert value < 1000
        return value


def load_model(code_dir):
    with open(code_dir + "/model.pkl", "rb") as file:
        return pickle.load(file)


def transform(data, model):
    for record in data.to_dict("records"):
        Row.model_validate(record)
    return data
""",
}
METADATA = json.dumps(
    {
        "name": "m",
        "type": "inference",
        "targetType": "binary",
        "inferenceModel": {"positiveClassLabel": "yes", "negativeClassLabel": "no"},
    }
)


_INTRODUCTION = """
Made by `scripts/matrix`: model environments, served by servers of three [tracks](../design/tracks.md).
A cell says what came of 50 rows, sent as CSV and as JSON, beside what the library itself answers for them there.
*As the library* is the same numbers, to the last bit.
The environments were built by `--env auto` from a `requirements.txt` and a `.python-version`.
Where there is a pydantic, a hook looks at every row with it.
"""


@dataclasses.dataclass(frozen=True, slots=True)
class Wanted:
    """A model environment by the generations of its packages."""

    python: str
    numpy: str
    pandas: str
    sklearn: str
    pydantic: str

    def requirements(self) -> str:
        """Return the requirements file: builds from source are out, as they depend on the machine's compilers."""
        lines = [NUMPY[self.numpy], PANDAS[self.pandas], SKLEARN[self.sklearn], PYDANTIC[self.pydantic]]
        return "--only-binary :all:\n" + "".join(f"{line}\n" for line in lines if line)

    def folder(self) -> Path:
        """Return where its model lies."""
        return WORK / f"py{self.python}-np{self.numpy}-pd{self.pandas}-sk{self.sklearn}-pyd{self.pydantic}"


@dataclasses.dataclass(slots=True)
class Row:
    """One line of the table."""

    wanted: Wanted
    versions: str = ""
    missing: str = ""
    cells: dict[str, str] = dataclasses.field(default_factory=dict)


def data_stacks() -> Iterable[tuple[str, str, str, str]]:
    """Yield every combination of Python, numpy, pandas and scikit-learn."""
    return itertools.product(PYTHONS, NUMPY, PANDAS, SKLEARN)


def choose(*, full: bool) -> list[Wanted]:
    """Return the environments to try: all, or for each data stack one pydantic, in turn."""
    if full:
        return [Wanted(*stack, pydantic) for stack in data_stacks() for pydantic in PYDANTIC]
    turn = itertools.cycle(PYDANTIC)
    chosen = [Wanted(*stack, "none") for stack in data_stacks()]
    return [dataclasses.replace(each, pydantic=next(turn)) if why_not(each) == "" else each for each in chosen]


def why_not(wanted: Wanted) -> str:
    """Return why there is no such environment, in a few words; empty where there is one."""
    minor = int(wanted.python.partition(".")[2])
    reasons = {
        "numpy 2 has no build for Python 3.8": wanted.numpy == "2" and minor < 9,
        "numpy 1 has no build for Python 3.13": wanted.numpy == "1" and minor > 12,
        f"pandas 1 has no build for Python {wanted.python}": wanted.pandas == "1" and minor > 11,
        "pandas 3 needs Python 3.11": wanted.pandas == "3" and minor < 11,
        "pandas 1 was built for numpy 1, and does not import with 2": wanted.numpy == "2" and wanted.pandas == "1",
        "scikit-learn from 1.5 on needs Python 3.9": wanted.sklearn == "new" and minor < 9,
        "scikit-learn before 1.5 was built for numpy 1": wanted.numpy == "2" and wanted.sklearn == "old",
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def prepare(row: Row) -> Path:
    """Build the environment and train its model; return the interpreter."""
    wanted = row.wanted
    folder = wanted.folder()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".python-version").write_text(wanted.python + "\n")
    (folder / "requirements.txt").write_text(wanted.requirements())
    (folder / "model-metadata.yaml").write_text(METADATA)
    if HOOKS[wanted.pydantic]:
        (folder / "custom.py").write_text(HOOKS[wanted.pydantic])
    done = subprocess.run(
        [str(ROOT / ".venv/bin/backline"), "env", "build", str(folder), "--env-cache", str(WORK / "environments")],
        capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    python = Path(done.stdout.strip())
    subprocess.run(
        [str(python), "-W", "ignore", "-c", TRAIN, str(folder)], check=True, timeout=START_TIMEOUT, capture_output=True
    )
    return python


def serve_and_compare(folder: Path, server: str) -> tuple[str, dict[str, Any]]:
    """Serve the model and return what came of it, and what the server says of the model."""
    command = [
        str(ROOT / SERVERS[server] / "bin/python"), "-m", "backline", "serve", str(folder), "--env", "auto",
        "--env-cache", str(WORK / "environments"), "--address", "127.0.0.1:0",
    ]  # fmt: skip
    log = folder / f"{server}.log"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BACKLINE_")}
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env={**environ, "BACKLINE_LOG_FORMAT": "text"}
        )
    try:
        port = _wait_ready(process, log)
        own = json.loads((folder / "own.json").read_text())
        for suffix, content_type in (("csv", "text/csv"), ("json", "application/json")):
            body = (folder / f"rows.{suffix}").read_bytes()
            status, answer = ask(port, "POST", "/predict/", body, content_type)
            if status != 200:
                return f"{suffix}: {status} {answer.get('message')}", {}
            if answer["predictions"] != own[suffix]:
                return f"{suffix}: another answer than the library's", {}
        return "as the library", ask(port, "GET", "/info/")[1]["model"]
    finally:
        process.terminate()
        process.wait(START_TIMEOUT)


def _wait_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + START_TIMEOUT
    port = 0
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if not port and (found := re.search(r"^Listening on http://127\.0\.0\.1:(\d+)", log.read_text(), re.MULTILINE)):
            port = int(found[1])
        if port and ask(port, "GET", "/readyz")[0] == 200:
            return port
        time.sleep(0.05)
    raise RuntimeError(f"did not get ready:\n{log.read_text()[-2000:]}")


def ask(
    port: int, method: str, path: str, body: bytes | None = None, content_type: str = "text/csv"
) -> tuple[int, dict[str, Any]]:
    """Send a request; return status and JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_TIMEOUT)
    try:
        connection.request(method, path, body, {"Content-Type": content_type} if body else {})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    finally:
        connection.close()


def run(row: Row, servers: Iterable[str]) -> None:
    """Fill a row."""
    try:
        prepare(row)
    except (RuntimeError, subprocess.SubprocessError) as exc:
        output = getattr(exc, "stderr", None) or b""
        text = f"{exc}\n{output.decode() if isinstance(output, bytes) else output}"
        row.cells = dict.fromkeys(servers, "FAILED: " + text.strip()[-300:].replace("\n", " "))
        return
    for server in servers:
        try:
            row.cells[server], model = serve_and_compare(row.wanted.folder(), server)
        except (RuntimeError, OSError) as exc:
            row.cells[server] = "FAILED: " + str(exc)[-300:].replace("\n", " ")
            continue
        if model:
            packages = model["packages"]
            row.versions = (
                ", ".join(
                    f"{name} {packages[key]}"
                    for name, key in (("numpy", "numpy"), ("pandas", "pandas"))
                    if packages.get(key)
                )
                + f", {model['python']}, scikit-learn {model.get('library_version') or _sklearn(row)}"
            )


def _sklearn(row: Row) -> str:
    """Return the version of scikit-learn where hooks load the artifact, so that the server does not know it."""
    text = subprocess.run(
        [str(ROOT / ".venv/bin/backline"), "env", "explain", str(row.wanted.folder()), "--env-cache",
         str(WORK / "environments")], capture_output=True, text=True, timeout=60, check=False,
    ).stdout  # fmt: skip
    found = re.search(r"scikit-learn==(\S+)", text)
    return found[1] if found else ""


def page(rows: list[Row], servers: list[str], *, full: bool) -> str:
    """Return the page."""
    versions = {server: _version(server) for server in servers}
    served = [row for row in rows if row.cells]
    total = sum(len(row.cells) for row in served)
    good = sum(value == "as the library" for row in served for value in row.cells.values())
    lines = [
        "# Servers and model environments",
        "",
        _INTRODUCTION.strip(),
        *(
            []
            if full
            else ["Each set of data packages has one pydantic, in turn; `scripts/matrix --full` has all three."]
        ),
        "",
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}: {good} of {total} cells as the library.",
        "",
        "| server | packages |",
        "| --- | --- |",
        *(f"| {server} | {versions[server]} |" for server in servers),
        "",
        f"| Python | numpy | pandas | scikit-learn | pydantic | {' | '.join(servers)} |",
        f"| --- | --- | --- | --- | --- | {' | '.join('---' for _ in servers)} |",
    ]
    for row in served:
        wanted, found = row.wanted, row.versions
        names = dict(re.findall(r"(numpy|pandas|scikit-learn) ([0-9.]+)", found))
        cells = " | ".join(row.cells[server] for server in servers)
        lines.append(
            f"| {wanted.python} | {names.get('numpy', wanted.numpy)} | {names.get('pandas', wanted.pandas)} | "
            f"{names.get('scikit-learn', wanted.sklearn)} | {wanted.pydantic} | {cells} |"
        )
    lines += [
        "",
        "## What cannot be installed",
        "",
        "From packages that are built already; each reason is the index's or the packages' own.",
        "",
        "| Python | numpy | pandas | scikit-learn | why |",
        "| --- | --- | --- | --- | --- |",
    ]
    seen = set()
    for row in rows:
        wanted = row.wanted
        key = (wanted.python, wanted.numpy, wanted.pandas, wanted.sklearn)
        if row.missing and key not in seen:
            seen.add(key)
            sklearn = "before 1.5" if wanted.sklearn == "old" else "from 1.5 on"
            lines.append(f"| {wanted.python} | {wanted.numpy} | {wanted.pandas} | {sklearn} | {row.missing} |")
    return "\n".join(lines) + "\n"


def _version(server: str) -> str:
    done = subprocess.run(
        [str(ROOT / SERVERS[server] / "bin/python"), "-m", "backline", "--version"],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    return done.stdout.strip()


def main() -> int:
    """Run the matrix and write the page; return 1 where a cell is not as the library."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="every pydantic with every set of data packages")
    parser.add_argument("--only", default="", metavar="TEXT", help="only environments whose folder's name holds TEXT")
    parser.add_argument("--output", type=Path, default=PAGE)
    arguments = parser.parse_args()
    servers = list(SERVERS)
    rows = [Row(wanted) for wanted in choose(full=arguments.full) if arguments.only in wanted.folder().name]
    for row in rows:
        row.missing = why_not(row.wanted)
        if row.missing:
            continue
        run(row, servers)
        print(row.wanted.folder().name, row.cells, file=sys.stderr, flush=True)
        arguments.output.write_text(page(rows, servers, full=arguments.full))
    return 0 if all(value == "as the library" for row in rows for value in row.cells.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
