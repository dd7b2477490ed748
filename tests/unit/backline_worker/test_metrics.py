"""The metrics that user code counts with, and the reports that they make."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import prometheus_client
import pytest

from backline_worker import metrics
from backline_worker.prometheus_registry import PrometheusRegistry


@pytest.fixture(autouse=True)
def nothing_counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("_families", "_changed", "_dropped"):
        monkeypatch.setattr(metrics, name, {})
    return iter([None])


def taken() -> dict[str, list[Any]]:
    report = metrics.take_report()
    return (
        {}
        if report is None
        else {name: [kind, labels, series] for kind, name, _, labels, _, series in report["families"]}
    )


def test_a_report_holds_what_has_been_added_since_the_last_one() -> None:
    checks = metrics.Counter("checks_total", "Checks.", labels=["outcome"])
    checks.inc(outcome="good")
    checks.inc(2, outcome="good")
    size = metrics.Gauge("size")
    size.set(7)
    size.dec()
    assert taken() == {"checks": ["counter", ["outcome"], [[["good"], 3.0]]], "size": ["gauge", [], [[[], 6.0]]]}
    assert metrics.take_report() is None
    size.inc()
    assert taken() == {"size": ["gauge", [], [[[], 7.0]]]}


def test_a_histogram_counts_by_upper_bound() -> None:
    seen = metrics.Histogram("seen", buckets=[1, 2])
    for value in (0.5, 1, 1.5, 9):
        seen.observe(value)
    assert taken() == {"seen": ["histogram", [], [[[], [2, 1, 1], 12.0]]]}
    assert taken() == {}


def test_a_module_that_is_imported_again_goes_on_with_the_same_metric() -> None:
    metrics.Counter("checks", labels=["a"]).inc(a=1)
    metrics.Counter("checks", labels=["a"]).inc(a=1)
    assert taken()["checks"][2] == [[["1"], 2.0]]
    with pytest.raises(
        ValueError, match=r"metric checks: there is a counter of this name with the labels \['a'\] already"
    ):
        metrics.Gauge("checks", labels=["a"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.Counter("no name"), "'no name' is no name"),
        (lambda: metrics.Gauge("backline_x"), "are the server's"),
        (lambda: metrics.Gauge("x", labels=["worker"]), "a label cannot be called worker"),
        (lambda: metrics.Gauge("x", labels="worker"), "expected a list of names"),
        (lambda: metrics.Histogram("x", buckets=[2, 1]), "not \\[2, 1\\]"),
        (lambda: metrics.Histogram("x", buckets=[1, float("inf")]), "numbers that grow"),
        (lambda: metrics.Counter("x").inc(-1), r"inc\(-1\) would make it smaller"),
        (lambda: metrics.Counter("x").inc(float("nan")), "a counter only grows"),
        (lambda: metrics.Counter("x", labels=["a"]).inc(b=1), r"its labels are \['a'\], not \['b'\]"),
    ],
)
def test_misuse_is_told_with_the_name_and_the_mend(make: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_label_values_without_end_are_dropped_and_counted() -> None:
    users = metrics.Counter("users", labels=["id"])
    for number in range(metrics.MOST_SERIES + 5):
        users.inc(id=number)
    report = metrics.take_report()
    assert report is not None
    assert len(report["families"][0][5]) == metrics.MOST_SERIES
    assert report["dropped"] == {"series": 5}


def test_threads_lose_nothing() -> None:
    checks = metrics.Counter("checks")
    total = 0.0

    def count() -> None:
        for _ in range(2000):
            checks.inc()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        total += sum(series[0][1] for _, _, series in taken().values())
    total += sum(series[0][1] for _, _, series in taken().values())
    assert total == 8000


def test_the_default_registry_of_prometheus_client_is_read_for_what_has_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry = prometheus_client.CollectorRegistry()
    monkeypatch.setattr(prometheus_client, "REGISTRY", registry)
    prometheus_client.ProcessCollector(registry=registry)
    checks = prometheus_client.Counter("checks", "Checks.", ["outcome"], registry=registry)
    size = prometheus_client.Gauge("size", "Size.", registry=registry)
    seen = prometheus_client.Histogram("seen", "Seen.", registry=registry, buckets=[1, 2])
    took = prometheus_client.Summary("took", "Took.", registry=registry)
    checks.labels("good").inc(3)
    size.set(4)
    for value in (0.5, 1.5, 1.6, 9):
        seen.observe(value)
    took.observe(2)
    bridge = PrometheusRegistry()
    assert bridge.take_report(now=True) == [
        ["counter", "checks", "Checks.", ["outcome"], [], [[["good"], 3.0]]],
        ["gauge", "size", "Size.", [], [], [[[], 4.0]]],
        ["histogram", "seen", "Seen.", [], [1.0, 2.0], [[[], [1.0, 2.0, 1.0], 12.6]]],
        ["summary", "took", "Took.", [], [], [[[], [1.0], 2.0]]],
    ]
    assert bridge.take_report(now=True) == []
    checks.labels("good").inc()
    assert bridge.take_report(now=False) == []  # not yet
    assert bridge.take_report(now=True) == [["counter", "checks", "Checks.", ["outcome"], [], [[["good"], 1.0]]]]
