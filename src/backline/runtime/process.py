"""A worker process on the event loop: its channel, what it prints, and its end.

The process was started by ``launch.py``, without the loop; so the loop's own way of running processes is not used.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backline.observe.worker_log import WorkerPipe
    from backline.runtime.launch import Launched


class WorkerProcess:
    """Owns process, pipes and channel of a worker that was handed over; used on the event loop only.

    ``exited`` is done, with the exit code, once the process is gone and has been waited for. ``close`` releases what is
    left, whatever has been reached.
    """

    def __init__(self, launched: Launched) -> None:
        self.pid = launched.popen.pid
        self.exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._launched = launched
        self._popen = launched.popen
        self._pidfd: int | None = None
        self._pipes: list[tuple[asyncio.BaseTransport, _OutputPipe]] = []
        self._watch_exit()

    @property
    def unsent(self) -> bytes:
        """The rest of the channel's first frame, to be written before anything else."""
        return self._launched.unsent

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; ``None`` while it runs."""
        return self.exited.result() if self.exited.done() else None

    async def connect(self, protocol: asyncio.Protocol, *, accept_timeout: float) -> None:
        """Make the channel a transport of ``protocol``.

        Where there are no Unix sockets the worker has to connect first: raises ``TimeoutError`` after
        ``accept_timeout`` seconds.
        """
        launched = self._launched
        loop = asyncio.get_running_loop()
        if launched.channel is None:
            launched.channel = await self._accept(accept_timeout)
        await loop.create_connection(lambda: protocol, sock=launched.channel)
        launched.channel = None  # the transport's from here on

    async def read_output(self, stdout: WorkerPipe, stderr: WorkerPipe) -> None:
        """Feed the readers with what the process prints, until ``end_output``."""
        loop = asyncio.get_running_loop()
        for pipe, reader in ((self._popen.stdout, _OutputPipe(stdout)), (self._popen.stderr, _OutputPipe(stderr))):
            transport, _ = await loop.connect_read_pipe(lambda reader=reader: reader, pipe)  # type: ignore[misc]
            self._pipes.append((transport, reader))

    async def end_output(self, grace: float) -> None:
        """Read what is left in the pipes, for ``grace`` seconds where somebody else holds them open; close them."""
        ends = [reader.ended for _, reader in self._pipes]
        if ends:
            await asyncio.wait(ends, timeout=grace)
            self._close_pipes()
            await asyncio.wait(ends, timeout=grace)  # the readers have their unfinished lines to give

    def close(self) -> None:
        """Release whatever is still open, without waiting."""
        self._close_pipes()
        self._launched.close()
        self._unwatch()

    def _close_pipes(self) -> None:
        for transport, _ in self._pipes:
            transport.close()

    async def _accept(self, accept_timeout: float) -> socket.socket:
        listener = self._launched.listener
        assert listener is not None
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(accept_timeout):
            while True:
                ours, _ = await loop.sock_accept(listener.socket)
                ours.setblocking(False)
                shown = b""
                wanted = len(listener.token)
                while len(shown) < wanted and (piece := await loop.sock_recv(ours, wanted - len(shown))):
                    shown += piece
                if secrets.compare_digest(shown, listener.token.encode()):
                    return ours
                ours.close()

    # --- the end of the process

    def _watch_exit(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except (AttributeError, OSError):
            # macOS, and Linux before 5.3: a thread waits.
            threading.Thread(target=self._wait_in_thread, args=(loop,), name=f"wait-{self.pid}", daemon=True).start()
        else:
            loop.add_reader(self._pidfd, self.look_for_exit)

    def _wait_in_thread(self, loop: asyncio.AbstractEventLoop) -> None:
        self._popen.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody wants to know
            loop.call_soon_threadsafe(self.look_for_exit)

    def look_for_exit(self) -> None:
        """Look whether the process is gone.

        The loop calls this when the pidfd says so. It is called at other times, too: under thousands of kills, with
        descriptors that are closed and given out again, uvloop was seen to miss one in a thousand.
        """
        if self.exited.done():
            return
        code = self._popen.poll()
        if code is None:
            return
        self._unwatch()
        self.exited.set_result(code)

    def _unwatch(self) -> None:
        if self._pidfd is not None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None


class _OutputPipe(asyncio.Protocol):
    def __init__(self, reader: WorkerPipe) -> None:
        self._reader = reader
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.close()
        if not self.ended.done():
            self.ended.set_result(None)
