r"""What user code prints, line by line to a pipe that the server reads; never to the channel.

Each pipe carries plain text lines. Before the first line that is written within a request there is a marker line
``\0<request id>\n``, so that the server can tell whose line it is. Output of C code, or of child processes, has no
marker of its own and counts for whoever's marker was last.

Where chats run beside each other (``share``), each thread and task has the request id of its own, lines are written
whole, and what a chat leaves without a line break is written at its end.
"""

from __future__ import annotations

import contextlib
import contextvars
import fcntl
import io
import os
import sys
import threading
from typing import Dict, Iterator, List, Optional, Tuple, cast

from .types import Buffer

_request_id: contextvars.ContextVar[int] = contextvars.ContextVar("backline_request_id", default=0)


class _Pipe(io.RawIOBase):
    """The raw end: writes through a private duplicate, so closing descriptor 1 or 2 does not lose what follows."""

    def __init__(self, descriptor: int, output: Output) -> None:
        super().__init__()
        # A high number keeps the copy out of the way of code that closes "all" descriptors from 3 up to a dozen.
        self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 200)
        self._number = descriptor
        self._output = output
        self._marked: Optional[int] = None

    @property
    def descriptor(self) -> int:
        return self._descriptor

    def reopen(self) -> None:
        os.dup2(self._number, self._descriptor, inheritable=False)
        self._marked = None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._number

    def write(self, data: Buffer) -> int:  # type: ignore[override]
        request_id = self._output.request_id
        if self._marked != request_id:
            self._marked = request_id
            os.write(self._descriptor, b"\0%d\n" % request_id)
        view = memoryview(data)
        size = view.nbytes
        while view:
            view = view[os.write(self._descriptor, view) :]
        return size


class _Stream(io.TextIOWrapper):
    """``sys.stdout`` as user code sees it; closing it only flushes, since the next request needs it again."""

    output: Output

    def close(self) -> None:
        self.flush()

    def write(self, text: str) -> int:
        if self.output.shared is None:
            return super().write(text)
        self.output.shared.write(self, text)
        return len(text)

    def write_line(self, text: str) -> None:
        super().write(text)


class _Shared:
    """Keeps the lines of several requests apart."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._lock = threading.RLock()  # a signal handler, or a destructor, may print while we write
        self._rests: Dict[Tuple[_Stream, int], str] = {}

    def write(self, stream: _Stream, text: str) -> None:
        request_id = _request_id.get()
        with self._lock:
            lines, line_break, rest = (self._rests.pop((stream, request_id), "") + text).rpartition("\n")
            if rest:
                self._rests[stream, request_id] = rest
            if line_break:
                self._emit(stream, request_id, lines + line_break)

    def end(self, request_id: int) -> None:
        """Write what the request has left without a line break."""
        with self._lock:
            for stream, other in list(self._rests):
                if other == request_id:
                    self._emit(stream, request_id, self._rests.pop((stream, other)) + "\n")

    def _emit(self, stream: _Stream, request_id: int, text: str) -> None:
        self._output.request_id = request_id
        with contextlib.suppress(OSError, ValueError):  # the server is gone, or user code detached the buffer
            stream.write_line(text)


class Output:
    """Owns ``sys.stdout`` and ``sys.stderr`` of the worker."""

    def __init__(self) -> None:
        self.request_id = 0
        self.shared: Optional[_Shared] = None
        self._pipes: List[_Pipe] = []
        self._stdout = self._open(1)
        self._stderr = self._open(2)
        sys.stdout, sys.stderr = self._stdout, self._stderr
        sys.__stdout__, sys.__stderr__ = self._stdout, self._stderr  # type: ignore[misc]

    def _open(self, descriptor: int) -> _Stream:
        pipe = _Pipe(descriptor, self)
        self._pipes.append(pipe)
        buffered = io.BufferedWriter(cast(io.RawIOBase, pipe), 64 << 10)
        # Line by line, so that the last words before a crash are not lost in a buffer.
        stream = _Stream(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True, newline="\n")
        stream.output = self
        return stream

    @property
    def descriptors(self) -> Tuple[int, ...]:
        """The descriptors that are the worker's own: standard output and error, and the copies that it writes to."""
        return (1, 2, *[pipe.descriptor for pipe in self._pipes])

    def reopen(self) -> None:
        """Write to what is now behind descriptors 1 and 2: this process was forked and has got pipes of its own."""
        for pipe in self._pipes:
            pipe.reopen()

    def share(self) -> None:
        """From now on several requests print at a time: each within ``within``, or between ``begin`` and ``end``."""
        self.shared = _Shared(self)

    @contextlib.contextmanager
    def within(self, request_id: int) -> Iterator[None]:
        """What this thread or task writes during the block belongs to this request; after ``share`` only."""
        assert self.shared is not None
        token = _request_id.set(request_id)
        try:
            yield
        finally:
            _request_id.reset(token)
            self.shared.end(request_id)

    def begin(self, request_id: int) -> None:
        """What is written from now on belongs to this request; 0 is nobody's."""
        if self.shared is not None:
            _request_id.set(request_id)
            return
        self.request_id = request_id
        # A hook may have replaced them and forgotten to put them back, for instance by an exception in between.
        if sys.stdout is not self._stdout:
            sys.stdout = self._stdout
        if sys.stderr is not self._stderr:
            sys.stderr = self._stderr

    def end(self) -> None:
        """Flush what the request wrote, unterminated lines included."""
        if self.shared is not None:
            self.shared.end(_request_id.get())
            return
        try:
            self._stdout.flush()
            self._stderr.flush()
        except (OSError, ValueError):
            pass  # the server is gone or user code detached the buffer; neither may cost the answer
