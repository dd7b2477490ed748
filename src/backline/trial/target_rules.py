"""What each target type asks of predictions, checked on the answers themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from backline.trial.answers import Cells

_SUM_TOLERANCE = 1e-3


def broken_rules(rows: Sequence[Cells], description: dict[str, Any], expected: int) -> list[str]:
    """Return a sentence for each rule that the predictions break, with the first row that does."""
    kind = description["target_type"]
    labels = description.get("class_labels") or []
    problems = []
    if len(rows) != expected:
        problems.append(f"{len(rows)} predictions for {expected} rows")
    checks = {
        "regression": _number,
        "anomaly": _number,
        "binary": _probabilities,
        "multiclass": _probabilities,
        "textgeneration": _text,
        "geopoint": _point,
    }
    check = checks.get(kind)
    for place, row in enumerate(rows) if check is not None else ():
        assert check is not None
        problem = check(row, labels)
        if problem is not None:
            problems.append(f"row {place + 1}: {problem}")
            break
    return problems


def _number(row: Cells, labels: Sequence[str]) -> str | None:
    value = row.get("prediction")
    return None if _is_number(value) else f"the prediction is {value!r}, and should be a finite number"


def _probabilities(row: Cells, labels: Sequence[str]) -> str | None:
    missing = [label for label in labels if label not in row]
    if missing:
        return f"there is no probability for {', '.join(missing)}"
    values = [row[label] for label in labels]
    if not all(_is_number(value) and -_SUM_TOLERANCE <= value <= 1 + _SUM_TOLERANCE for value in values):
        return f"{values} are not probabilities, which are numbers from 0 to 1"
    total = math.fsum(values)
    return None if abs(total - 1) <= _SUM_TOLERANCE else f"the probabilities add up to {total:g}, and should to 1"


def _text(row: Cells, labels: Sequence[str]) -> str | None:
    value = row.get("prediction", next(iter(row.values()), None))
    return None if isinstance(value, str) else f"the prediction is {value!r}, and should be a text"


def _point(row: Cells, labels: Sequence[str]) -> str | None:
    numbers = [value for value in row.values() if _is_number(value)]
    if len(numbers) < 2:
        return f"{row} is no latitude and longitude"
    latitude, longitude = numbers[0], numbers[1]
    if not -90 <= latitude <= 90:
        return f"{latitude:g} is no latitude, which is from -90 to 90"
    return None if -180 <= longitude <= 180 else f"{longitude:g} is no longitude, which is from -180 to 180"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
