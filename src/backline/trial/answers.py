"""The answers of a model as rows of values, and by how much two of them differ."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import struct
from collections.abc import Sequence
from typing import Any

Cells = dict[str, Any]

RELATIVE = 1e-9
"""Numbers that differ by no more than this, relatively, are the same: a library's own arithmetic differs in the last
bits between batch sizes."""
ABSOLUTE = 1e-12
SINGLE_RELATIVE = 1e-5
"""The same for models that answer in single precision."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How two lists of rows differ. ``largest`` is the largest relative difference of numbers, also a tolerated one."""

    rows: tuple[int, ...]
    largest: float
    example: str

    @property
    def same(self) -> bool:
        """Whether there is none that counts."""
        return not self.rows


def rows_of(body: bytes, content_type: str) -> list[Cells]:
    """Return the predictions of an answer, one mapping of names to values for each row. Raises ``ValueError``."""
    if content_type.startswith("text/csv"):
        reader = csv.DictReader(io.StringIO(body.decode()))
        return [{name: _number(value) for name, value in row.items()} for row in reader]
    answer = json.loads(body)
    predictions = answer["predictions"]
    rows = [dict(row) if isinstance(row, dict) else {"prediction": row} for row in predictions]
    extra = answer.get("extraModelOutput")
    if extra is not None:
        for row, values in zip(rows, extra["data"], strict=True):
            row.update(zip(extra["columns"], values, strict=True))
    return rows


def _number(text: Any) -> Any:
    try:
        return float(text)
    except (TypeError, ValueError):
        return text


def compare(one: Sequence[Cells], other: Sequence[Cells], *, relative: float = RELATIVE) -> Difference:
    """Compare row by row, by names; ``rows`` of the result are the places of those that differ."""
    if len(one) != len(other):
        every = tuple(range(max(len(one), len(other))))
        return Difference(rows=every, largest=math.inf, example=f"{len(one)} rows against {len(other)}")
    different, largest, example = [], 0.0, ""
    for place, (left, right) in enumerate(zip(one, other, strict=True)):
        worst, where = 0.0, ""
        for name in {**left, **right}:
            distance = _distance(left.get(name), right.get(name))
            if distance > worst:
                worst, where = distance, name
        largest = max(largest, worst)
        if worst > relative:
            different.append(place)
            example = example or f"row {place + 1}, {where}: {left.get(where)!r} against {right.get(where)!r}"
    return Difference(rows=tuple(different), largest=largest, example=example)


def _distance(one: Any, other: Any) -> float:
    """Return the relative difference of two numbers; 0 for other values that are equal, and infinity."""
    if _is_number(one) and _is_number(other):
        if one == other or (math.isnan(one) and math.isnan(other)):
            return 0.0
        if not math.isfinite(one) or not math.isfinite(other):
            return math.inf
        difference = abs(one - other)
        return 0.0 if difference <= ABSOLUTE else difference / max(abs(one), abs(other))
    return 0.0 if one == other else math.inf


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def looks_single(rows: Sequence[Cells]) -> bool:
    """Whether every number that is none of few digits is one of single precision: a library's, not its digits."""
    numbers = [value for row in rows for value in row.values() if type(value) is float and math.isfinite(value)]
    try:
        return bool(numbers) and all(struct.unpack("f", struct.pack("f", value))[0] == value for value in numbers)
    except OverflowError:
        return False
