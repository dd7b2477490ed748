"""Cells, the observer that counts, and what becomes of both on the page."""

from __future__ import annotations

from bisect import bisect_left

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics

from backline.errors import BacklineError, DeadlineExceeded, QueueFull
from backline.observe.cells import Histogram
from backline.observe.exposition import Exposition
from backline.observe.metrics import Metrics
from backline.observe.snapshot import Snapshot

NOTHING = Snapshot(version="1", model_name="m", target_type="", predictor="", model=None, backend=None)
BOUNDS = (0.1, 1.0, 5.0)


def values(metrics: Metrics) -> dict[str, float]:
    page, _ = Exposition(metrics).render(NOTHING, "application/openmetrics-text")
    return {
        sample.name + "".join(f" {value}" for name, value in sorted(sample.labels.items()) if name != "model"): (
            sample.value
        )
        for family in openmetrics.text_string_to_metric_families(page.decode())  # type: ignore[no-untyped-call]
        for sample in family.samples
    }


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 9))))
def test_a_histogram_counts_each_value_below_its_first_bound_that_is_not_less(seen: list[tuple[float, int]]) -> None:
    histogram = Histogram(BOUNDS)
    for value, times in seen:
        histogram.observe(value, times)
    expected = [0] * 4
    for value, times in seen:
        expected[bisect_left(BOUNDS, value)] += times
        assert value <= ([*BOUNDS, float("inf")])[bisect_left(BOUNDS, value)]
    assert histogram.counts == expected
    assert abs(histogram.sum - sum(value * times for value, times in seen)) < 1e-6


def test_requests_of_one_batch_count_each() -> None:
    metrics = Metrics()
    metrics.calls_answered(2, [0.1, 0.2, 0.3], 7, {"decode": 0.5, "predict": 1.5}, 2.0)
    page = values(metrics)
    assert page["backline_stage_seconds_count predict"] == 3
    assert page["backline_stage_seconds_sum predict"] == 4.5
    assert page["backline_batch_rows_sum"] == 7
    assert page["backline_worker_requests_total 2"] == 3
    assert page["backline_worker_model_calls_total 2"] == 1
    assert page["backline_worker_busy_seconds_total 2"] == 2.0


def test_errors_are_counted_by_code_refusals_by_reason_and_deadlines_by_place() -> None:
    metrics = Metrics()
    metrics.error_answered("/predict", QueueFull("full"), 503, "a")
    metrics.error_answered("/predict", DeadlineExceeded("late", in_queue=True), 504, "b")
    page = values(metrics)
    assert page["backline_errors_total queue_full"] == page["backline_rejections_total queue_full"] == 1
    assert page["backline_deadlines_exceeded_total queue"] == 1
    assert page["backline_deadlines_exceeded_total worker"] == 0
    assert [error.code for error in metrics.last_errors] == ["queue_full", "deadline_exceeded"]


def test_what_others_make_up_does_not_become_labels_without_end() -> None:
    metrics = Metrics()
    for number in range(1000):
        error = BacklineError("x")
        error.code = f"code_{number}"
        metrics.error_answered("/predict", error, 500, "a")
        metrics.request_begun()
        metrics.request_ended("/predict", f"METHOD{number}", 405, 0.1)
    page = values(metrics)
    assert page["backline_requests_total _OTHER /predict 405"] == 1000
    codes = [name for name in page if name.startswith("backline_errors_total")]
    assert len(codes) <= 201
    assert sum(page[name] for name in codes) == 1000


def test_a_stream_counts_its_first_piece_and_the_gaps_between_the_others() -> None:
    metrics = Metrics()
    stream = metrics.stream_opened("/nim", 0.0)
    for _ in range(3):
        stream.piece_sent()
    assert values(metrics)["backline_streams_open /nim"] == 1
    stream.closed()
    page = values(metrics)
    assert page["backline_streams_open /nim"] == 0
    assert page["backline_stream_first_chunk_seconds_count /nim"] == 1
    assert page["backline_stream_chunk_gap_seconds_count /nim"] == 2
