"""Runs ``backline serve`` as users do: a process of its own, on a free port, until the test is over."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

START_TIMEOUT = 60.0  # seconds from spawn to the line that names the address
READY_TIMEOUT = (
    180.0  # seconds from there to the readiness asked for: the machine may be building or training beside us
)
STOP_TIMEOUT = 20.0  # seconds from SIGTERM to the exit

_LISTENING = re.compile(r"""(?:^|"message":")Listening on (https?://[^\s"]+)""", re.MULTILINE)
_LOG_TAIL = 20_000  # characters
# Variables that the server reads: a test must not depend on the shell it was started from.
_SETTINGS = re.compile(
    r"BACKLINE_.*|DRUM_.*|MLOPS_.*|ADDRESS|CLASS_LABELS.*|CODE_DIR|CUSTOM_MODEL_WORKERS|LLM_ID|LOGGING_LEVEL|MAX_WORKERS"
    r"|NIM_DIRECT_ACCESS_REQUEST_TIMEOUT|SIDECAR"
    r"|(NEGATIVE|POSITIVE)_CLASS_LABEL|RUNTIME_PARAMS_FILE|SHOW_STACKTRACE|TARGET_(NAME|TYPE)|URL_PREFIX|WITH_ERROR_SERVER"
)

SERVER_PYTHON = os.environ.get("TEST_SERVER_PYTHON") or sys.executable
"""The python that servers run under: another one where scripts/test --track tests another set of packages."""

_running: list[Server] = []


class Server:
    """A running ``backline serve``; ``running_server`` and the fixture ``serve`` stop what they have started."""

    def __init__(self, command: Sequence[str], process: subprocess.Popen[bytes], log_file: Path) -> None:
        self.command = command
        self.process = process
        self.log_file = log_file
        self.url = ""

    def log(self) -> str:
        """Return everything that the server has written so far, on stdout and stderr."""
        return self.log_file.read_text(errors="replace")

    def wait_listening(self) -> None:
        """Wait for the line that names the address and note it in ``url``."""
        deadline = time.monotonic() + START_TIMEOUT
        while (found := _LISTENING.search(self.log())) is None:
            self._check_alive("listening", deadline)
            time.sleep(0.02)
        self.url = found[1].rstrip("/")

    def wait_ready(self, status: int = 200) -> None:
        """Wait until ``/readyz`` answers with ``status``."""
        deadline = time.monotonic() + READY_TIMEOUT
        while (seen := self._ready_status()) != status:
            self._check_alive(f"/readyz answering {status} (now {seen})", deadline)
            time.sleep(0.05)

    def stop(self) -> int:
        """Terminate, and kill what does not go; return the exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(
                f"the server did not stop within {STOP_TIMEOUT:.0f} s of SIGTERM\n{self.tail()}"
            ) from None

    def tail(self) -> str:
        """Return the last part of the log, with a title, for failure messages."""
        return f"--- log of pid {self.process.pid} ({' '.join(self.command)})\n{self.log()[-_LOG_TAIL:]}"

    def _ready_status(self) -> int | None:
        parts = urllib.parse.urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        if parts.scheme == "https":
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=10, context=context)
        try:
            connection.request("GET", f"{parts.path}/readyz")
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def _check_alive(self, waiting_for: str, deadline: float) -> None:
        code = self.process.poll()
        if code is not None:
            raise AssertionError(f"the server exited with {code} before {waiting_for}\n{self.tail()}")
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out waiting for {waiting_for}\n{self.tail()}")


class ServeFixture(Protocol):
    """The fixture ``serve``: starts servers that are stopped when the test ends."""

    def __call__(
        self, folder: Path | None, *flags: str, env: Mapping[str, str] | None = None, ready: int | None = 200
    ) -> Server:
        """Start ``backline serve FOLDER FLAGS`` and return once ``/readyz`` answers ``ready``.

        Without a folder the flags name a backend. ``ready=None`` waits for the address only. ``env`` is added to the
        environment. Raises ``AssertionError`` with the log when the server exits or takes too long.
        """


@contextlib.contextmanager
def running_server(
    log_file: Path,
    folder: Path | None,
    *flags: str,
    env: Mapping[str, str] | None = None,
    ready: int | None = 200,
    cwd: Path | None = None,
) -> Iterator[Server]:
    """Run a server for the block, in ``cwd`` or beside its log; see ``ServeFixture`` for the other arguments."""
    environ = {name: value for name, value in os.environ.items() if not _SETTINGS.fullmatch(name)}
    # The log goes to a file, where it is JSON if nobody says else.
    environ |= {"BACKLINE_LOG_FORMAT": "text"} | dict(env or {})
    if sys.executable != SERVER_PYTHON:
        # The models of the tests live in the tests' environment, wherever the server does.
        environ.setdefault("BACKLINE_PYTHON", sys.executable)
    where = [] if folder is None else [str(folder)]
    command = [SERVER_PYTHON, "-m", "backline", "serve", *where, "--address", "127.0.0.1:0", *flags]
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environ,
            cwd=cwd or log_file.parent,
        )
    server = Server(command, process, log_file)
    _running.append(server)
    try:
        server.wait_listening()
        if ready is not None:
            server.wait_ready(ready)
        yield server
    finally:
        try:
            server.stop()
        finally:
            _running.remove(server)


@contextlib.contextmanager
def tiny_backend_running() -> Iterator[str]:
    """Run ``tiny_backend.py`` for the block; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name("tiny_backend.py")), str(port)])
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            assert process.poll() is None, "the small backend did not start"
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def running_logs() -> list[str]:
    """Return the logs of the servers that run now, for the report of a test that has failed."""
    return [server.tail() for server in _running]
