"""A model folder that Backline serves while it is compared, in a process of its own on a free port."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from backline.errors import ParityError
from backline.parity.exchange import HeaderPairs, Request
from backline.parity.peer import connected

_LISTENING = re.compile(r"Listening on (http://\S+)")
_STOP_TIMEOUT = 20.0
_POLL = 0.05
_TAIL_LINES = 30


@contextlib.asynccontextmanager
async def served(
    folder: Path, *, python: str | None = None, flags: Sequence[str] = (), start_timeout: float = 600.0,
    headers: HeaderPairs = (), own_session: bool = True,
) -> AsyncIterator[str]:  # fmt: skip
    """Serve the folder for the block, and yield its address once it is ready.

    ``python`` is the interpreter of the model's environment, ``flags`` further ones of ``backline serve``, ``headers``
    what its extension file may ask of everybody, such as a key. It serves plain HTTP, as certificates are for other
    names than ours. In its ``own_session`` it does not hear a Ctrl-C that is for us. Raises ``ParityError`` with the
    server's last words when it does not get ready.
    """
    command = [sys.executable, "-m", "backline", "serve", str(folder), "--address", "127.0.0.1:0"]
    command += ["--log-format", "text", *flags, "--no-tls"]
    if python is not None:
        command += ["--python", python]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=own_session,
    )
    tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    try:
        async with asyncio.TaskGroup() as group:
            reader = group.create_task(_read(process, tail, address))
            try:
                try:
                    async with asyncio.timeout(start_timeout):
                        url = await asyncio.shield(address)
                        await _wait_ready(url, process, headers)
                except TimeoutError:
                    raise _failed(folder, f"was not ready within {start_timeout:g} s", tail) from None
                except _Refused as exc:
                    told = f"answers the readiness probe with {exc}: its requests need a header that was not given"
                    raise _failed(folder, told, tail) from None
                except _Exited:
                    await asyncio.wait([reader], timeout=1.0)
                    raise _failed(folder, "cannot be served", tail) from None
                yield url
            finally:
                await _stop(process)
    except BaseExceptionGroup as errors:
        if len(errors.exceptions) == 1:
            raise errors.exceptions[0] from None
        raise


class _Exited(Exception):
    """The server has ended before it was ready."""


class _Refused(Exception):
    """The server asks for credentials where it is asked whether it is ready."""


async def _read(
    process: asyncio.subprocess.Process, tail: collections.deque[str], address: asyncio.Future[str]
) -> None:
    assert process.stdout is not None
    while piece := await process.stdout.read(1 << 16):
        lines = piece.decode(errors="replace").splitlines()
        tail.extend(lines)
        if not address.done():
            for line in lines:
                if found := _LISTENING.search(line):
                    address.set_result(found[1].rstrip("/"))
                    break
    if not address.done():
        address.set_exception(_Exited())
        address.exception()  # seen, also where nobody waits any more


async def _wait_ready(url: str, process: asyncio.subprocess.Process, headers: HeaderPairs) -> None:
    async with connected(url, headers=headers) as peer:
        while True:
            if process.returncode is not None:
                raise _Exited
            with contextlib.suppress(ParityError):
                answer = await peer.ask(Request(method="GET", target="/readyz"), timeout=10.0)
                if answer.status == 200:
                    return
                if answer.status in (401, 403):
                    raise _Refused(answer.status)
            await asyncio.sleep(_POLL)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _failed(folder: Path, what: str, tail: collections.deque[str]) -> ParityError:
    said = "\n".join(f"  | {line}" for line in tail)
    return ParityError(f"{folder} {what}; its server said:\n{said}")
