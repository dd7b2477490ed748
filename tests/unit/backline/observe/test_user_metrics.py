"""What user code counts: sums over workers, gauges of each, and nothing that it makes up breaks the page."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from backline.observe import user_metrics
from backline.observe.exposition import Exposition
from backline.observe.metrics import Metrics
from backline.observe.snapshot import Snapshot
from backline.observe.user_metrics import UserMetrics

NOTHING = Snapshot(version="1", model_name="m", target_type="", predictor="", model=None, backend=None)


def report(*families: list[Any]) -> dict[str, Any]:
    return {"families": list(families)}


def counter(name: str, amount: Any = 1, labels: tuple[str, ...] = (), values: tuple[str, ...] = ()) -> list[Any]:
    return ["counter", name, "", list(labels), [], [[list(values), amount]]]


def page_of(metrics: Metrics) -> dict[str, float]:
    page, _ = Exposition(metrics).render(NOTHING, "application/openmetrics-text")
    families = openmetrics.text_string_to_metric_families(page.decode())  # type: ignore[no-untyped-call]
    return {
        " ".join([sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in families
        for sample in family.samples
    }


def test_counters_and_histograms_are_summed_over_workers_and_gauges_are_not() -> None:
    metrics = Metrics()
    for worker in (1, 2, 2):
        metrics.worker_reported(
            worker,
            report(
                counter("checks", 2, ("outcome",), ("good",)),
                ["gauge", "size", "", [], [], [[[], worker * 10]]],
                ["histogram", "score", "", [], [0.5], [[[], [1, 2], 3.0]]],
                ["summary", "took", "", [], [], [[[], [4], 8.0]]],
            ),
            current=True,
        )
    page = page_of(metrics)
    assert page["checks_total outcome=good"] == 6
    assert page["size worker=1"] == 10
    assert page["size worker=2"] == 20
    assert page["score_bucket le=0.5"] == 3
    assert page["score_bucket le=+Inf"] == page["score_count"] == 9
    assert page["score_sum"] == 9
    assert page["took_count"] == 12
    assert page["took_sum"] == 24


def test_a_dead_workers_counts_stay_and_its_gauges_go() -> None:
    metrics = Metrics()
    both = report(counter("checks"), ["gauge", "size", "", [], [], [[[], 5]]])
    metrics.worker_reported(1, both, current=True)
    metrics.worker_ended(1, "SIGKILL")
    assert "size worker=1" not in page_of(metrics)
    metrics.worker_reported(1, both, current=False)  # the last words of one that was replaced
    page = page_of(metrics)
    assert page["checks_total"] == 2
    assert "size worker=1" not in page


@pytest.mark.parametrize(
    ("family", "reason"),
    [
        (counter("backline_requests"), "reserved"),
        (counter("process_x"), "reserved"),
        (counter("x", 1, ("worker",), ("1",)), "reserved"),
        (counter("no name"), "malformed"),
        (counter("x", -1), "malformed"),
        (counter("x", "nan"), "malformed"),
        (counter("x", None), "malformed"),
        (counter("x", 1, ("a", "a"), ("1", "2")), "malformed"),
        (["gauge", "known", "", [], [], [[[], 1]]], "conflict"),
        (["gauge", "known_total", "", [], [], [[[], 1]]], "conflict"),
        (["histogram", "h", "", [], [2.0, 1.0], [[[], [1, 1, 1], 1]]], "malformed"),
        (["histogram", "h", "", [], [1.0], [[[], [1], 1]]], "malformed"),
        (["tower", "h", "", [], [], []], "malformed"),
        ([], "malformed"),
    ],
)
def test_what_does_not_fit_is_left_out_and_counted(family: list[Any], reason: str) -> None:
    metrics = Metrics()
    metrics.worker_reported(1, report(counter("known"), family), current=True)
    page = page_of(metrics)
    assert page["known_total"] == 1
    assert page[f"backline_user_metrics_dropped_total model=m reason={reason}"] == 1


def test_names_and_series_are_bounded() -> None:
    metrics = Metrics()
    for number in range(user_metrics.MOST_SERIES + 10):
        metrics.worker_reported(1, report(counter("x", 1, ("id",), (str(number),))), current=True)
    for number in range(user_metrics.MOST_FAMILIES + 10):
        metrics.worker_reported(1, report(counter(f"name_{number}")), current=True)
    page = page_of(metrics)
    assert sum(name.startswith("x_total") for name in page) == user_metrics.MOST_SERIES
    assert sum(name.startswith("name_") for name in page) == user_metrics.MOST_FAMILIES - 1
    assert page["backline_user_metrics_dropped_total model=m reason=series"] == 10
    assert page["backline_user_metrics_dropped_total model=m reason=names"] == 11


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=8),
    lambda each: st.lists(each, max_size=4),
)
NEARLY = st.tuples(
    st.sampled_from(["counter", "gauge", "histogram", "summary"]),
    st.sampled_from(["a", "b", "a_total", "b_sum"]) | JSON,
    JSON,
    st.lists(st.sampled_from(["x", "le"]), max_size=2) | JSON,
    st.lists(st.floats(), max_size=2) | JSON,
    st.lists(st.tuples(st.lists(st.text(max_size=3), max_size=2), st.floats() | st.lists(st.floats()) | JSON)) | JSON,
)


@given(st.lists(st.tuples(st.integers(1, 2), JSON | NEARLY), max_size=5))
def test_whatever_a_worker_sends_the_page_can_be_read(reports: list[tuple[int, Any]]) -> None:
    metrics = Metrics()
    for worker, family in reports:
        sent = json.loads(json.dumps({"families": [family]}))
        metrics.worker_reported(worker, sent, current=True)
    page, _ = Exposition(metrics).render(NOTHING, "")
    assert list(text_string_to_metric_families(page.decode()))


def test_reports_that_are_no_reports_are_taken_as_empty() -> None:
    user = UserMetrics()
    assert user.take(1, {"families": 3, "dropped": [1]}, current=True) == {}
    assert user.take(1, {"dropped": {"series": 2, "made up": 9, "names": "x"}}, current=True) == {"series": 2}
