"""An error's record is small enough to be sent, whatever user code put into it."""

from __future__ import annotations

import json

import pytest

from backline_worker.contract.hooks import translate
from backline_worker.contract.shim import CustomHTTPError
from backline_worker.errors import HookFailed

MANY = 20_000_000


@pytest.mark.parametrize("text", ["x" * MANY, "\U0001f600" * (MANY // 10)], ids=["plain", "escaped"])
def test_the_message_and_traceback_of_a_record_are_bounded(text: str) -> None:
    record = HookFailed(text, traceback=text + "the end").to_record()
    assert len(json.dumps(record)) < 2 << 20
    assert record["traceback"].endswith("the end")


def test_headers_of_user_code_that_are_too_many_are_dropped() -> None:
    error = CustomHTTPError("no", status_code=429, headers={"Retry-After": "1", "X": "x" * MANY})
    record = translate(error, "score", "/nowhere").to_record()
    assert record["details"]["status"] == 429
    assert record["details"]["headers"] == {}
