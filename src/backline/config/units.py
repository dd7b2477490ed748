"""Byte sizes and durations as people write them, and back."""

from __future__ import annotations

import math
import re

from backline.config.problems import ValueProblem

_NUMBER_AND_UNIT = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*([A-Za-z]*)")

# "k" alone is 1024, as in `ulimit` and `docker --memory`; "kB" is 1000, as SI and Kubernetes have it.
_SIZE_UNITS = {
    "": 1,
    "b": 1,
    **{letter: 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}ib": 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("kmgt", start=1)},
    **{f"{letter}b": 1000**power for power, letter in enumerate("kmgt", start=1)},
}
_SIZE_MEND = "give a number of bytes such as 512, 64KiB, 1.5GiB or 50MB"

_DURATION_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0}
_DURATION_MEND = "give seconds such as 30 or 0.5, or a number with its unit: 500ms, 30s, 10m, 1h"


def parse_size(text: str) -> int:
    """Return a byte size: ``512``, ``64k`` and ``64KiB`` (65536), ``50MB`` (50 million), ``1.5GiB``.

    Raises ``ValueProblem``.
    """
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None:
        raise ValueProblem(f"{text!r} is no byte size", _SIZE_MEND)
    number, unit = match.groups()
    factor = _SIZE_UNITS.get(unit.lower())
    if factor is None:
        raise ValueProblem(f"{unit!r} is no unit of bytes", _SIZE_MEND)
    size = int(number) * factor if number.isdigit() else float(number) * factor
    if size != int(size):
        raise ValueProblem(f"{text!r} is not a whole number of bytes", _SIZE_MEND)
    return int(size)


def format_size(size: int) -> str:
    """Return a byte size in the largest binary unit that tells it exactly: ``1 GiB``, ``1536 KiB``, ``513 B``."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size and size % 1024**power == 0:
            return f"{size // 1024**power} {unit}"
    return f"{size} B"


def parse_duration(text: str) -> float:
    """Return seconds: ``30``, ``0.5``, ``500ms``, ``30s``, ``10m``, ``1h``. Raises ``ValueProblem``."""
    match = _NUMBER_AND_UNIT.fullmatch(text.strip())
    if match is None:
        raise ValueProblem(f"{text!r} is no duration", _DURATION_MEND)
    number, unit = match.groups()
    factor = _DURATION_UNITS.get(unit.lower())
    if factor is None:
        raise ValueProblem(f"{unit!r} is no unit of time", _DURATION_MEND)
    # Divided rather than multiplied: 299 ms is 0.299, not 0.29900000000000004.
    seconds = float(number) / 1000 if unit.lower() == "ms" else float(number) * factor
    if not math.isfinite(seconds):
        raise ValueProblem(f"{text!r} is no duration", _DURATION_MEND)
    return seconds


def format_duration(seconds: float) -> str:
    """Return ``10 s``, ``0.5 s``: always seconds, as the fields hold them."""
    return f"{seconds!r}".removesuffix(".0") + " s"
