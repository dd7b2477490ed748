"""Runs a contender: from the start of its process to the end of the last one it has left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.answers import check_answer
from benchmarks.contenders import CONTENDERS, Contender
from benchmarks.environments import HERE, Environments
from benchmarks.errors import BenchmarkError, ServerFailed
from benchmarks.processes import family

_START_TIMEOUT = 120.0  # seconds
_STOP_TIMEOUT = 10.0
_POLL = 0.01
_PEERS = HERE / "peers"
# They change what a server does, or hide its bytecode from it.
_UNWANTED = ("PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH", "VIRTUAL_ENV")


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where everything is: environments, what ``prepare.py`` has made, and a folder for what servers write."""

    environments: Environments
    data: Path
    work: Path

    def body(self, contender: Contender, model: str, rows: int) -> Path:
        """Return the file of a body in the contender's format."""
        return self.data / "bodies" / f"{model}-{contender.body}-{rows}"

    def expected(self, model: str, rows: int) -> list[float]:
        """Return P(class 1) of the rows of a body."""
        return _read_expected(self.data / "answers" / f"{model}-{rows}.json")


@functools.cache
def _read_expected(file: Path) -> list[float]:
    numbers: list[float] = json.loads(file.read_text())
    return numbers


@dataclasses.dataclass(frozen=True, slots=True)
class Server:
    """A running contender that has answered its first request; ``start_seconds`` from the start of its process."""

    contender: Contender
    model: str
    port: int
    pid: int
    start_seconds: float

    @property
    def url(self) -> str:
        """Where to post."""
        return f"http://127.0.0.1:{self.port}{self.contender.path}"

    def pids(self) -> list[int]:
        """Return all its processes."""
        return family(self.pid)

    def post(self, body: bytes, *, timeout: float = 30.0) -> bytes:
        """Return the answer to one request. Raises ``ServerFailed`` if it is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            connection.request("POST", self.contender.path, body, {"Content-Type": self.contender.content_type})
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise ServerFailed(repr(exc)) from exc
        finally:
            connection.close()
        if response.status != 200:
            raise ServerFailed(f"{response.status} {answer[:300]!r}")
        return answer


@contextlib.contextmanager
def running(name: str, model: str, place: Place, contender: Contender | None = None) -> Iterator[Server]:
    """Start a contender, wait for its first right answer, stop it. Raises ``ServerFailed`` when none comes.

    ``contender``: what to start in place of the one of that name.
    """
    contender = contender or CONTENDERS[name]
    work = place.work / name.replace(", ", "-").replace(" ", "-")
    work.mkdir(parents=True, exist_ok=True)
    ports = _free_ports(3)
    commands = place.environments.commands(contender.environment)
    words = {
        "bin": commands,
        "data": place.data,
        "model": model,
        "model_python": place.environments.python(contender.model_environment) if contender.ours else "",
        "peers": _PEERS,
        "work": work,
        "port": ports[0],
        "port2": ports[1],
        "port3": ports[2],
    }
    environment = {name: value for name, value in os.environ.items() if name not in _UNWANTED}
    environment |= {
        **contender.variables,
        "BENCH_DATA": str(place.data),
        "BENCH_MODEL": model,
        "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}",
    }
    if not contender.ours:
        environment["PYTHONPATH"] = str(_PEERS)
    with (work / f"{model}.log").open("w") as log:

        def start(template: str) -> subprocess.Popen[bytes]:
            command = shlex.split(template.format(**words))
            return subprocess.Popen(
                command,
                cwd=work,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

        if contender.prepare and start(contender.prepare).wait(_START_TIMEOUT):
            raise ServerFailed(f"it cannot be prepared, see {log.name}")
        started = time.perf_counter()
        process = start(contender.command)
        try:
            server = Server(contender, model, ports[0], process.pid, 0.0)
            _wait_for_answer(server, place, process, started)
            yield dataclasses.replace(server, start_seconds=time.perf_counter() - started)
        finally:
            _stop(process, signal.SIGINT if contender.interrupt else signal.SIGTERM)


def _wait_for_answer(server: Server, place: Place, process: subprocess.Popen[bytes], started: float) -> None:
    body = place.body(server.contender, server.model, 1).read_bytes()
    expected = place.expected(server.model, 1)
    while True:
        try:
            check_answer(server.post(body), expected)
        except ServerFailed as exc:
            if process.poll() is not None:
                raise ServerFailed(f"it has ended with code {process.returncode}; last asked: {exc}") from exc
            if time.perf_counter() - started > _START_TIMEOUT:
                raise ServerFailed(f"no right answer within {_START_TIMEOUT:.0f} s; last asked: {exc}") from exc
            time.sleep(_POLL)
        else:
            return


def _stop(process: subprocess.Popen[bytes], polite: signal.Signals) -> None:
    members = family(process.pid)
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(polite)
    deadline = time.monotonic() + _STOP_TIMEOUT
    while time.monotonic() < deadline and any(_is_running(pid) for pid in members):
        process.poll()
        time.sleep(0.02)
    for pid in {*members, *family(process.pid)}:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _free_ports(count: int) -> list[int]:
    if count == 0:
        return []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return [port, *_free_ports(count - 1)]


def check_tools() -> None:
    """Raise ``BenchmarkError`` unless what the measurements need is installed."""
    import shutil

    if shutil.which("wrk") is None:
        raise BenchmarkError("wrk makes the load and is not here: apt-get install wrk, or https://github.com/wg/wrk")
    if not Path("/proc/self/smaps_rollup").exists():
        raise BenchmarkError("memory is read from /proc/PID/smaps_rollup, which this system does not have: use Linux")
