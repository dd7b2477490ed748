"""Requests per second and latency of Backline beside a plain FastAPI application, in one run. See README.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MODELS = ("pipeline", "noop")
# Our contenders: "backline" is what a user gets who sets nothing.
FLAGS = {
    "backline": (),
    "backline, 2 workers": ("--workers", "2"),
    "backline, batch on": ("--batch", "on"),  # for hooks, which do not share calls by themselves
}
START_TIMEOUT = 60.0


def main() -> int:
    """Run the rounds, keep the raw figures, print the table."""
    arguments = parse_arguments()
    if shutil.which("wrk") is None:
        sys.exit("wrk is needed to make the load: apt-get install wrk, or see https://github.com/wg/wrk")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        subprocess.run([arguments.model_python, HERE / "models.py", directory], check=True)
        expected = json.loads((directory / "expected.json").read_text())
        figures: list[dict[str, Any]] = []
        with arguments.output.open("w") as raw:
            for number in range(arguments.rounds):
                for model in MODELS:
                    # Turn about, so that a drift of the machine falls on everyone.
                    contenders = arguments.contenders if number % 2 == 0 else arguments.contenders[::-1]
                    for contender in contenders:
                        for figure in measure(contender, model, directory, arguments, expected[model]):
                            figure |= {"round": number, "contender": contender, "model": model}
                            figures.append(figure)
                            raw.write(json.dumps(figure) + "\n")
                            print(json.dumps(figure), file=sys.stderr, flush=True)
        print(table(figures, arguments))
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--model-python", type=Path, required=True, help="interpreter with the model's packages and FastAPI"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="length of one measurement")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--contenders", nargs="+", default=["plain FastAPI", *FLAGS])
    parser.add_argument("--output", type=Path, default=Path("serving.jsonl"), help="raw figures, JSON lines")
    arguments = parser.parse_args()
    arguments.model_python = arguments.model_python.absolute()
    return arguments


def measure(
    contender: str, model: str, directory: Path, arguments: argparse.Namespace, expected: float
) -> Iterator[dict[str, Any]]:
    """Start a contender, check its answer, load it at each number of clients, check again."""
    body = directory / "rows-1.csv"
    with running(contender, model, directory, arguments) as url:
        check(url, body, expected)
        load(url, body, 8, 1)  # warm-up
        for clients in arguments.clients:
            yield {"clients": clients, **load(url, body, clients, arguments.seconds)}
        # The last requests of the load may share its call, and a library's own arithmetic differs in the last bits
        # between batch sizes.
        check(url, body, expected, tolerance=1e-12)


@contextlib.contextmanager
def running(contender: str, model: str, directory: Path, arguments: argparse.Namespace) -> Iterator[str]:
    """Run a server until the block ends; gives the URL to post to."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    folder = directory / model
    if contender == "plain FastAPI":
        command = [arguments.model_python, "-m", "uvicorn", "plain_app:app", "--port", str(port), "--no-access-log"]
    else:
        command = [sys.executable, "-m", "backline", "serve", folder, "--address", f"127.0.0.1:{port}"]
        command += ["--python", arguments.model_python, *FLAGS[contender]]
    environment = {**os.environ, "MODEL_DIRECTORY": str(folder)}
    with (directory / "server.log").open("w") as log:
        process = subprocess.Popen(command, cwd=HERE, env=environment, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}/predict/"
            wait_for_answer(url, directory / "rows-1.csv", process)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def wait_for_answer(url: str, body: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers a prediction."""
    deadline = time.monotonic() + START_TIMEOUT
    while True:
        try:
            post(url, body)
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def post(url: str, body: Path) -> Any:
    """Send one request and return its JSON."""
    message = urllib.request.Request(url, body.read_bytes(), {"Content-Type": "text/csv"})
    with urllib.request.urlopen(message, timeout=30) as response:
        return json.load(response)


def check(url: str, body: Path, expected: float, *, tolerance: float = 0.0) -> None:
    """Hold an answer against the library's own; ``tolerance`` is relative."""
    got = post(url, body)["predictions"][0]["1"]
    if not math.isclose(got, expected, rel_tol=tolerance):
        sys.exit(f"{url} answered {got} where the library says {expected}")


def load(url: str, body: Path, clients: int, seconds: int) -> dict[str, Any]:
    """Let wrk send the body from ``clients`` connections, each waiting for its answer."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", "-s", str(HERE / "report.lua"), url]
    output = subprocess.run(command, env={**os.environ, "BODY": str(body)}, capture_output=True, text=True, check=True)
    figure: dict[str, Any] = json.loads(output.stdout.splitlines()[-1])
    figure["per_second"] = figure["requests"] / figure["seconds"]
    return figure


def table(figures: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """Return the medians as Markdown, with the ratio to the first contender."""
    first = arguments.contenders[0]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}, {machine}; medians of {arguments.rounds} rounds of {arguments.seconds} s.",
        f"Each cell: requests/s, p50 / p99 in ms, and the ratio of the rate to that of {first} in the same run.",
    ]
    for model in MODELS:
        lines += ["", f"| {model}, 1 row | " + " | ".join(f"{n} clients" for n in arguments.clients) + " |"]
        lines.append("| --- |" + " --- |" * len(arguments.clients))
        for contender in arguments.contenders:
            cells = []
            for clients in arguments.clients:
                mine = medians(figures, contender, model, clients)
                base = medians(figures, first, model, clients)
                ratio = mine["per_second"] / base["per_second"]
                bad = f", {mine['bad']:.0f} bad" if mine["bad"] else ""
                cells.append(
                    f"{mine['per_second']:,.0f}/s, {mine['p50_ms']:.1f} / {mine['p99_ms']:.1f}, {ratio:.2f}x{bad}"
                )
            lines.append(f"| {contender} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def medians(figures: list[dict[str, Any]], contender: str, model: str, clients: int) -> dict[str, float]:
    """Return the median of each figure over the rounds."""
    rows = [f for f in figures if (f["contender"], f["model"], f["clients"]) == (contender, model, clients)]
    return {name: statistics.median(row[name] for row in rows) for name in ("per_second", "p50_ms", "p99_ms", "bad")}


if __name__ == "__main__":
    sys.exit(main())
