"""What the model's own code counts with prometheus_client, where it uses it: its default registry, as reports.

The library is the model's, of any version: nothing but ``REGISTRY.collect()`` and the samples that it gives is used.
A report holds what has changed since the last one, in the form of ``metrics.take_report``. Collecting takes some tenths
of a millisecond, so answers do it once a second at most; what was counted in the last second before a worker is killed
may be lost, which ``metrics`` does not do.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Dict, List, Optional, Set, Tuple

INTERVAL = 1.0  # seconds
_OTHERS = ("process_", "python_")  # the library's own, about this process

_Key = Tuple[str, Tuple[Tuple[str, str], ...]]


class PrometheusRegistry:
    """Reads the default registry. One thread at a time."""

    def __init__(self) -> None:
        self._last: Dict[_Key, float] = {}
        self._gauges: Set[_Key] = set()
        self._next = 0.0

    def report_gauges_again(self) -> None:
        """Let the next report tell where every gauge stands; for a worker that was forked from one that has told."""
        for key in self._gauges:
            self._last.pop(key, None)

    def take_report(self, *, now: bool) -> List[Any]:
        """Return the families that have changed; none before the interval has passed, unless it must be ``now``."""
        library = sys.modules.get("prometheus_client")
        if library is None:
            return []
        if not now and time.monotonic() < self._next:
            return []
        try:
            collected = list(library.REGISTRY.collect())
        except Exception:  # the registry and what is in it are the model's: its faults are no reason to fail a request
            collected = []
        self._next = time.monotonic() + INTERVAL
        families = []
        for metric in collected:
            if not metric.name.startswith(_OTHERS):
                family = self._family(metric)
                if family is not None:
                    families.append(family)
        return families

    def _family(self, metric: Any) -> Optional[List[Any]]:
        kind = metric.type
        if kind == "counter":
            return self._whole("counter", metric, self._counter(metric))
        if kind in ("histogram", "summary"):
            return self._distribution(metric)
        return self._whole("gauge", metric, self._gauge(metric))

    def _counter(self, metric: Any) -> Dict[Tuple[Tuple[str, str], ...], List[float]]:
        grown = {}
        for sample in metric.samples:
            if not sample.name.endswith("_created"):
                growth = self._growth(sample)
                if growth:
                    grown[tuple(sample.labels.items())] = [growth]
        return grown

    def _gauge(self, metric: Any) -> Dict[Tuple[Tuple[str, str], ...], List[float]]:
        values = {}
        for sample in metric.samples:
            key = (sample.name, tuple(sample.labels.items()))
            if self._last.get(key) != sample.value:
                self._gauges.add(key)
                self._last[key] = sample.value
                values[key[1]] = [sample.value]
        return values

    def _distribution(self, metric: Any) -> Optional[List[Any]]:
        buckets: Dict[Tuple[Tuple[str, str], ...], List[Tuple[float, float]]] = {}
        sums: Dict[Tuple[Tuple[str, str], ...], float] = {}
        counts: Dict[Tuple[Tuple[str, str], ...], float] = {}
        for sample in metric.samples:
            labels = dict(sample.labels)
            bound = labels.pop("le", None)
            key = tuple(labels.items())
            if sample.name.endswith("_bucket") and bound is not None:
                buckets.setdefault(key, []).append((float(bound), self._growth(sample)))
            elif sample.name.endswith("_sum"):
                sums[key] = self._growth(sample)
            elif sample.name.endswith("_count"):
                counts[key] = self._growth(sample)
        grown: Dict[Tuple[Tuple[str, str], ...], List[Any]] = {}
        bounds: List[float] = []
        for key, count in counts.items():
            if not count:
                continue
            cumulative = sorted(buckets.get(key, []))
            bounds = [bound for bound, _ in cumulative if bound != float("inf")]
            below = 0.0
            single = []
            for _, total in cumulative:
                single.append(total - below)
                below = total
            grown[key] = [single or [count], sums.get(key, 0.0)]
        return self._whole("histogram" if bounds else "summary", metric, grown, bounds)

    def _growth(self, sample: Any) -> float:
        key = (sample.name, tuple(sample.labels.items()))
        last, self._last[key] = self._last.get(key, 0.0), sample.value
        # A registry that was cleared begins anew.
        return float(sample.value - last if sample.value >= last else sample.value)

    def _whole(
        self, kind: str, metric: Any, series: Dict[Tuple[Tuple[str, str], ...], List[Any]], bounds: Any = ()
    ) -> Optional[List[Any]]:
        if not series:
            return None
        names = [name for name, _ in next(iter(series))]
        name = "{}_info".format(metric.name) if metric.type == "info" else metric.name
        return [
            kind,
            name,
            metric.documentation,
            names,
            list(bounds),
            [[[str(value) for _, value in labels], *values] for labels, values in series.items()],
        ]
