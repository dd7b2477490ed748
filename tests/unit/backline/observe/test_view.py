"""What ``backline top`` shows, computed from two looks."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.observe.cells import Histogram
from backline.observe.exposition import Exposition
from backline.observe.metrics import Metrics
from backline.observe.snapshot import Snapshot
from backline.observe.view import Look, quantile, view

NOTHING = Snapshot(version="1", model_name="m", target_type="", predictor="", model=None, backend=None)
BOUNDS = (0.1, 0.5, 2.0)


def look(metrics: Metrics, at: float) -> Look:
    page, _ = Exposition(metrics).render(NOTHING, "")
    stats = {"uptime_seconds": 100, "workers": [{"worker": 1, "pid": 9, "state": "ready", "resident_bytes": 7}]}
    return Look.of(at, page.decode(), stats)


@given(st.lists(st.floats(0, 1.9), min_size=1, max_size=50), st.floats(0.01, 1))
def test_a_quantile_lies_in_the_bucket_of_the_value_that_it_estimates(values: list[float], q: float) -> None:
    histogram = Histogram(BOUNDS)
    for value in values:
        histogram.observe(value)
    cumulative = {
        bound: float(sum(histogram.counts[: place + 1])) for place, bound in enumerate((*BOUNDS, float("inf")))
    }
    exact = sorted(values)[max(0, -int(-q * len(values) // 1) - 1)]
    place = bisect_left(BOUNDS, exact)
    estimate = quantile(q, cumulative)
    assert estimate is not None
    assert (BOUNDS[place - 1] if place else 0) <= estimate <= BOUNDS[place]


def test_quantiles_beyond_the_last_bound_are_that_bound_and_of_nothing_there_are_none() -> None:
    assert quantile(0.5, {1.0: 0.0, float("inf"): 3.0}) == 1.0
    assert quantile(0.5, {1.0: 0.0, float("inf"): 0.0}) is None
    assert quantile(0.5, {}) is None


def test_rates_and_times_are_those_between_the_looks() -> None:
    metrics = Metrics()
    metrics.request_begun()
    metrics.request_ended("/predict", "POST", 200, 100.0)
    before = look(metrics, 10.0)
    for status in (200, 200, 503, 404):
        metrics.request_begun()
        metrics.request_ended("/predict", "POST", status, 0.3)
    metrics.calls_answered(1, [0.1, 0.3], 2, {"predict": 0.5}, 1.0)
    shown = view(before, look(metrics, 12.0))
    assert shown["requests_per_second"] == 2.0
    assert shown["failed_per_second"] == 0.5
    (route,) = shown["routes"]
    assert route["route"] == "/predict"
    assert 0.25 < route["p50"] <= 0.5
    assert shown["stage_seconds"]["queue"] == pytest.approx(0.2)
    assert shown["requests_per_call"] == 2.0
    assert shown["workers"] == [
        {"worker": 1, "pid": 9, "state": "ready", "memory_bytes": 7, "cpu": 0.0, "busy": 0.5, "answered": 2}
    ]


def test_a_lone_look_shows_the_time_since_the_start_and_a_new_server_begins_anew() -> None:
    metrics = Metrics()
    metrics.request_begun()
    metrics.request_ended("/predict", "POST", 200, 0.3)
    now = look(metrics, 10.0)
    assert view(None, now)["requests_per_second"] == 0.01
    old = Metrics()
    for _ in range(9):
        old.request_begun()
        old.request_ended("/predict", "POST", 200, 0.3)
    assert view(look(old, 9.0), now)["requests_per_second"] == 1.0


def test_a_page_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match=r".+"):
        Look.of(0.0, "<html>what?</html>", {})
