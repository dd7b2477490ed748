r"""What user code prints, line by line to a pipe that the server reads; never to the channel.

Each pipe carries plain text lines. Before the first line that is written within a request there is a marker line
``\0<request id>\n``, so that the server can tell whose line it is. Output of C code, or of child processes, has no
marker of its own and counts for whoever's marker was last.
"""

from __future__ import annotations

import fcntl
import io
import os
import sys
from typing import Optional, cast

from .types import Buffer


class _Pipe(io.RawIOBase):
    """The raw end: writes through a private duplicate, so closing descriptor 1 or 2 does not lose what follows."""

    def __init__(self, descriptor: int, output: Output) -> None:
        super().__init__()
        # A high number keeps the copy out of the way of code that closes "all" descriptors from 3 up to a dozen.
        self._descriptor = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 200)
        self._number = descriptor
        self._output = output
        self._marked: Optional[int] = None

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

    def close(self) -> None:
        self.flush()


class Output:
    """Owns ``sys.stdout`` and ``sys.stderr`` of the worker."""

    def __init__(self) -> None:
        self.request_id = 0
        self._stdout = self._open(1)
        self._stderr = self._open(2)
        sys.stdout, sys.stderr = self._stdout, self._stderr
        sys.__stdout__, sys.__stderr__ = self._stdout, self._stderr  # type: ignore[misc]

    def _open(self, descriptor: int) -> _Stream:
        buffered = io.BufferedWriter(cast(io.RawIOBase, _Pipe(descriptor, self)), 64 << 10)
        # Line by line, so that the last words before a crash are not lost in a buffer.
        return _Stream(buffered, encoding="utf-8", errors="backslashreplace", line_buffering=True, newline="\n")

    def begin(self, request_id: int) -> None:
        """What is written from now on belongs to this request; 0 is nobody's."""
        self.request_id = request_id
        # A hook may have replaced them and forgotten to put them back, for instance by an exception in between.
        if sys.stdout is not self._stdout:
            sys.stdout = self._stdout
        if sys.stderr is not self._stderr:
            sys.stderr = self._stderr

    def end(self) -> None:
        """Flush what the request wrote, unterminated lines included."""
        try:
            self._stdout.flush()
            self._stderr.flush()
        except (OSError, ValueError):
            pass  # the server is gone or user code detached the buffer; neither may cost the answer
