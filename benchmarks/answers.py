"""Holds a contender's answer, whatever its shape, against what the library gives."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from benchmarks.errors import ServerFailed

# With a fraction or an exponent; not in a word, nor in an id such as 6536e062-f636-49e7.
_NUMBER = re.compile(rb"(?<![\w.-])-?\d+(?:\.\d+(?:[eE][+-]?\d+)?|[eE][+-]?\d+)(?![\w.-])")
_TOLERANCE = 1e-6  # peers write as many digits as they like, and batches differ in the last bits


def check_answer(body: bytes, expected: Sequence[float]) -> None:
    """Raise ``ServerFailed`` unless the answer has P(class 1) of every row, in order.

    Every peer answers in a shape of its own: P(class 1) alone, both classes, with names or without. So the numbers
    with a fraction are taken in the order in which they stand, and either all of them have to be right or every
    second one.
    """
    numbers = [float(found) for found in _NUMBER.findall(body)]
    rows = len(expected)
    if len(numbers) == rows:
        candidates = [numbers]
    elif len(numbers) == 2 * rows:
        candidates = [numbers[0::2], numbers[1::2]]
    else:
        raise ServerFailed(f"{len(numbers)} numbers for {rows} rows: {_shown(body)}")
    for candidate in candidates:
        if all(math.isclose(a, b, abs_tol=_TOLERANCE) for a, b in zip(candidate, expected, strict=True)):
            return
    raise ServerFailed(f"not what the library says, which begins {expected[:3]}: {_shown(body)}")


def _shown(body: bytes) -> str:
    return repr(body[:200])
