"""Logging of the server: one queue, one writer thread, so that a slow terminal or pipe never blocks the event loop."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import queue
import sys
from collections.abc import Iterator

_QUEUE_RECORDS = 10_000
_LEVELS = {"noset": logging.NOTSET, "warn": logging.WARNING}


class _DroppingHandler(logging.handlers.QueueHandler):
    """Drops records when the writer cannot keep up, rather than wait or grow."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(queue.Full):
            self.queue.put_nowait(record)


class TextFormatter(logging.Formatter):
    """One line a record: time, level, worker and request where there are any, message; further lines are indented."""

    def format(self, record: logging.LogRecord) -> str:
        worker = getattr(record, "worker", None)
        request_id = getattr(record, "request_id", None)
        where = "" if worker is None else f" [worker {worker}]"
        where += "" if request_id is None else f" [{request_id}]"
        time = self.formatTime(record, "%H:%M:%S")
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        # What models print, and what clients send, must not steer the terminal or forge lines.
        return f"{time} {record.levelname.lower():7}{where} {message.translate(_CONTROL)}"


_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))} | {10: "\n    "}


@contextlib.contextmanager
def logging_to_stderr(level: str) -> Iterator[None]:
    """Log ``backline.*`` and ``uvicorn.*`` to standard error at ``level`` while the context lasts."""
    records: queue.Queue[logging.LogRecord] = queue.Queue(_QUEUE_RECORDS)
    writer = logging.StreamHandler(sys.stderr)
    writer.setFormatter(TextFormatter())
    listener = logging.handlers.QueueListener(records, writer)
    handler = _DroppingHandler(records)
    number = _LEVELS.get(level)
    if number is None:
        number = logging.getLevelNamesMapping()[level.upper()]
    ours = logging.getLogger("backline")
    uvicorn = logging.getLogger("uvicorn")
    for root in (ours, uvicorn):
        root.addHandler(handler)
        root.propagate = False
    ours.setLevel(number or logging.DEBUG)
    # uvicorn's own life messages repeat ours; what it has to warn of is wanted.
    uvicorn.setLevel(max(number, logging.WARNING))
    listener.start()
    try:
        yield
    finally:
        for root in (ours, uvicorn):
            root.removeHandler(handler)
        listener.stop()
