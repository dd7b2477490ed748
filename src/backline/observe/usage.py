"""Token counts, read from the end of an OpenAI-style answer without parsing the rest of it."""

from __future__ import annotations

import re

TAIL_BYTES = 4096
"""How much of an answer's end is looked at: ``usage`` is the last object of an answer or of a stream's last event."""

_PROMPT = re.compile(rb'"(?:prompt|input)_tokens"\s*:\s*(\d{1,9})')
_COMPLETION = re.compile(rb'"(?:completion|output)_tokens"\s*:\s*(\d{1,9})')


def find_usage(tail: bytes) -> tuple[int, int] | None:
    """Return the tokens of the input and of the output that the last ``usage`` object tells, or ``None``.

    Embeddings have no output tokens: 0.
    """
    start = tail.rfind(b'"usage"')
    if start < 0:
        return None
    prompt = _PROMPT.search(tail, start)
    completion = _COMPLETION.search(tail, start)
    if prompt is None and completion is None:
        return None
    return int(prompt[1]) if prompt else 0, int(completion[1]) if completion else 0
