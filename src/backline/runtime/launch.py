"""Starts a worker process: command, environment, channel and pipes."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import secrets
import socket
import sys
from pathlib import Path

import backline_worker

# These would make the model's interpreter import from, or behave like, the server's environment.
_SERVER_ONLY_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")

_PACKAGE = Path(backline_worker.__file__).parent
_BOOT = _PACKAGE / "_boot" / "boot.py"
_TOKEN_BYTES = 16


@dataclasses.dataclass(frozen=True, slots=True)
class Launched:
    """A process that has been started, and our end of its channel. The caller owns and closes both."""

    process: asyncio.subprocess.Process
    channel: socket.socket


async def launch_worker(python: str, *, accept_timeout: float) -> Launched:
    """Start the worker under the interpreter ``python``; ``"current"`` is the server's own.

    ``accept_timeout`` (seconds) bounds the wait for the connection where there are no Unix sockets. Raises ``OSError``
    when the interpreter cannot be started.
    """
    current = python == "current"
    executable = sys.executable if current else python
    if hasattr(socket, "AF_UNIX"):
        ours, theirs = socket.socketpair()
        try:
            process = await _spawn(executable, f"fd:{theirs.fileno()}", current=current, pass_fds=(theirs.fileno(),))
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        return Launched(process, ours)
    return await _launch_over_tcp(executable, current=current, accept_timeout=accept_timeout)


async def _launch_over_tcp(executable: str, *, current: bool, accept_timeout: float) -> Launched:
    """Loopback TCP for systems without Unix sockets: whoever connects has to show the token first."""
    loop = asyncio.get_running_loop()
    token = secrets.token_hex(_TOKEN_BYTES)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        host, port = listener.getsockname()
        process = await _spawn(executable, f"tcp:{host}:{port}:{token}", current=current, pass_fds=())
        try:
            async with asyncio.timeout(accept_timeout):
                while True:
                    ours, _ = await loop.sock_accept(listener)
                    ours.setblocking(False)
                    shown = b""
                    while len(shown) < len(token) and (piece := await loop.sock_recv(ours, len(token) - len(shown))):
                        shown += piece
                    if secrets.compare_digest(shown, token.encode()):
                        return Launched(process, ours)
                    ours.close()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                process.kill()  # nobody else knows of it yet
            raise


async def _spawn(
    executable: str, connect: str, *, current: bool, pass_fds: tuple[int, ...]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        executable,
        str(_BOOT),
        str(_PACKAGE),
        connect,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=_environment(current=current),
        pass_fds=pass_fds,
        # Its own session: Ctrl-C reaches the server alone, and a kill reaches the model's own child processes too.
        start_new_session=True,
    )


def _environment(*, current: bool) -> dict[str, str]:
    # The one place where the process environment is handed on as it is: it is the model's, not a setting of ours.
    environment = dict(os.environ)
    if not current:
        for name in _SERVER_ONLY_VARIABLES:
            environment.pop(name, None)
    return environment
