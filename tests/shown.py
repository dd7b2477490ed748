"""Holds what a page shows against what was printed, where some of it differs from one run to the next."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Dates and times, fractions, thousands: what differs from one machine or run to the next.
_VARIABLE = re.compile(
    r"\d{4}-\d\d-\d\d(?=T)|[+-]?\d[\d,]*\.\d[\d.]*(?:e-?\d+)?|\d{1,3}(?:,\d{3})+|\d\d:\d\d:\d\d(?:\.\d+)?"
)
_ANY_NUMBER = re.compile(r"[+-]?\d[\d,.:]*\d|[+-]?\d")
_SOME_NUMBER = r"[+-]?\d[\d,.:-]*(?:e-?\d+)?"


def is_alike(shown: str, printed: str, *, figures_vary: bool = False) -> bool:
    """Tell whether a text is what a page shows.

    White space may differ, and numbers with a fraction or thousands, and times of day, as they are those of the
    machine. ``...`` stands for anything. With ``figures_vary`` every number may differ.
    """
    first, *rest = _patterns(shown, figures_vary=figures_vary)
    printed = _plain(printed)
    begun = re.match(first, printed)
    if begun is None:
        return False
    if not rest:
        return begun.end() == len(printed)
    end = _end_of(rest[:-1], printed, begun.end())
    return end is not None and re.compile(rest[-1] + r"\Z").search(printed, end) is not None


def is_within(shown: str, printed: str, *, figures_vary: bool = False) -> bool:
    """Tell whether each line that a page shows is in a text, in that order, with other lines between them or not."""
    lines = [line for line in shown.splitlines() if line.strip()]
    patterns = [pattern for line in lines for pattern in _patterns(line, figures_vary=figures_vary)]
    return _end_of(patterns, _plain(printed), 0) is not None


def _end_of(patterns: list[str], text: str, start: int) -> int | None:
    """Return where the last of the patterns ends, each found at the first place after the one before it."""
    for pattern in patterns:
        found = re.compile(pattern).search(text, start)
        if found is None:
            return None
        start = found.end()
    return start


def _plain(text: str) -> str:
    return " ".join(text.split())


def _patterns(shown: str, *, figures_vary: bool) -> list[str]:
    """Return a pattern for each part of a text that stands between dots."""
    variable = _ANY_NUMBER if figures_vary else _VARIABLE
    patterns = []
    for part in _plain(shown).split("..."):
        pattern, end, text = "", 0, part.strip()
        for number in variable.finditer(text):
            pattern += re.escape(text[end : number.start()]) + _SOME_NUMBER
            end = number.end()
        patterns.append(pattern + re.escape(text[end:]))
    return patterns


def assert_part(text: str, file: Path) -> None:
    """Hold a block that quotes a file against it: the same lines in a row, however far they are set in."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    whole = [line.strip() for line in file.read_text().splitlines() if line.strip()]
    found = any(whole[at : at + len(lines)] == lines for at in range(len(whole)))
    assert found, f"these lines are not in {file}:\n{textwrap.indent(text, '  ')}"


def json_of(text: str) -> Any:
    """Read JSON, or JSON lines as a list. Raises ``JSONDecodeError``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return [json.loads(line) for line in text.splitlines()]


def assert_alike(printed: Any, shown: Any, *, figures_vary: bool = False) -> None:
    """Hold JSON against what a page shows: numbers to four places, and ``...`` in texts for what differs each time."""
    unlike = f"printed:\n{printed!r}\nshown:\n{shown!r}"
    if isinstance(shown, dict):
        assert isinstance(printed, Mapping) and list(printed) == list(shown), unlike
        for key in shown:
            assert_alike(printed[key], shown[key], figures_vary=figures_vary)
    elif isinstance(shown, list):
        assert isinstance(printed, list) and len(printed) == len(shown), unlike
        for one, other in zip(printed, shown, strict=True):
            assert_alike(one, other, figures_vary=figures_vary)
    elif isinstance(shown, str):
        alike = isinstance(printed, str) and is_alike(shown, printed, figures_vary=figures_vary)
        assert shown == "..." or alike, unlike
    elif isinstance(shown, float) or (figures_vary and isinstance(shown, int)):
        assert isinstance(printed, float | int), unlike
        assert figures_vary or math.isclose(printed, shown, abs_tol=1e-4), unlike
    else:
        assert printed == shown, unlike
