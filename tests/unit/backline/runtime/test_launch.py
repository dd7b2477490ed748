"""Starting a worker's process, and what the event loop learns of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import types
from pathlib import Path
from typing import Any, cast

import pytest

from backline.observe.worker_log import WorkerLog
from backline.runtime import launch, worker
from backline.runtime.call import Call
from backline.runtime.chats import Chats
from backline.runtime.process import WorkerProcess

pytestmark = pytest.mark.slow

# In place of an interpreter: a stranger shows a token of his own first, then the worker shows the right one.
STRANGER_FIRST = """#!{python}
import socket, sys
_, host, port, token = sys.argv[3].split(":")
stranger = socket.create_connection((host, int(port)))
stranger.sendall(b"x" * len(token))
refused = stranger.recv(1) == b""
worker = socket.create_connection((host, int(port)))
worker.sendall(token.encode() + (b"refused" if refused else b"let in"))
worker.recv(1)
"""
NEVER_CONNECTS = """#!{python}
import os, sys, time
open(__file__ + ".pid", "w").write(str(os.getpid()))
time.sleep(600)
"""


def write_script(folder: Path, code: str) -> Path:
    script = folder / "python"
    script.write_text(code.format(python=sys.executable))
    script.chmod(0o700)
    return script


def launch_over_tcp(script: Path, monkeypatch: pytest.MonkeyPatch) -> WorkerProcess:
    monkeypatch.setattr(launch, "socket", types.SimpleNamespace(create_server=socket.create_server))
    return WorkerProcess(launch.launch(str(script), {}))


class Receiver(asyncio.Protocol):
    def __init__(self) -> None:
        self.received: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received.set_result(data)


def test_whoever_connects_without_the_token_is_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        process = launch_over_tcp(write_script(tmp_path, STRANGER_FIRST), monkeypatch)
        receiver = Receiver()
        async with asyncio.timeout(30):
            await process.connect(receiver, accept_timeout=30)
            assert await receiver.received == b"refused"
            assert receiver.transport is not None
            assert receiver.transport.get_extra_info("peername")[0] == "127.0.0.1"
            receiver.transport.close()
            assert await process.exited == 0
        process.close()

    asyncio.run(test())


def test_a_process_that_does_not_connect_in_time_is_not_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "socket", types.SimpleNamespace(create_server=socket.create_server))
    monkeypatch.setattr(worker, "_CONNECT_TIMEOUT", 1.5)
    script = write_script(tmp_path, NEVER_CONNECTS)

    async def test() -> None:
        plan = worker.WorkerPlan(python=str(script), spec={}, payload_directory=str(tmp_path))

        def make_log(made: worker.Worker) -> WorkerLog:
            return WorkerLog(made.number, lines_per_second=1, ids_of=made.recent.get)

        await worker.Worker(1, plan, Dispatcherless(), make_log).run()

    asyncio.run(test())
    assert not os.path.exists(f"/proc/{(tmp_path / 'python.pid').read_text()}")


class Dispatcherless:
    chats = cast("Chats", None)

    def calls_finished(self, worker: worker.Worker, results: worker.Results, seconds: float) -> None:
        raise AssertionError

    def worker_reported(self, worker: worker.Worker, report: dict[str, Any]) -> None:
        raise AssertionError

    def calls_lost(self, worker: worker.Worker, calls: list[Call], stage: str) -> None:
        raise AssertionError


ENDS = """#!{python}
import os, sys
print("out", flush=True)
print("err without an end", end="", file=sys.stderr, flush=True)
os._exit(7)
"""


@pytest.mark.parametrize("how", ["pidfd", "thread"])
def test_the_end_of_a_process_and_its_last_words_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "thread":
        monkeypatch.delattr(os, "pidfd_open", raising=False)

    async def test() -> list[str]:
        process = WorkerProcess(launch.launch(str(write_script(tmp_path, ENDS)), {}))
        log = WorkerLog(1, lines_per_second=10, ids_of=lambda _: None)
        async with asyncio.timeout(30):
            await process.read_output(log.reader(), log.reader())
            assert await process.exited == 7
            await process.end_output(10)
        process.close()
        return sorted(log.tail)

    assert asyncio.run(test()) == ["err without an end", "out"]


def test_an_early_worker_that_nobody_takes_over_is_gone_after_the_block() -> None:
    with launch.launched_early("current", {"code_dir": "/nowhere"}) as launched:
        assert launched is not None
        assert launched.popen.poll() is None
    assert launched.popen.poll() is not None


def test_an_early_worker_that_was_taken_over_outlives_the_block(tmp_path: Path) -> None:
    script = write_script(tmp_path, NEVER_CONNECTS)
    with launch.launched_early(str(script), {}) as launched:
        assert launched is not None
        owned = launched.hand_over()
    assert owned.popen.poll() is None
    os.kill(owned.popen.pid, signal.SIGKILL)
    owned.popen.wait()
    owned.close()


def test_an_early_worker_whose_interpreter_cannot_be_run_is_left_to_the_supervisor(tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_bytes(b"\x7fELF is all that it has")
    script.chmod(0o700)
    with launch.launched_early(str(script), {}) as launched:
        assert launched is None


def test_a_first_frame_larger_than_the_channel_takes_does_not_hold_the_server_up(tmp_path: Path) -> None:
    script = write_script(tmp_path, NEVER_CONNECTS)
    launched = launch.launch(str(script), {"metadata": "x" * (4 << 20)})
    try:
        assert 0 < len(launched.unsent) < 4 << 20
    finally:
        launched.kill()
