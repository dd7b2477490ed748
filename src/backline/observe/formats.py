"""How a log record is written: text for people, JSON for programs."""

from __future__ import annotations

import datetime as dt
import json
import logging
from typing import Any, Protocol

from backline.observe.redact import Redactor

# What models print, and what clients send, must not steer the terminal or forge lines.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))} | {10: "\n    "}

_LEVEL_COLOURS = {"debug": "2", "info": "32", "warning": "33", "error": "31", "critical": "1;31"}
_LONGEST_MESSAGE = 16_384  # characters; of these, begin and end are kept
_LONGEST_TRACE = 65_536
_IDS = ("request_id", "trace_id", "span_id", "worker")


class Format(Protocol):
    """Turns a record into the text of its line or lines, without the last line break.

    What a record may carry besides, given to a logger as ``extra``: ``request_id``, ``worker``, ``trace_id``,
    ``span_id``; ``trace``, a traceback as text; ``fields``, further values by name; ``plain``, for what the server says
    to the person who has started it.
    """

    def format(self, record: logging.LogRecord) -> str: ...


class TextFormat:
    """One line a record: time, level, worker and request where there are any, message; further lines are indented."""

    def __init__(self, redact: Redactor | None = None, *, colour: bool = False) -> None:
        self._redact = redact or Redactor()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """See ``Format``."""
        message = self._redact(_message(record))
        if getattr(record, "plain", False):
            return message
        worker = getattr(record, "worker", None)
        request_id = getattr(record, "request_id", None)
        where = "" if worker is None else f" [{worker}]" if isinstance(worker, str) else f" [worker {worker}]"
        where += "" if request_id is None else f" [{request_id}]"
        time = dt.datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = record.levelname.lower()
        if trace := _trace(record):
            message += "\n" + self._redact(trace)
        message = message.translate(_CONTROL)
        if not self._colour:
            return f"{time} {level:7}{where} {message}"
        coloured = f"\x1b[{_LEVEL_COLOURS.get(level, '0')}m{level:7}\x1b[0m"
        return f"\x1b[2m{time}\x1b[0m {coloured}\x1b[2m{where}\x1b[0m {message}"


class JsonFormat:
    """One JSON object a record, on one line; ``model`` names what this server serves."""

    def __init__(self, redact: Redactor | None = None, *, model: str | None = None) -> None:
        self._redact = redact or Redactor()
        self._model = model

    def format(self, record: logging.LogRecord) -> str:
        """See ``Format``."""
        time = dt.datetime.fromtimestamp(record.created, dt.UTC)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),  # RFC 3339
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self._redact(_message(record)),
        }
        if self._model is not None:
            line["model"] = self._model
        for name in _IDS:
            value = getattr(record, name, None)
            if value is not None:
                line[name] = value
        line.update(getattr(record, "fields", None) or {})
        if trace := _trace(record):
            line["exception"] = self._redact(trace)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"), default=str)


def _message(record: logging.LogRecord) -> str:
    return _cut(record.getMessage(), _LONGEST_MESSAGE)


def _trace(record: logging.LogRecord) -> str | None:
    if record.exc_info and not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    trace: str | None = record.exc_text or getattr(record, "trace", None)
    return _cut(trace.rstrip(), _LONGEST_TRACE) if trace else None


def _cut(text: str, longest: int) -> str:
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[:half]} … {len(text) - 2 * half} characters left out … {text[-half:]}"
