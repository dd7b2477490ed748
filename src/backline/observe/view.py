"""What ``backline top`` shows, computed from two looks at a server: rates and quantiles of the time between them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

Labels = frozenset[tuple[str, str]]

_QUANTILES = (0.5, 0.95, 0.99)
_STAGES = ("queue", "decode", "predict", "encode")


@dataclasses.dataclass(frozen=True, slots=True)
class Look:
    """One look at a server: its metrics, its ``/stats/``, and when, in seconds of a clock that only goes on."""

    at: float
    values: Mapping[str, Mapping[Labels, float]]
    stats: Mapping[str, Any]
    model: str

    @staticmethod
    def of(at: float, page: str, stats: Mapping[str, Any]) -> Look:
        """Read a page in Prometheus' text format. Raises ``ValueError`` where it is none."""
        from prometheus_client.parser import text_string_to_metric_families  # late: 30 ms

        values: dict[str, dict[Labels, float]] = {}
        model = ""
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                model = model or sample.labels.get("model", "")
                labels = frozenset(item for item in sample.labels.items() if item[0] != "model")
                values.setdefault(sample.name, {})[labels] = sample.value
        return Look(at, values, stats, model)

    def total(self, name: str, **labels: str) -> float:
        """Return the sum of all samples of this name with these labels."""
        return self._sum(name, lambda found: labels.items() <= found.items())

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return the sums of a metric's samples by one label."""
        sums: dict[str, float] = {}
        for found, value in self.values.get(name, {}).items():
            key = dict(found).get(label, "")
            sums[key] = sums.get(key, 0.0) + value
        return sums

    def label(self, name: str, label: str) -> str:
        """Return a label of a metric's first sample."""
        for found in self.values.get(name, {}):
            return dict(found).get(label, "")
        return ""

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """Return a histogram's cumulative counts by upper bound."""
        counts: dict[float, float] = {}
        for found, value in self.values.get(f"{name}_bucket", {}).items():
            given = dict(found)
            if labels.items() <= given.items():
                bound = float(given["le"])
                counts[bound] = counts.get(bound, 0.0) + value
        return counts

    def _sum(self, name: str, wanted: Callable[[dict[str, str]], bool]) -> float:
        return sum(value for found, value in self.values.get(name, {}).items() if wanted(dict(found)))


def quantile(q: float, buckets: Mapping[float, float]) -> float | None:
    """Return a quantile of cumulative counts by upper bound, as Prometheus estimates it; ``None`` of nothing."""
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank = q * buckets[bounds[-1]]
    below, before = 0.0, 0.0
    for bound in bounds:
        count = buckets[bound]
        if count >= rank:
            if math.isinf(bound):
                return below
            return below + (bound - below) * ((rank - before) / (count - before) if count > before else 1.0)
        below, before = bound, count
    return below


def view(before: Look | None, now: Look) -> dict[str, Any]:
    """Return what there is to show, as JSON values; of a lone look the rates are those since the server's start."""
    seconds = float(now.stats["uptime_seconds"]) if before is None else now.at - before.at
    changes = _Changes(before, now, max(seconds, 1e-3))
    answered = changes.rate("backline_requests_total")
    failed = sum(
        rate for status, rate in changes.rates_by("backline_requests_total", "status").items() if status >= "500"
    )
    states = now.by("backline_model_state", "state")
    return {
        "model": now.model,
        "version": now.label("backline_info", "version"),
        "target_type": now.label("backline_info", "target_type"),
        "state": next((state for state, on in states.items() if on), None),
        "uptime_seconds": now.stats["uptime_seconds"],
        "interval_seconds": round(seconds, 3),
        "requests_per_second": round(answered, 3),
        "failed_per_second": round(failed, 3),
        "in_flight": int(now.total("backline_requests_in_flight")),
        "waiting": int(now.total("backline_queue_requests")),
        "waiting_limit": int(now.total("backline_queue_limit_requests")),
        "held_bytes": int(now.total("backline_held_bytes")),
        "requests_per_call": changes.mean("backline_batch_requests"),
        "routes": changes.routes(),
        "stage_seconds": {stage: changes.mean("backline_stage_seconds", stage=stage) for stage in _STAGES},
        "workers": changes.workers(),
        "restarts": {cause: int(count) for cause, count in now.by("backline_worker_restarts_total", "cause").items()},
        "streams_open": int(now.total("backline_streams_open")),
        "backend": now.stats.get("backend"),
        "server": {
            "resident_bytes": int(now.total("process_resident_memory_bytes")),
            "cpu": round(changes.rate("process_cpu_seconds_total"), 3),
        },
        "last_errors": list(reversed(now.stats.get("last_errors", [])))[:10],
    }


class _Changes:
    """What has changed between two looks, or since the start where there is only one."""

    def __init__(self, before: Look | None, now: Look, seconds: float) -> None:
        self._before = before
        self._now = now
        self._seconds = seconds

    def rate(self, name: str, **labels: str) -> float:
        return self._growth(name, **labels) / self._seconds

    def rates_by(self, name: str, label: str) -> dict[str, float]:
        return {key: self.rate(name, **{label: key}) for key in self._now.by(name, label)}

    def mean(self, name: str, **labels: str) -> float | None:
        """Return the mean of a histogram's observations, ``None`` where there were none."""
        count = self._growth(f"{name}_count", **labels)
        return round(self._growth(f"{name}_sum", **labels) / count, 6) if count else None

    def routes(self) -> list[dict[str, Any]]:
        rates = self.rates_by("backline_requests_total", "route")
        routes = []
        for route in sorted(rates, key=lambda route: (-rates[route], route)):
            buckets = self._now.buckets("backline_request_seconds", route=route)
            if self._before is not None:
                old = self._before.buckets("backline_request_seconds", route=route)
                buckets = {bound: count - old.get(bound, 0.0) for bound, count in buckets.items()}
            quantiles = {f"p{100 * q:.0f}": _rounded(quantile(q, buckets)) for q in _QUANTILES}
            routes.append({"route": route, "requests_per_second": round(rates[route], 3), **quantiles})
        return routes

    def workers(self) -> list[dict[str, Any]]:
        workers = []
        for worker in self._now.stats.get("workers", ()):
            number = str(worker["worker"])
            proportional = self._now.total("backline_worker_proportional_memory_bytes", worker=number)
            workers.append(
                {
                    "worker": worker["worker"],
                    "pid": worker["pid"],
                    "state": worker["state"],
                    "memory_bytes": int(proportional or worker["resident_bytes"]),
                    "cpu": round(self.rate("backline_worker_cpu_seconds_total", worker=number), 3),
                    "busy": round(self.rate("backline_worker_busy_seconds_total", worker=number), 3),
                    "answered": int(self._now.total("backline_worker_requests_total", worker=number)),
                }
            )
        return workers

    def _growth(self, name: str, **labels: str) -> float:
        now = self._now.total(name, **labels)
        before = 0.0 if self._before is None else self._before.total(name, **labels)
        return now - before if now >= before else now  # a process, or the server, has begun anew


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 6)
