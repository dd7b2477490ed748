"""How heavy a server is before it has a model: its command line, its imports, what it installs. Beside its peers.

    python benchmarks/footprint.py --environments FOLDER [--at NAME=ENVIRONMENT ...]

The environments are those of ``python -m benchmarks``. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime as dt
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 7
TIMEOUT = 120.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server: what its command's help is, what the process that speaks HTTP imports, what is installed for it."""

    name: str
    environment: str
    help: tuple[str, ...]
    imports: str
    requirement: str


SERVERS = (
    Server(
        name="Backline",
        environment="backline",
        help=("backline", "--help"),
        imports="import backline.cli.serve, backline.api.run",
        requirement=str(ROOT / "pyproject.toml"),
    ),
    Server(
        name="MLServer",
        environment="mlserver",
        help=("mlserver", "--help"),
        imports="import mlserver, mlserver.server",
        requirement="mlserver",
    ),
    Server(
        name="BentoML",
        environment="bentoml",
        help=("bentoml", "--help"),
        imports="import bentoml, _bentoml_impl.server.app",
        requirement="bentoml",
    ),
    Server(
        name="LitServe",
        environment="litserve",
        help=("litserve", "--help"),
        imports="import litserve",
        requirement="litserve",
    ),
    Server(
        name="Ray Serve",
        environment="ray",
        help=("serve", "--help"),
        imports="from ray import serve; import ray.serve._private.proxy",
        requirement="ray[serve]",
    ),
)
# Printed by the process itself: memory that is its own, and a share of what it shares.
_PSS = """
print(sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Pss:")))
"""


def help_seconds(server: Server, bin_folder: Path) -> float:
    """Return the median time of the command's help, with warm caches."""
    command = [str(bin_folder / server.help[0]), *server.help[1:]]
    _run(command)
    times = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        _run(command)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def imported(server: Server, bin_folder: Path) -> tuple[float, float]:
    """Return how long the imports of the process that speaks HTTP take, and its memory in MiB with them."""
    command = [str(bin_folder / "python"), "-W", "ignore", "-c", server.imports + _PSS]
    empty = [str(bin_folder / "python"), "-c", "pass"]
    _run(command)
    times, sizes = [], []
    for _ in range(3):
        started = time.perf_counter()
        _run(empty)
        middle = time.perf_counter()
        sizes.append(int(_run(command).split()[-1]) / 1024)
        times.append(time.perf_counter() - middle - (middle - started))
    return statistics.median(times), statistics.median(sizes)


def packages(server: Server, uv: Path) -> int:
    """Return how many packages an installation without extras brings, into an environment that has none."""
    is_file = server.requirement.endswith(".toml")
    command = [str(uv), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python-version", "3.11"]
    done = subprocess.run(
        [*command, server.requirement if is_file else "-"],
        input=None if is_file else server.requirement,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    return sum("==" in line for line in done.stdout.splitlines()) + is_file


def _run(command: list[str]) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=environ)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--at", action="append", default=[], metavar="NAME=ENVIRONMENT", help="one that lies elsewhere")
    arguments = parser.parse_args()
    elsewhere = dict(each.split("=", 1) for each in arguments.at)
    uv = ROOT / ".venv" / "bin" / "uv"
    print(f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, Python {sys.version.split()[0]}, medians\n")
    print("| server | `--help`, s | imports of the HTTP process, s | its memory, PSS, MiB | packages |")
    print("| --- | --- | --- | --- | --- |")
    for server in SERVERS:
        bin_folder = Path(elsewhere.get(server.environment, arguments.environments / server.environment)) / "bin"
        seconds, size = imported(server, bin_folder)
        print(
            f"| {server.name} | {help_seconds(server, bin_folder):.2f} | {seconds:.2f} | {size:.0f} | "
            f"{packages(server, uv)} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
