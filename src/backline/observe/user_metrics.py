"""What the model's own code counts, of all workers together.

Workers tell what has been added since they told last, so sums here go on when a worker dies. What they send is what
user code made up: whatever does not fit is left out and counted, and nothing of it can grow without end.
"""

from __future__ import annotations

import collections
import math
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MOST_FAMILIES = 200
MOST_SERIES = 500  # of one family
_MOST_LABELS = 10
_MOST_BOUNDS = 100
_MOST_CHARACTERS = 200  # of a label's value
_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,199}")
_RESERVED = ("backline_", "process_", "python_")
_RESERVED_LABELS = frozenset({"le", "quantile", "worker"})
_SUFFIXES = {
    "counter": ("", "_total"),
    "gauge": ("",),
    "histogram": ("", "_bucket", "_count", "_sum"),
    "summary": ("", "_count", "_sum"),
}

Labels = tuple[str, ...]


class _Unfit(Exception):
    """Something of a report cannot be taken; the reason is a label of the metric that counts these."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UserFamily:
    """One metric of the model's code.

    ``values`` holds what a counter or a gauge stands at; a gauge's labels end with the number of the worker. ``cells``
    holds the counts by bucket and the sum of a histogram; a summary has one bucket, which is all.
    """

    def __init__(self, kind: str, help_text: str, labels: Labels, bounds: tuple[float, ...]) -> None:
        self.kind = kind
        self.help = help_text
        self.labels = labels
        self.bounds = bounds
        self.values: dict[Labels, float] = {}
        self.cells: dict[Labels, tuple[list[float], list[float]]] = {}

    def is_full(self) -> bool:
        """Whether no further set of labels is taken."""
        return len(self.values) + len(self.cells) >= MOST_SERIES


class UserMetrics:
    """The families by name, in the order in which they came."""

    def __init__(self) -> None:
        self._families: dict[str, UserFamily] = {}
        self._sample_names: dict[str, str] = {}  # of all samples that there can be, with the family's name

    def families(self) -> Iterator[tuple[str, UserFamily]]:
        """Return each with its name."""
        yield from self._families.items()

    def take(self, worker: int, report: Mapping[str, Any], *, current: bool) -> Mapping[str, int]:
        """Add a report; return how much of it was left out, by the reason.

        Gauges of a worker that is not ``current`` are out of date.
        """
        dropped: collections.Counter[str] = collections.Counter()
        told = report.get("dropped")
        if isinstance(told, dict):
            for reason, times in told.items():
                if reason in ("names", "series") and isinstance(times, int) and times > 0:
                    dropped[reason] += times
        given = report.get("families")
        for record in given if isinstance(given, list) else ():
            try:
                self._add(worker, record, dropped, current=current)
            except _Unfit as unfit:
                dropped[unfit.reason] += 1
            except (TypeError, ValueError, AttributeError, IndexError, OverflowError):
                dropped["malformed"] += 1
        return dropped

    def forget_gauges(self, worker: int) -> None:
        """Leave out what a worker told that is no more."""
        number = str(worker)
        for family in self._families.values():
            if family.kind == "gauge":
                for labels in [labels for labels in family.values if labels[-1] == number]:
                    del family.values[labels]

    def _add(self, worker: int, record: Any, dropped: collections.Counter[str], *, current: bool) -> None:
        kind, name, help_text, labels, bounds, series = record
        family = self._family(kind, name, str(help_text), tuple(labels), tuple(float(bound) for bound in bounds))
        for values, *data in series:
            if len(values) != len(family.labels):
                raise _Unfit("malformed")
            key = tuple(str(value)[:_MOST_CHARACTERS] for value in values)
            if kind == "gauge":
                if not current:
                    continue
                key = (*key, str(worker))
            if key not in family.values and key not in family.cells and family.is_full():
                dropped["series"] += 1
            elif kind == "gauge":
                family.values[key] = float(data[0])
            elif kind == "counter":
                family.values[key] = family.values.get(key, 0.0) + _grown(data[0])
            else:
                _add_cell(family, key, *data)

    def _family(self, kind: str, name: str, help_text: str, labels: Labels, bounds: tuple[float, ...]) -> UserFamily:
        if kind == "counter":
            name = name.removesuffix("_total")
        known = self._families.get(name)
        if known is not None:
            if (known.kind, known.labels, known.bounds) != (kind, labels, bounds):
                raise _Unfit("conflict")
            return known
        if not _NAME.fullmatch(name) or kind not in _SUFFIXES:
            raise _Unfit("malformed")
        if name.startswith(_RESERVED):
            raise _Unfit("reserved")
        for label in labels:
            if not _NAME.fullmatch(label):
                raise _Unfit("malformed")
            if label in _RESERVED_LABELS or label.startswith("__"):
                raise _Unfit("reserved")
        if len(set(labels)) != len(labels) or len(labels) > _MOST_LABELS or len(bounds) > _MOST_BOUNDS:
            raise _Unfit("malformed")
        if list(bounds) != sorted(set(bounds)) or not all(map(math.isfinite, bounds)):
            raise _Unfit("malformed")
        samples = [name + suffix for suffix in _SUFFIXES[kind]]
        if any(sample in self._sample_names for sample in samples):
            raise _Unfit("conflict")
        if len(self._families) >= MOST_FAMILIES:
            raise _Unfit("names")
        self._sample_names.update(dict.fromkeys(samples, name))
        family = self._families[name] = UserFamily(kind, help_text, labels, bounds)
        return family


def _grown(value: Any) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise _Unfit("malformed")
    return number


def _add_cell(family: UserFamily, key: Labels, counts: Any, total: Any) -> None:
    grown = [_grown(count) for count in counts]
    if len(grown) != len(family.bounds) + 1:
        raise _Unfit("malformed")
    cell = family.cells.setdefault(key, ([0.0] * len(grown), [0.0]))
    for place, count in enumerate(grown):
        cell[0][place] += count
    cell[1][0] += float(total)
