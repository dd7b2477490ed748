"""What a service manager is told, over a real datagram socket; and that systemd takes the unit of ``deploy/``."""

from __future__ import annotations

import configparser
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from backline.config.settings import ServerSettings
from tests.serving import ServeFixture, Server

UNIT = Path(__file__).parents[2] / "deploy" / "systemd" / "backline@.service"
MODEL = """
import os


def load_model(code_dir):
    if os.path.exists(code_dir + "/broken"):
        raise ValueError("broken")
    return None


def score_unstructured(model, data, query, **kwargs):
    return ", ".join(name for name in os.environ if name.startswith(("NOTIFY", "WATCHDOG"))) or "nothing"
"""


class Listener:
    """A service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.heard: list[str] = []

    def hear(self, beginning: str, within: float = 60) -> str:
        """Return the next message that begins so, and keep all that came until then."""
        deadline = time.monotonic() + within
        while True:
            self.socket.settimeout(max(0.01, deadline - time.monotonic()))
            message = self.socket.recv(4096).decode()
            self.heard.append(message)
            if message.startswith(beginning):
                return message


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[Listener]:
    listening = Listener(str(tmp_path / "notify"))
    with listening.socket:
        yield listening


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text("name: echo\ntype: inference\ntargetType: unstructured\n")
    return folder


def ask(server: Server, data: bytes) -> bytes:
    from tests.integration.load import post

    return post(f"{server.url}/predictUnstructured/", data, headers={"Content-Type": "text/plain"}).body


@pytest.mark.slow
def test_the_manager_hears_when_the_server_is_ready_that_it_lives_and_when_it_stops(
    serve: ServeFixture, folder: Path, listener: Listener
) -> None:
    address = str(listener.socket.getsockname())
    server = serve(folder, env={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "900000"})
    assert listener.hear("READY=1") == "READY=1\nSTATUS=ready: requests are answered"
    assert "STOPPING=1" not in "".join(listener.heard)
    for _ in range(3):
        listener.hear("WATCHDOG=1", within=10)
    assert ask(server, b"x") == b"nothing"  # the model does not speak for the server
    server.process.terminate()
    assert listener.hear("STOPPING=1").startswith("STOPPING=1\nSTATUS=")
    assert server.stop() == 0
    assert sum(message.startswith("READY=1") for message in listener.heard) == 1


@pytest.mark.slow
def test_a_loop_that_stands_still_gives_no_sign_of_life(serve: ServeFixture, folder: Path, listener: Listener) -> None:
    server = serve(folder, env={"NOTIFY_SOCKET": str(listener.socket.getsockname()), "WATCHDOG_USEC": "300000"})
    listener.hear("WATCHDOG=1")
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        os.waitpid(server.process.pid, os.WUNTRACED)  # stopped: what it has said before may still be in the socket
        listener.socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while listener.socket.recv(4096):
                pass
        with pytest.raises(TimeoutError):
            listener.hear("WATCHDOG=1", within=1)
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    listener.hear("WATCHDOG=1")


@pytest.mark.slow
def test_an_error_server_is_as_ready_as_it_gets_and_says_so(
    serve: ServeFixture, folder: Path, listener: Listener
) -> None:
    (folder / "broken").touch()
    address = str(listener.socket.getsockname())
    serve(folder, "--with-error-server", env={"NOTIFY_SOCKET": address}, ready=513)
    assert "does not load" in listener.hear("READY=1")


@pytest.mark.slow
def test_an_abstract_socket_is_reached_and_a_missing_one_costs_a_warning(serve: ServeFixture, folder: Path) -> None:
    abstract = Listener(f"\0backline-test-{os.getpid()}")
    with abstract.socket:
        serve(folder, env={"NOTIFY_SOCKET": f"@backline-test-{os.getpid()}"})
        abstract.hear("READY=1")
    server = serve(folder, env={"NOTIFY_SOCKET": "/nowhere/at/all"})
    assert ask(server, b"x") == b"nothing"
    deadline = time.monotonic() + 10
    while "NOTIFY_SOCKET=/nowhere/at/all cannot be reached" not in server.log():
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.05)


def test_the_unit_stops_later_than_the_server_and_starts_what_is_there() -> None:
    unit = configparser.RawConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    defaults = ServerSettings()
    assert float(service["TimeoutStopSec"]) > defaults.drain_timeout + defaults.drain_delay
    assert service["KillMode"] == "mixed"
    assert "DynamicUser" in service
    assert re.fullmatch(r"\S+/backline serve \S+%i", service["ExecStart"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    # The one thing that is missing on this machine: the programs at the places that the unit names.
    unit.write_text(UNIT.read_text().replace("/opt/backline/bin/backline", sys.executable))
    instance = tmp_path / "backline@churn.service"
    instance.symlink_to(unit)
    for command in (["verify", "--man=no"], ["security", "--offline=true", "--threshold=20"]):
        checked = subprocess.run(
            ["systemd-analyze", *command, str(instance)], capture_output=True, text=True, timeout=60, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr
        assert "Unknown" not in checked.stderr, checked.stderr
