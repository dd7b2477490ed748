"""Lines of a worker: attributed to their request, bounded in rate and length."""

from __future__ import annotations

import logging

import pytest

from backline.observe.worker_log import WorkerLog


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str | None]]:
    return [(record.getMessage(), getattr(record, "request_id", None)) for record in caplog.records]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> WorkerLog:
    caplog.set_level(logging.DEBUG, logger="backline.worker")
    return WorkerLog(
        3, lines_per_second=5, ids_of={7: {"request_id": "seven", "trace_id": "t7"}, 8: {"request_id": "eight"}}.get
    )


def test_lines_carry_the_request_of_the_marker_before_them(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    log.reader().feed(b"loading\n\x007\none\n\x008\ntwo\n\x000\nidle\n")
    assert logged(caplog) == [("loading", None), ("one", "seven"), ("two", "eight"), ("idle", None)]


def test_a_line_or_a_marker_cut_in_two_is_put_together(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    reader = log.reader()
    for piece in (b"\x00", b"7\nfi", b"rst\nunfinis", b"hed"):
        reader.feed(piece)
    reader.close()
    assert logged(caplog) == [("first", "seven"), ("unfinished", "seven")]


def test_lines_over_the_rate_are_dropped_and_the_tail_still_has_the_last(
    log: WorkerLog, caplog: pytest.LogCaptureFixture
) -> None:
    log.reader().feed(b"".join(b"line %d\n" % number for number in range(1000)))
    assert [message for message, _ in logged(caplog)] == [f"line {number}" for number in range(5)]
    assert log.tail[-1] == "line 999"


def test_a_line_without_end_does_not_grow_without_bound(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    reader = log.reader()
    for _ in range(64):
        reader.feed(b"x" * 4096)
    assert all(len(message) <= 8192 for message, _ in logged(caplog))
    assert len(reader._rest) <= 8192


@pytest.mark.parametrize("data", [b"\0" * 100_000, b"\0" + b"1" * 5000 + b"\n", b"\0" + b"1" * 21 + b"\n", b"\0\n"])
def test_what_only_looks_like_a_marker_is_a_line_like_others(
    log: WorkerLog, caplog: pytest.LogCaptureFixture, data: bytes
) -> None:
    reader = log.reader()
    reader.feed(data)
    assert len(reader._rest) <= 8192
    reader.close()
    assert len(caplog.records) == 1
    assert caplog.records[0].getMessage().startswith("\0")


def test_bytes_that_are_no_text_are_shown_escaped(log: WorkerLog, caplog: pytest.LogCaptureFixture) -> None:
    log.reader().feed(b"\xff\xfe\n")
    assert logged(caplog) == [("\\xff\\xfe", None)]
