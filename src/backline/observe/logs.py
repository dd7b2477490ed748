"""Logging of the server: one queue, one writer thread, so that a slow terminal or pipe never blocks the event loop.

::

    any thread ──▶ _Intake: counts repeats, makes text of arguments ──▶ queue ──▶ _Writer: formats, redacts, writes

What the reader of the log is too slow for is dropped and counted, and the count is written as soon as it reads again.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import logging.handlers
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, TextIO

from backline.config.outside import secrets_in, wants_colour
from backline.observe.formats import Format, JsonFormat, TextFormat
from backline.observe.redact import Redactor
from backline.observe.repeats import Repeats

if TYPE_CHECKING:
    from backline.config.settings import LogSettings

_QUEUE_RECORDS = 10_000
_BURST = 10  # of one message in ten seconds
_TICK = 1.0  # seconds between two looks at what was held back
_STOP_TIMEOUT = 2.0  # seconds for the last lines, where nobody reads them
_LEVELS = {"noset": logging.NOTSET, "warn": logging.WARNING}
_OTHERS = ("uvicorn", "opentelemetry")  # libraries that speak while the server runs

_server = logging.getLogger("backline.server")

_Records = queue.Queue[logging.LogRecord | None]

CurrentTrace = Callable[[], Mapping[str, str] | None]
current_trace: CurrentTrace | None = None
"""Returns ``trace_id`` and ``span_id`` of what runs now; set while requests are traced."""


def announce(text: str) -> None:
    """Tell the person who has started the server: as it stands where the log is text, whatever its level."""
    _server.info("%s", text, extra={"plain": True})


class _Intake(logging.handlers.QueueHandler):
    """Takes records in any thread. Drops them when the writer cannot keep up, rather than wait or grow."""

    def __init__(self, records: _Records) -> None:
        super().__init__(records)
        self.records = records
        self.dropped = 0
        self._repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        """See ``logging.Handler``, which holds our lock meanwhile."""
        burst = getattr(record, "burst", _BURST if record.levelno >= logging.WARNING else None)
        if burst is not None and not self._repeats.admit(
            record.name, record.levelno, record.getMessage(), burst=burst, now=time.monotonic()
        ):
            return
        super().emit(record)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """Make text of what may change or disappear before it is written."""
        prepared = copy.copy(record)
        prepared.msg, prepared.args = record.getMessage(), None
        if record.exc_info:
            prepared.exc_text = logging.Formatter().formatException(record.exc_info)
            prepared.exc_info = None
        if current_trace is not None and not hasattr(prepared, "trace_id") and (ids := current_trace()):
            prepared.__dict__.update(ids)
        return prepared

    def enqueue(self, record: logging.LogRecord) -> None:
        """See ``QueueHandler``."""
        try:
            self.records.put_nowait(record)
        except queue.Full:
            self.dropped += 1

    def summaries(self, now: float, *, all_of_them: bool = False) -> list[logging.LogRecord]:
        """Return a record for each message that was held back, and for what was dropped."""
        assert self.lock is not None
        with self.lock:
            ended = list(self._repeats.take_ended(now, all_of_them=all_of_them))
            dropped, self.dropped = self.dropped, 0
        records = []
        for repeated in ended:
            text = repeated.text.partition("\n")[0]
            message = f"{text} … repeated {repeated.repeats} times in {repeated.seconds:.0f} s"
            records.append(_record(repeated.logger, repeated.level, message))
        if dropped:
            message = f"{dropped} log lines were dropped: whoever reads the log is too slow"
            records.append(_record(_server.name, logging.WARNING, message))
        return records


class _Writer:
    """The thread that writes. It alone may wait for whoever reads the log."""

    def __init__(self, intake: _Intake, form: Format, write: Callable[[bytes], None]) -> None:
        self._intake = intake
        self._format = form
        self._write = write
        self._thread = threading.Thread(target=self._run, name="log writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what is there and end; a reader who does not read is not waited for."""
        with contextlib.suppress(queue.Full):
            self._intake.records.put(None, timeout=_STOP_TIMEOUT)
        self._thread.join(_STOP_TIMEOUT)

    def _run(self) -> None:
        look_at = time.monotonic() + _TICK
        while True:
            try:
                record = self._intake.records.get(timeout=_TICK)
            except queue.Empty:
                pass
            else:
                if record is None:
                    self._write_all(self._intake.summaries(time.monotonic(), all_of_them=True))
                    return
                self._write_all([record])
            now = time.monotonic()
            if now >= look_at:
                look_at = now + _TICK
                self._write_all(self._intake.summaries(now))

    def _write_all(self, records: list[logging.LogRecord]) -> None:
        for record in records:
            try:
                line = self._format.format(record)
            except Exception as exc:  # noqa: BLE001  (a record that cannot be written must not end the log)
                line = f"a log record of {record.name} cannot be written: {type(exc).__name__}: {exc}"
            self._write(line.encode("utf-8", "backslashreplace") + b"\n")


@contextlib.contextmanager
def logging_to_stderr(
    settings: LogSettings,
    *,
    model: str | None = None,
    for_programs: bool = False,
    secret_variables: Iterable[str] = (),
) -> Iterator[None]:
    """Log ``backline.*`` and the libraries around it to standard error while the context lasts.

    ``for_programs``: where standard error is no terminal, it is a program that reads it, unless the settings say else.
    ``secret_variables`` are environment variables that hold secrets, though their names may not say so.
    """
    redact = Redactor(secrets_in(also=secret_variables))
    stream = sys.stderr
    on_terminal = stream.isatty()
    form: Format
    if settings.format == "json" or (settings.format == "auto" and for_programs and not on_terminal):
        form = JsonFormat(redact, model=model)
    else:
        form = TextFormat(redact, colour=wants_colour(on_terminal=on_terminal))
    intake = _Intake(queue.Queue(_QUEUE_RECORDS))
    number = _LEVELS.get(settings.level)
    if number is None:
        number = logging.getLevelNamesMapping()[settings.level.upper()]
    loggers = [logging.getLogger(name) for name in ("backline", *_OTHERS)]
    for logger in loggers:
        logger.addHandler(intake)
        logger.propagate = False
        # uvicorn's own life messages repeat ours; what it has to warn of is wanted.
        logger.setLevel(max(number, logging.WARNING))
    loggers[0].setLevel(number or logging.DEBUG)
    _server.setLevel(logging.INFO)
    writer = _Writer(intake, form, _writes_to(stream))
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(intake)
        writer.stop()


def _writes_to(stream: TextIO) -> Callable[[bytes], None]:
    """Return a function that writes to the stream's descriptor, or to the stream where it has none.

    Past the stream's buffer: a thread that waits in there when the interpreter ends would take it down with an error.
    """
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):

        def write_text(data: bytes) -> None:
            stream.write(data.decode("utf-8", "backslashreplace"))

        return write_text

    def write(data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(descriptor, view) :]
            except BlockingIOError:  # somebody else has made the terminal non-blocking
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll(_TICK * 1000)
            except OSError:
                return  # nobody reads: the server goes on all the same

    return write


def _record(logger: str, level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord(logger, level, "", 0, message, None, None)
