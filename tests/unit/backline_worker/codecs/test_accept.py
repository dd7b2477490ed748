from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline_worker.codecs import SUPPORTED_OUTPUT, choose_output
from backline_worker.errors import NotAcceptable

STREAM = "application/vnd.apache.arrow.stream"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "application/json"),
        ("  ", "application/json"),
        ("*/*", "application/json"),
        ("*", "application/json"),
        ("text/csv", "text/csv"),
        ("TEXT/CSV", "text/csv"),
        ("text/csv; charset=utf-8; header=present", "text/csv"),
        ("text/*", "text/csv"),
        ("text/csv, */*", "text/csv"),  # named before matched by a wildcard
        ("*/*, text/csv", "text/csv"),
        ("text/csv, application/json", "text/csv"),  # the first one named
        ("application/json, text/csv", "application/json"),
        ("text/csv;q=0.5, application/json;q=0.4", "text/csv"),
        ("text/csv;q=0.5, application/json", "application/json"),
        ("application/json;q=0, */*", "text/csv"),
        ("application/*;q=0.1, text/*;q=0.2", "text/csv"),
        ("*/*;q=1, application/json;q=0.1, text/csv;q=0.2", STREAM),
        ("application/json;q=0, application/*", STREAM),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/json"),
        ("text/csv;q=0.001", "text/csv"),
        ('text/csv;x="a,b;q=0", application/json;q=0.5', "text/csv"),
        ("text/csv;Q=0.1, application/json;q = 0.2", "application/json"),
        ("application/x-apache-arrow-stream", "application/x-apache-arrow-stream"),  # the name the client knows
        ("application/x-parquet;q=0.9, text/csv;q=0.1", "application/x-parquet"),
        ("application/x-parquet;q=0, application/vnd.apache.*", None),
        (",, ,text/csv,", "text/csv"),
        ("nonsense, text/csv;q=0.1", "text/csv"),
        ("text/csv;q=nonsense", "text/csv"),
        ("image/png", None),
        ("application/json;q=0", None),
        ("*/*;q=0", None),
        ("*/csv", None),
        ("nonsense", None),
    ],
)
def test_the_best_liked_format_is_chosen(accept: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(NotAcceptable) as caught:
            choose_output(accept, SUPPORTED_OUTPUT)
        assert caught.value.details["offered"] == list(SUPPORTED_OUTPUT)
        assert "text/csv" in caught.value.message
    else:
        assert choose_output(accept, SUPPORTED_OUTPUT) == expected


@given(st.text(alphabet='*/;,=q.01 "\\abtexcsvjon', max_size=60))
def test_any_header_is_answered_or_refused(accept: str) -> None:
    with contextlib.suppress(NotAcceptable):
        assert choose_output(accept, SUPPORTED_OUTPUT)


def test_a_long_header_is_no_burden() -> None:
    choose_output("a/b;q=0.1," * 20_000 + "text/csv", SUPPORTED_OUTPUT)
    with pytest.raises(NotAcceptable):
        choose_output('"' * 60_000, SUPPORTED_OUTPUT)
