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
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from backline.observe.worker_log import WorkerPipe
    from backline.runtime.launch import Launched

_READ_BYTES = 64 << 10


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
        self._pipes: list[_OutputPipe] = []
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
        sock, launched.channel = launched.channel, None  # the transport's from here on
        try:
            await loop.create_connection(lambda: protocol, sock=sock)
        finally:
            if type(loop).__module__.startswith("uvloop"):
                # libuv closes the descriptor. Where it has done so at once, because the worker died at once, uvloop
                # forgets to tell the socket, which would close it once more: by then it may be somebody else's.
                sock.detach()

    async def read_output(self, stdout: WorkerPipe, stderr: WorkerPipe) -> None:
        """Feed the readers with what the process prints, until ``end_output``."""
        for pipe, reader in ((self._popen.stdout, stdout), (self._popen.stderr, stderr)):
            assert pipe is not None
            self._pipes.append(_OutputPipe(pipe, reader))

    async def end_output(self, grace: float) -> None:
        """Read what is left in the pipes, for ``grace`` seconds where somebody else holds them open; close them."""
        ends = [pipe.ended for pipe in self._pipes]
        if ends:
            await asyncio.wait(ends, timeout=grace)
            self._close_pipes()

    def close(self) -> None:
        """Release whatever is still open, without waiting."""
        self._close_pipes()
        self._launched.close()
        self._unwatch()

    def _close_pipes(self) -> None:
        for pipe in self._pipes:
            pipe.close()

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

        The loop calls this when the pidfd says so. It is called at other times, too: whoever is not told would wait for
        ever, and the server would have one worker less.
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


class _OutputPipe:
    """Feeds a reader from a pipe, until its end or ``close``; ``ended`` is done then, and the pipe closed.

    Not a transport of the loop: uvloop's closes a pipe that has ended at once without telling its file object, which
    would close the descriptor once more when it may be somebody else's.
    """

    def __init__(self, pipe: IO[bytes], reader: WorkerPipe) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipe = pipe
        self._reader = reader
        self.ended: asyncio.Future[None] = self._loop.create_future()
        os.set_blocking(pipe.fileno(), False)
        self._loop.add_reader(pipe.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = os.read(self._pipe.fileno(), _READ_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if data:
            self._reader.feed(data)
        else:
            self.close()

    def close(self) -> None:
        if not self.ended.done():
            self._loop.remove_reader(self._pipe.fileno())
            self._pipe.close()
            self._reader.close()
            self.ended.set_result(None)
