"""A record is told from what it quotes; the log holds nobody up and says what it leaves out."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from backline.config.settings import LogSettings
from backline.observe import logs
from backline.observe.formats import JsonFormat, TextFormat
from backline.observe.logs import announce, logging_to_stderr

api = logging.getLogger("backline.api")


def record(message: str, *, fault: Exception | None = None, **extra: Any) -> logging.LogRecord:
    made = logging.LogRecord("backline.api", logging.ERROR, __file__, 1, "%s", (message,), None)
    made.__dict__.update(extra)
    if fault is not None:
        try:
            raise fault
        except type(fault):
            made.exc_info = sys.exc_info()
    return made


def test_only_a_record_begins_at_the_margin() -> None:
    fault = ValueError("x\n12:00:00 error   forged")
    text = TextFormat().format(record("bad\n12:00:00 error   forged\r12:00:00 error   forged too", fault=fault))
    first, *others = text.split("\n")
    assert first.endswith("bad")
    assert len(others) > 3
    assert all(line.startswith("    ") for line in others)
    assert "\\x0d12:00:00" in others[0]


@pytest.mark.parametrize("colour", [False, True])
def test_control_characters_cannot_steer_a_terminal(colour: bool) -> None:
    assert TextFormat(colour=colour).format(record("\x1b[2J\x9b2J\x7f\t")).endswith("\\x1b[2J\\x9b2J\\x7f\t")


def test_json_has_one_line_a_record_with_what_is_known_of_it() -> None:
    made = record(
        "answered\nin two lines \udc80",
        fault=ValueError("odd"),
        request_id="order-7",
        trace_id="0af7651916cd43dd8448eb211c80319c",
        worker=2,
        fields={"status": 500},
    )
    made.created = 1_764_036_000.25
    text = JsonFormat(model="churn").format(made)
    assert "\n" not in text
    line = json.loads(text)
    assert line.pop("exception").endswith("ValueError: odd")
    assert line == {
        "time": "2025-11-25T02:00:00.250Z",
        "level": "error",
        "logger": "backline.api",
        "message": "answered\nin two lines \udc80",
        "model": "churn",
        "request_id": "order-7",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
        "worker": 2,
        "status": 500,
    }


def test_what_a_client_sends_does_not_make_a_line_without_end() -> None:
    line = json.loads(JsonFormat().format(record("a" * 20_000 + "end")))["message"]
    assert len(line) < 17_000
    assert "3619 characters left out" in line
    assert line.endswith("end")


@pytest.mark.parametrize("form", [TextFormat(), JsonFormat()])
def test_secrets_are_left_out_of_message_and_traceback(form: TextFormat | JsonFormat) -> None:
    text = form.format(record("Authorization: Bearer abcdef123456", trace="line\nValueError: api_key=abcdef123456"))
    assert "abcdef123456" not in text
    assert "ValueError: api_key=[redacted]" in text


class Pipe:
    """Standard error as a pipe, and its other end."""

    def __init__(self) -> None:
        read_end, write_end = os.pipe()
        self.reader = os.fdopen(read_end)
        self.stream = os.fdopen(write_end, "w")

    def text(self) -> str:
        """Return what was written; nothing more may come."""
        self.stream.close()
        return self.reader.read()

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text().splitlines()]


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    with made.reader, made.stream:
        yield made


@contextlib.contextmanager
def logging_to(pipe: Pipe, settings: LogSettings, *, for_programs: bool = True) -> Iterator[None]:
    # Here rather than in the fixture: pytest sets its own between the fixtures and the test.
    with contextlib.redirect_stderr(pipe.stream), logging_to_stderr(settings, model="churn", for_programs=for_programs):
        yield


def test_a_pipe_gets_json_for_programs_with_what_is_said_to_the_operator(pipe: Pipe) -> None:
    with logging_to(pipe, LogSettings(level="error")):
        announce("Listening")
        api.info("not asked for")
        api.error("failed", extra={"request_id": "order-7"})
    assert [(line["message"], line.get("request_id")) for line in pipe.lines()] == [
        ("Listening", None),
        ("failed", "order-7"),
    ]


@pytest.mark.parametrize(("format_", "for_programs"), [("auto", False), ("text", True)])
def test_text_is_there_for_people_and_for_who_asks(pipe: Pipe, format_: str, for_programs: bool) -> None:
    with logging_to(pipe, LogSettings(format=format_), for_programs=for_programs):
        announce("Listening on http://127.0.0.1:1")
        api.info("serving")
    first, second = pipe.text().splitlines()
    assert first == "Listening on http://127.0.0.1:1"
    assert second.endswith(" info    serving")
    assert "\x1b" not in second


def test_repeats_are_counted_and_told_at_the_end(pipe: Pipe) -> None:
    with logging_to(pipe, LogSettings()):
        for number in range(133):
            api.info("still loading", extra={"burst": 1, "request_id": str(number)})
    messages = [line["message"] for line in pipe.lines()]
    assert messages == ["still loading", "still loading … repeated 132 times in 0 s"]


def test_a_reader_who_does_not_read_holds_nobody_up_and_is_told_what_he_missed(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_QUEUE_RECORDS", 50)
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.extend(pipe.reader))
    with logging_to(pipe, LogSettings()):
        for number in range(3000):  # more than pipe and queue take; this would never return if it waited
            api.info("line %d %s", number, "x" * 1000)
        reader.start()
    pipe.stream.close()
    reader.join(10)
    messages = [json.loads(line)["message"] for line in received]
    told = [message for message in messages if "log lines were dropped" in message]
    dropped = sum(int(message.split()[0]) for message in told)
    assert dropped > 0
    assert len(messages) - len(told) + dropped == 3000


def test_a_reader_who_has_gone_ends_nothing(pipe: Pipe) -> None:
    pipe.reader.close()
    with logging_to(pipe, LogSettings()):
        for number in range(100):
            api.info("line %d", number)
