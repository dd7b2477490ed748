"""Turns what a worker prints into log lines: whose line it is, and no more of them than the log can bear."""

from __future__ import annotations

import collections
import logging
import re
import time
from collections.abc import Callable, Mapping

logger = logging.getLogger("backline.worker")

_MAX_LINE_BYTES = 8192
_TAIL_LINES = 40
_MARKER = re.compile(rb"\0(\d{1,20})")


class WorkerLog:
    """The output of one worker, or of what has a name instead of a number, both pipes together.

    ``ids_of`` gives, for an id of the channel, ``request_id``, and where it is traced ``trace_id`` and ``span_id``.
    Lines over ``lines_per_second`` are dropped and counted: a model that prints a million lines must not cost the other
    requests their latency. The last lines are kept in ``tail``, for the message of a worker that died.
    """

    def __init__(
        self, worker: int | str, *, lines_per_second: int, ids_of: Callable[[int], Mapping[str, str] | None]
    ) -> None:
        self._worker = worker
        self._ids_of = ids_of
        self._rate = lines_per_second
        self._left = lines_per_second  # of the present second
        self._second_began = time.monotonic()
        self._dropped = 0
        self.tail: collections.deque[str] = collections.deque(maxlen=_TAIL_LINES)

    def reader(self) -> WorkerPipe:
        """Return a reader for one of the two pipes."""
        return WorkerPipe(self)

    def lines(self, lines: list[bytes], channel_id: int) -> None:
        """Log these lines, or count them where the rate is used up."""
        self._begin_second()
        allowed = lines[: self._left]
        self._left -= len(allowed)
        self._dropped += len(lines) - len(allowed)
        for raw in lines[-_TAIL_LINES:]:
            self.tail.append(raw[:_MAX_LINE_BYTES].decode("utf-8", "backslashreplace"))
        if not allowed:
            return
        extra = {"worker": self._worker, **(self._ids_of(channel_id) or {})}
        for raw in allowed:
            text = raw[:_MAX_LINE_BYTES].decode("utf-8", "backslashreplace")
            logger.info("%s", text, extra=extra)

    def close(self) -> None:
        """Say what was dropped last."""
        self._report_dropped()

    def _begin_second(self) -> None:
        now = time.monotonic()
        if now - self._second_began >= 1:
            self._second_began = now
            self._left = self._rate
            self._report_dropped()

    def _report_dropped(self) -> None:
        if self._dropped:
            extra = {"worker": self._worker, "request_id": None}
            logger.warning(
                "%d lines of output dropped, over %d a second (log.worker_lines_per_second)",
                self._dropped,
                self._rate,
                extra=extra,
            )
            self._dropped = 0


class WorkerPipe:
    """Splits one pipe's bytes into lines and follows its markers (see ``backline_worker.output``)."""

    def __init__(self, log: WorkerLog) -> None:
        self._log = log
        self._rest = b""
        self._channel_id = 0

    def feed(self, data: bytes) -> None:
        """Take a piece of output."""
        piece = self._rest + data
        lines = piece.split(b"\n")
        self._rest = lines.pop()
        if len(self._rest) > _MAX_LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        if b"\0" not in piece:
            self._emit(lines)
            return
        run: list[bytes] = []
        for line in lines:
            if marker := _MARKER.fullmatch(line):
                self._emit(run)
                run = []
                self._channel_id = int(marker[1])
            else:
                run.append(line)
        self._emit(run)

    @property
    def unfinished(self) -> bytes:
        """What has come of a line that is not at its end yet, such as a progress bar."""
        return self._rest

    def close(self) -> None:
        """Log an unfinished last line."""
        if self._rest:
            self._emit([self._rest])
            self._rest = b""

    def _emit(self, lines: list[bytes]) -> None:
        if lines:
            self._log.lines(lines, self._channel_id)
