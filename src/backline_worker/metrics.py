"""Metrics of the model's own code, for ``/metrics`` of the server: ``from backline_worker import metrics``.

::

    CHECKS = metrics.Counter("fraud_checks", "Checks by outcome.", labels=["outcome"])
    CHECKS.inc(outcome="passed")

What is counted goes to the server with the answer of the request, in one write, so a request that was answered is
counted once, whatever becomes of the worker. The server adds counters and histograms up over all workers, also those
that are gone; gauges are told of each worker by itself, with a label ``worker``.

Any thread may call these. Processes that the model starts count for nobody.
"""

from __future__ import annotations

import re
import threading
from bisect import bisect_left
from typing import Any, Dict, List, Optional, Sequence, Tuple

__all__ = ["Counter", "Gauge", "Histogram"]

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of a histogram that is given none: for seconds."""
MOST_FAMILIES = 100
MOST_SERIES = 200  # of one family: sets of label values
_MOST_CHARACTERS = 200  # of a label's value

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_RESERVED = ("backline_", "process_", "python_")
_RESERVED_LABELS = ("le", "quantile", "worker")

Labels = Tuple[str, ...]

_lock = threading.Lock()
_families: Dict[str, _Family] = {}
_changed: Dict[str, _Family] = {}
_dropped: Dict[str, int] = {}


class _Family:
    """One metric: its name, the names of its labels, and what has changed since the server was told last.

    Two of one name share their state, as a module may be imported again.
    """

    kind = ""

    def __init__(self, name: str, help: str = "", labels: Sequence[str] = (), bounds: Sequence[float] = ()) -> None:  # noqa: A002
        if isinstance(labels, str):
            raise TypeError("labels of metric {}: expected a list of names, not the text {!r}".format(name, labels))
        names: Sequence[Any] = (name, *labels)
        for each in names:
            if not isinstance(each, str) or not _NAME.fullmatch(each):
                raise ValueError("metric {}: {!r} is no name; use letters, digits and _".format(name, each))
        if name.startswith(_RESERVED):
            raise ValueError("metric {}: names that begin with {} are the server's".format(name, ", ".join(_RESERVED)))
        for label in labels:
            if label in _RESERVED_LABELS or label.startswith("__"):
                raise ValueError("metric {}: a label cannot be called {}".format(name, label))
        self.name, self.help, self.labels, self.bounds = name, str(help), tuple(labels), tuple(bounds)
        self.series: Dict[Labels, Any] = {}
        self.seen: Dict[Labels, None] = {}
        self._counts = True
        with _lock:
            known = _families.get(name)
            if known is None:
                self._counts = len(_families) < MOST_FAMILIES
                if self._counts:
                    _families[name] = self
                else:
                    _drop("names")
            elif (known.kind, known.labels, known.bounds) == (self.kind, self.labels, self.bounds):
                self.series, self.seen = known.series, known.seen
            else:
                raise ValueError(
                    "metric {}: there is a {} of this name with the labels {} already".format(
                        name, known.kind, list(known.labels)
                    )
                )

    def _key(self, given: Dict[str, Any]) -> Optional[Labels]:
        """Return the series for these labels, or ``None`` where there are too many; under the lock."""
        if given.keys() != set(self.labels):
            raise ValueError("metric {}: its labels are {}, not {}".format(self.name, list(self.labels), sorted(given)))
        key = tuple([str(given[label])[:_MOST_CHARACTERS] for label in self.labels])
        if key not in self.seen:
            if len(self.seen) >= MOST_SERIES or not self._counts:
                _drop("series")
                return None
            self.seen[key] = None
        _changed[self.name] = self
        return key

    def take(self) -> List[Any]:
        """Return what has changed and forget it; under the lock."""
        raise NotImplementedError


class Counter(_Family):
    """Something that only grows. The server shows it as ``NAME_total``."""

    kind = "counter"

    def __init__(self, name: str, help: str = "", labels: Sequence[str] = ()) -> None:  # noqa: A002
        super().__init__(name[: -len("_total")] if name.endswith("_total") else name, help, labels)

    def inc(self, amount: float = 1, **labels: Any) -> None:
        """Add ``amount``, which is not negative."""
        if not amount >= 0:
            raise ValueError(
                "metric {}: a counter only grows; inc({!r}) would make it smaller".format(self.name, amount)
            )
        with _lock:
            key = self._key(labels)
            if key is not None:
                self.series[key] = self.series.get(key, 0) + float(amount)

    def take(self) -> List[Any]:
        taken = [[list(key), value] for key, value in self.series.items()]
        self.series.clear()
        return taken


class Gauge(_Family):
    """Something that goes up and down; of each worker by itself."""

    kind = "gauge"

    def set(self, value: float, **labels: Any) -> None:
        """Set it to ``value``."""
        with _lock:
            key = self._key(labels)
            if key is not None:
                self.series[key] = float(value)

    def inc(self, amount: float = 1, **labels: Any) -> None:
        """Add ``amount``, from 0 on."""
        with _lock:
            key = self._key(labels)
            if key is not None:
                self.series[key] = self.series.get(key, 0.0) + float(amount)

    def dec(self, amount: float = 1, **labels: Any) -> None:
        """Take ``amount`` away."""
        self.inc(-amount, **labels)

    def take(self) -> List[Any]:
        return [[list(key), value] for key, value in self.series.items()]


class Histogram(_Family):
    """How often something was how large: counts by upper bound, with the sum of all."""

    kind = "histogram"

    def __init__(
        self,
        name: str,
        help: str = "",  # noqa: A002
        labels: Sequence[str] = (),
        buckets: Sequence[float] = BUCKETS,
    ) -> None:
        """``buckets`` are the upper bounds, growing, without infinity."""
        bounds = tuple([float(bound) for bound in buckets])
        if not bounds or list(bounds) != sorted(set(bounds)) or not abs(bounds[-1]) < float("inf"):
            raise ValueError("metric {}: buckets are numbers that grow, without infinity, not {}".format(name, buckets))
        super().__init__(name, help, labels, bounds=bounds)

    def observe(self, value: float, **labels: Any) -> None:
        """Count a value."""
        number = float(value)
        with _lock:
            key = self._key(labels)
            if key is not None:
                counts, total = self.series.setdefault(key, ([0] * (len(self.bounds) + 1), [0.0]))
                counts[bisect_left(self.bounds, number)] += 1
                total[0] += number

    def take(self) -> List[Any]:
        taken = [[list(key), counts, total[0]] for key, (counts, total) in self.series.items()]
        self.series.clear()
        return taken


def _drop(reason: str) -> None:
    _dropped[reason] = _dropped.get(reason, 0) + 1


def take_report() -> Optional[Dict[str, Any]]:
    """Return what has changed since the last report, as JSON values, or ``None``; for the worker's own use.

    ``families`` holds for each its kind, name, help, names of labels, bounds and series: the labels' values, then what
    a counter has grown by, what a gauge stands at, or a histogram's counts and sum.
    """
    if not _changed and not _dropped:
        return None
    with _lock:
        changed, dropped = list(_changed.values()), dict(_dropped)
        _changed.clear()
        _dropped.clear()
        families = [
            [family.kind, family.name, family.help, list(family.labels), list(family.bounds), family.take()]
            for family in changed
        ]
    return {"families": families, "dropped": dropped}


def report_gauges_again() -> None:
    """Let the next report tell where every gauge stands; for a worker that was forked from one that has told."""
    with _lock:
        _changed.update({name: family for name, family in _families.items() if family.kind == Gauge.kind})
