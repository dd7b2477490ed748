"""How heavy each server is beside its peers: command line, imports, idle memory, packages. Writes a page of docs/."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import os
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.environments import PROJECT
from benchmarks.errors import BenchmarkError
from benchmarks.machine import describe
from benchmarks.processes import pss_mib
from benchmarks.server import Place, Server, running

PAGE = Path("benchmarks") / "footprint.md"
_HELP_ROUNDS, _ROUNDS = 9, 3
_TIMEOUT = 120.0
_SETTLE = 2.0  # seconds from the first answer until memory is read
_ESTABLISHED = "01"

_INTRODUCTION = """
# Footprint

What a server weighs before it does anything, beside its peers, on one machine.
Made by `python -m benchmarks footprint`; [how it measures](../../benchmarks/README.md#footprint).
"""
_NOTES = """
- *help*: the command's `--help`, with warm caches and compiled bytecode.
- *imports*: what the process that speaks HTTP imports before it serves, less an empty Python.
- *its process, all*: memory (PSS) when idle, after the first answer of a model that does nothing: of the process that
  speaks HTTP, and of all processes of the server.
  LitServe forks its processes from one, so that each counts a part of what they share.
- *packages*: what an installation without extras brings into an empty environment, itself included.
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A server: who runs it, its help, the imports of the process that speaks HTTP, what is installed."""

    contender: str
    help: tuple[str, ...]
    imports: str
    requirement: str


CANDIDATES = {
    "backline": Candidate(
        contender="backline",
        help=("backline", "--help"),
        imports="import backline.cli.serve, backline.api.run",
        requirement=str(PROJECT / "pyproject.toml"),
    ),
    "mlserver": Candidate(
        contender="MLServer, 1 worker",
        help=("mlserver", "--help"),
        imports="import mlserver, mlserver.server",
        requirement="mlserver",
    ),
    "bentoml": Candidate(
        contender="BentoML",
        help=("bentoml", "--help"),
        imports="import bentoml, _bentoml_impl.server.app",
        requirement="bentoml",
    ),
    "litserve": Candidate(
        contender="LitServe",
        help=("litserve", "--help"),
        imports="import litserve",
        requirement="litserve",
    ),
    "ray": Candidate(
        contender="Ray Serve",
        help=("serve", "--help"),
        imports="from ray import serve; import ray.serve._private.proxy",
        requirement="ray[serve]",
    ),
}


def run(place: Place, docs: Path) -> None:
    """Measure all, the servers taking turns, and write the page."""
    idle: dict[str, list[tuple[float, float, int]]] = {name: [] for name in CANDIDATES}
    for number in range(_ROUNDS):
        for name in list(CANDIDATES)[:: -1 if number % 2 else 1]:
            idle[name].append(_idle(name, place))
            print(f"round {number + 1}  {name}: {idle[name][-1][0]:.0f} MiB", file=sys.stderr, flush=True)
    lines = [
        "| server | help, s | imports, s | its process, MiB | all, MiB (processes) | packages |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, candidate in CANDIDATES.items():
        commands = place.environments.commands(name)
        label = f"{candidate.contender} ({place.environments.versions(name)[name]})"
        front, everybody, count = (statistics.median(column) for column in zip(*idle[name], strict=True))
        lines.append(
            f"| {label} | {_help_seconds(candidate, commands):.2f} | {_import_seconds(candidate, commands):.2f} | "
            f"{front:.0f} | {everybody:.0f} ({count:.0f}) | {_packages(candidate, place)} |"
        )
    when = f"{dt.datetime.now(dt.UTC):%Y-%m-%d}: {describe()}; Python {sys.version.split()[0]}; medians."
    text = "\n".join([_INTRODUCTION.strip(), "", when, "", *lines, "", _NOTES.strip()]) + "\n"
    (docs / PAGE).write_text(text)
    print(docs / PAGE)


def _idle(name: str, place: Place) -> tuple[float, float, int]:
    """Return the memory of the process that speaks HTTP, that of all processes, and their number."""
    with running(CANDIDATES[name].contender, "noop", place) as server:
        time.sleep(_SETTLE)
        pids = server.pids()
        return pss_mib([_front(server, pids)]), pss_mib(pids), len(pids)


def _front(server: Server, pids: list[int]) -> int:
    """Return the process at the other end of a connection."""
    with socket.create_connection(("127.0.0.1", server.port), _TIMEOUT) as connection:
        mine = connection.getsockname()[1]
        deadline = time.monotonic() + _TIMEOUT
        while time.monotonic() < deadline:
            inode = _inode(server.port, mine)
            for pid in pids:
                with contextlib.suppress(OSError):
                    if inode and any(_link(each) == f"socket:[{inode}]" for each in Path(f"/proc/{pid}/fd").iterdir()):
                        return pid
            time.sleep(0.05)  # it has not accepted it yet
    raise BenchmarkError(f"no process has taken the connection to port {server.port}")


def _inode(port: int, peer: int) -> str:
    for file in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{file}").read_text().splitlines()[1:]:
            fields = line.split()
            local, remote = (int(each.rpartition(":")[2], 16) for each in fields[1:3])
            if (local, remote, fields[3]) == (port, peer, _ESTABLISHED):
                return fields[9]
    return ""


def _link(file: Path) -> str:
    try:
        return str(file.readlink())
    except OSError:
        return ""


def _help_seconds(candidate: Candidate, commands: Path) -> float:
    command = [str(commands / candidate.help[0]), *candidate.help[1:]]
    _call(command)
    return statistics.median(_timed(command) for _ in range(_HELP_ROUNDS))


def _import_seconds(candidate: Candidate, commands: Path) -> float:
    python = str(commands / "python")
    empty, full = [python, "-c", "pass"], [python, "-W", "ignore", "-c", candidate.imports]
    _call(full)
    return statistics.median(_timed(full) - _timed(empty) for _ in range(_HELP_ROUNDS))


def _packages(candidate: Candidate, place: Place) -> int:
    """Return how many packages a resolver chooses today for an environment that has none."""
    is_file = candidate.requirement.endswith(".toml")
    command = [str(PROJECT / ".venv" / "bin" / "uv"), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python", str(place.environments.python("backline"))]
    given = None if is_file else candidate.requirement
    output = _call([*command, candidate.requirement if is_file else "-"], given)
    return sum("==" in line for line in output.splitlines()) + is_file


def _timed(command: list[str]) -> float:
    started = time.perf_counter()
    _call(command)
    return time.perf_counter() - started


def _call(command: list[str], given: str | None = None) -> str:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        command, input=given, capture_output=True, text=True, timeout=_TIMEOUT, check=False, env=environ
    )
    if done.returncode != 0:
        raise BenchmarkError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout
