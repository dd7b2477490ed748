"""A record is told from what it quotes."""

from __future__ import annotations

import logging
import sys

from backline.observe.logs import TextFormatter


def formatted(message: str, *, fault: Exception | None = None) -> str:
    record = logging.LogRecord("backline.api", logging.ERROR, __file__, 1, "%s", (message,), None)
    if fault is not None:
        try:
            raise fault
        except type(fault):
            record.exc_info = sys.exc_info()
    return TextFormatter().format(record)


def test_only_a_record_begins_at_the_margin() -> None:
    first, *others = formatted(
        "bad\n12:00:00 error   forged\r12:00:00 error   forged too", fault=ValueError("x\n12:00:00 error   forged")
    ).split("\n")
    assert first.endswith("bad")
    assert len(others) > 3
    assert all(line.startswith("    ") for line in others)
    assert "\\x0d12:00:00" in others[0]


def test_control_characters_cannot_steer_a_terminal() -> None:
    assert formatted("\x1b[2J\x9b2J\x7f\t").endswith("\\x1b[2J\\x9b2J\\x7f\t")
