"""Starting a worker over loopback TCP, which is what is left where there are no Unix sockets."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from backline.runtime import launch

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


def test_whoever_connects_without_the_token_is_turned_away(tmp_path: Path) -> None:
    async def test() -> None:
        script = write_script(tmp_path, STRANGER_FIRST)
        launched = await launch._launch_over_tcp(str(script), current=False, accept_timeout=30)
        with launched.channel as channel:
            assert channel.getpeername()[0] == "127.0.0.1"
            async with asyncio.timeout(10):
                assert await asyncio.get_running_loop().sock_recv(channel, 100) == b"refused"
        await launched.process.communicate()

    asyncio.run(test())


def test_a_process_that_does_not_connect_in_time_is_not_left_running(tmp_path: Path) -> None:
    async def test() -> None:
        script = write_script(tmp_path, NEVER_CONNECTS)
        pid_file = tmp_path / "python.pid"
        with pytest.raises(TimeoutError):
            await launch._launch_over_tcp(str(script), current=False, accept_timeout=1.5)
        pid = int(pid_file.read_text())
        async with asyncio.timeout(10):
            while os.path.exists(f"/proc/{pid}"):  # noqa: ASYNC110, ASYNC240  (another process's end)
                await asyncio.sleep(0.01)

    asyncio.run(test())
