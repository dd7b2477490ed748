"""Turns what was counted and what is seen now into the pages that Prometheus reads.

prometheus-client is imported here and nowhere else, and this module only when somebody scrapes: it takes 30 ms and
3 MiB that a server without a Prometheus need not pay.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, SummaryMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from backline.observe import families
from backline.observe.families import Family
from backline.observe.snapshot import BackendSeen, ModelSeen, Snapshot, WorkerSeen

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from backline.observe.cells import Example, Histogram
    from backline.observe.metrics import Metrics
    from backline.observe.user_metrics import UserFamily

_Values = Mapping[tuple[str, ...], float | None]


class Exposition(Collector):
    """The application's registry: ours, those of the model's code, and what Python and the process tell of themselves.

    Used by one scrape at a time.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._snapshot: Snapshot | None = None
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        GCCollector(registry=self._registry)
        self._registry.register(self)

    def render(self, snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
        """Return the page and its content type: OpenMetrics, with exemplars, where ``accept`` asks for it."""
        self._snapshot = snapshot
        # Asked in our own words: what clients write is echoed into the content type, and some of it raises.
        wanted = "application/openmetrics-text; version=1.0.0" if "application/openmetrics-text" in accept else ""
        encode, content_type = choose_encoder(wanted)
        return encode(self._registry), content_type

    def describe(self) -> Iterable[Metric]:
        """See prometheus-client: nothing is collected just to register this."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See prometheus-client."""
        if self._snapshot is None:
            return
        snapshot = self._snapshot
        model = (snapshot.model_name,)
        yield _gauge(families.INFO, model, {(snapshot.version, snapshot.target_type, snapshot.predictor): 1})
        yield _gauge(families.IN_FLIGHT, model, {(): self._metrics.in_flight})
        yield _gauge(
            families.STREAMS_OPEN, model, {(route,): value for route, value in self._metrics.streams_open.items()}
        )
        for family, counts in self._metrics.counters():
            yield _counter(family, model, counts)
        for family, cells in self._metrics.histograms():
            yield _histogram(family, model, cells)
        if snapshot.model is not None:
            yield from _of_model(snapshot.model, model)
        if snapshot.backend is not None:
            yield from _of_backend(snapshot.backend)
        for name, user_family in self._metrics.user.families():
            yield _of_user(name, user_family)
        if snapshot.shadow is not None:
            yield _counter(families.SHADOW, model, {(outcome,): count for outcome, count in snapshot.shadow.items()})


def _of_model(seen: ModelSeen, model: tuple[str, ...]) -> Iterator[Metric]:
    yield _gauge(families.MODEL_STATE, model, {(state,): state == seen.state for state in seen.states})
    yield _gauge(families.QUEUE, model, {(): seen.waiting})
    yield _gauge(families.QUEUE_LIMIT, model, {(): seen.waiting_limit})
    yield _gauge(families.HELD, model, {(): seen.held_bytes})
    yield _gauge(families.HELD_LIMIT, model, {(): seen.held_limit})
    yield _gauge(families.WORKERS_CONFIGURED, model, {(): seen.configured})
    states = [worker.state for worker in seen.workers]
    yield _gauge(families.WORKERS, model, {(state,): states.count(state) for state in seen.worker_states})
    # Where a worker is being replaced, the one that serves comes first: of two in one place it is the one to show.
    workers: dict[int, WorkerSeen] = {}
    for worker in seen.workers:
        workers.setdefault(worker.number, worker)

    def by_worker(name: str) -> dict[tuple[str, ...], float | None]:
        return {(str(number),): getattr(worker, name) for number, worker in workers.items()}

    yield _gauge(families.WORKER_RSS, model, by_worker("resident_bytes"))
    yield _gauge(families.WORKER_PSS, model, by_worker("proportional_bytes"))
    yield _counter(families.WORKER_CPU, model, by_worker("cpu_seconds"))


def _of_backend(seen: BackendSeen) -> Iterator[Metric]:
    yield _gauge(families.BACKEND_READY, (), {(): seen.ready})
    yield _gauge(families.BACKEND_IN_FLIGHT, (), {(): seen.in_flight})
    yield _gauge(families.BACKEND_LIMIT, (), {(): seen.limit})


def _of_user(name: str, family: UserFamily) -> Metric:
    if family.kind == "gauge":
        gauge = GaugeMetricFamily(name, family.help, labels=(*family.labels, "worker"))
        for labels, value in family.values.items():
            gauge.add_metric(labels, value)
        return gauge
    if family.kind == "counter":
        counter = CounterMetricFamily(name, family.help, labels=family.labels)
        for labels, value in family.values.items():
            counter.add_metric(labels, value)
        return counter
    if family.kind == "summary":
        summary = SummaryMetricFamily(name, family.help, labels=family.labels)
        for labels, (counts, total) in family.cells.items():
            summary.add_metric(labels, int(counts[0]), total[0])
        return summary
    histogram = HistogramMetricFamily(name, family.help, labels=family.labels)
    for labels, (counts, total) in family.cells.items():
        histogram.add_metric(labels, buckets_of(family.bounds, counts), total[0])
    return histogram


def _labels(family: Family) -> Sequence[str]:
    return ("model", *family.labels) if family.of_model else family.labels


def _gauge(family: Family, model: tuple[str, ...], values: _Values) -> Metric:
    metric = GaugeMetricFamily(family.name, family.help, labels=_labels(family))
    for labels, value in values.items():
        if value is not None:
            metric.add_metric([*model, *labels], value)
    return metric


def _counter(family: Family, model: tuple[str, ...], values: _Values) -> Metric:
    metric = CounterMetricFamily(family.name, family.help, labels=_labels(family))
    for labels, value in values.items():
        if value is not None:
            metric.add_metric([*model, *labels], value)
    return metric


def _histogram(family: Family, model: tuple[str, ...], cells: Mapping[tuple[str, ...], Histogram]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=_labels(family))
    for labels, cell in cells.items():
        metric.add_metric([*model, *labels], buckets_of(cell.bounds, cell.counts, cell.exemplars), cell.sum)
    return metric


def buckets_of(
    bounds: Sequence[float],
    counts: Sequence[float],
    exemplars: Mapping[int, Example] | None = None,
) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
    """Return cumulative buckets as prometheus-client wants them, of counts by bucket."""
    buckets: list[tuple[str, float] | tuple[str, float, Exemplar]] = []
    total = 0.0
    for place, count in enumerate(counts):
        total += count
        bound = _number(bounds[place]) if place < len(bounds) else "+Inf"
        seen = None if exemplars is None else exemplars.get(place)
        buckets.append((bound, total) if seen is None else (bound, total, _exemplar(seen)))
    return buckets


def _exemplar(seen: Example) -> Exemplar:
    return Exemplar({"trace_id": seen.trace_id, "span_id": seen.span_id}, seen.value, seen.time)


def _number(bound: float) -> str:
    return repr(float(bound))
