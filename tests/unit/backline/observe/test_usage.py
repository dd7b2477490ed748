"""Token counts at the end of answers."""

from __future__ import annotations

import json

import pytest

from backline.observe.usage import find_usage

CHAT = {"prompt_tokens": 12, "total_tokens": 57, "completion_tokens": 45}

EVENTS = b"".join(b'data: {"usage": {"prompt_tokens": 1, "completion_tokens": %d}}\n\n' % number for number in range(4))


@pytest.mark.parametrize(
    ("tail", "tokens"),
    [
        (json.dumps({"choices": [], "usage": CHAT}).encode(), (12, 45)),
        (b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n', (1, 2)),
        (EVENTS, (1, 3)),  # the last one counts all
        (json.dumps({"usage": {"prompt_tokens": 8, "total_tokens": 8}}).encode(), (8, 0)),
        (json.dumps({"usage": {"input_tokens": 3, "output_tokens": 4}}).encode(), (3, 4)),
        (b'{"usage": null}', None),
        (b'data: {"choices": []}\n\ndata: [DONE]\n\n', None),
        (b"", None),
    ],
)
def test_the_last_usage_is_found(tail: bytes, tokens: tuple[int, int] | None) -> None:
    assert find_usage(tail) == tokens
