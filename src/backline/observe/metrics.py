"""The observer that counts: everything that is counted as it happens. What is only looked at is in ``snapshot``."""

from __future__ import annotations

import collections
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from backline.errors import DeadlineExceeded, RequestRefused
from backline.observe import families
from backline.observe.cells import Histogram
from backline.observe.observer import Observer, StreamObserver
from backline.observe.user_metrics import UserMetrics

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from backline.errors import BacklineError
    from backline.observe.families import Family

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "WEBSOCKET"})
_OTHER_METHOD = "_OTHER"
_STAGES = ("queue", "decode", "predict", "encode")
_LAST_ERRORS = 20
_MOST_LABEL_SETS = 200  # of one counter: a code comes from the worker, where anything may run

Labels = tuple[str, ...]


class ErrorSeen(NamedTuple):
    """An error that was answered. Without its message, which may quote the client's data."""

    time: float
    status: int
    code: str
    route: str
    request_id: str


class _Requests:
    """How many requests there were of a route, a method and a status, and how long those of the route took."""

    __slots__ = ("count", "seconds")

    def __init__(self, seconds: Histogram) -> None:
        self.count = 0
        self.seconds = seconds


class _Worked:
    """What the workers that came one after another in one place have done."""

    __slots__ = ("calls", "requests", "seconds")

    def __init__(self) -> None:
        self.requests = 0
        self.calls = 0
        self.seconds = 0.0


class Metrics(Observer):
    """Counts from the start of the server to its end. ``counters`` and ``histograms`` give what there is."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.user = UserMetrics()
        self.streams_open: dict[str, int] = {}
        self.last_errors: collections.deque[ErrorSeen] = collections.deque(maxlen=_LAST_ERRORS)
        self._requests: dict[tuple[str, str, int], _Requests] = {}
        self._histograms: dict[Family, dict[Labels, Histogram]] = {}
        self._counts: dict[Family, dict[Labels, float]] = {families.RETRIES: {(): 0}}
        self._queue, self._decode, self._predict, self._encode = (
            self._histogram(families.STAGE_SECONDS, stage) for stage in _STAGES
        )
        self._workers: dict[int, _Worked] = {}
        self._singles = 0  # calls of the model for one request with one row
        self._batch_requests = self._histogram(families.BATCH_REQUESTS)
        self._batch_rows = self._histogram(families.BATCH_ROWS)
        for family in (families.DEADLINES, families.CANCELLATIONS):
            self._counts[family] = {("queue",): 0, ("worker",): 0}  # an alert needs the series before the first case

    # --- read at a scrape

    def counters(self) -> Iterator[tuple[Family, dict[Labels, float]]]:
        """Return each counter with its values by labels."""
        yield (
            families.REQUESTS,
            {
                (route, method, str(status)): float(cell.count)
                for (route, method, status), cell in self._requests.items()
            },
        )
        yield families.WORKER_REQUESTS, {(str(number),): cell.requests for number, cell in self._workers.items()}
        yield families.WORKER_CALLS, {(str(number),): cell.calls for number, cell in self._workers.items()}
        yield families.WORKER_BUSY, {(str(number),): cell.seconds for number, cell in self._workers.items()}
        yield from self._counts.items()

    def histograms(self) -> Iterator[tuple[Family, dict[Labels, Histogram]]]:
        """Return each histogram with its cells by labels."""
        singles, self._singles = self._singles, 0
        self._batch_requests.observe(1, singles)
        self._batch_rows.observe(1, singles)
        yield from self._histograms.items()

    # --- Observer

    def request_begun(self) -> None:
        """See ``Observer``."""
        self.in_flight += 1

    def request_ended(
        self, route: str, method: str, status: int, seconds: float, traceparent: bytes | None = None
    ) -> None:
        """See ``Observer``."""
        self.in_flight -= 1
        cell = self._requests.get((route, method, status))
        if cell is None:
            cell = self._make_requests(route, method, status)
        cell.count += 1
        if traceparent is None:
            cell.seconds.observe(seconds)
        else:
            cell.seconds.observe_traced(seconds, traceparent)

    def socket_ended(self, route: str, status: int) -> None:
        """See ``Observer``."""
        self.in_flight -= 1
        # Not with the times of requests: it lasts as long as two people talk.
        self._make_requests(route, "WEBSOCKET", status).count += 1

    def error_answered(self, route: str, error: BacklineError, status: int, request_id: str) -> None:
        """See ``Observer``."""
        self._count(families.ERRORS, error.code)
        if isinstance(error, RequestRefused):
            self._count(families.REJECTIONS, error.code)
        elif isinstance(error, DeadlineExceeded):
            self._count(families.DEADLINES, "queue" if error.in_queue else "worker")
        self.last_errors.append(ErrorSeen(time.time(), status, error.code, route, request_id))

    def stream_opened(self, route: str, begun: float) -> StreamObserver:
        """See ``Observer``."""
        self.streams_open[route] = self.streams_open.get(route, 0) + 1
        first = self._histogram(families.FIRST_CHUNK_SECONDS, route)
        gaps = self._histogram(families.CHUNK_GAP_SECONDS, route)
        return _Stream(self.streams_open, route, first, gaps, begun)

    def tokens_used(self, route: str, prompt: int, completion: int) -> None:
        """See ``Observer``."""
        self._count(families.TOKENS, route, "input", by=prompt)
        self._count(families.TOKENS, route, "output", by=completion)

    def calls_answered(
        self, worker: int, queue_seconds: Sequence[float], rows: int, stages: Mapping[str, float], seconds: float
    ) -> None:
        """See ``Observer``."""
        number = len(queue_seconds)
        for waited in queue_seconds:
            self._queue.observe(waited)
        if stages:
            self._decode.observe(stages.get("decode", 0.0), number)
            self._predict.observe(stages.get("predict", 0.0), number)
            self._encode.observe(stages.get("encode", 0.0), number)
        if rows == number == 1:
            self._singles += 1  # put among the others at a scrape: one observation less for most requests, twice
        else:
            self._batch_requests.observe(number)
            self._batch_rows.observe(rows)
        cell = self._workers.get(worker)
        if cell is None:
            cell = self._workers[worker] = _Worked()
        cell.requests += number
        cell.calls += 1
        cell.seconds += seconds

    def call_retried(self) -> None:
        """See ``Observer``."""
        self._count(families.RETRIES)

    def call_cancelled(self, *, running: bool) -> None:
        """See ``Observer``."""
        self._count(families.CANCELLATIONS, "worker" if running else "queue")

    def worker_ready(self, worker: int, start_seconds: float, load_seconds: float) -> None:
        """See ``Observer``."""
        self.user.forget_gauges(worker)
        self._histogram(families.START_SECONDS).observe(start_seconds)
        self._histogram(families.LOAD_SECONDS).observe(load_seconds)

    def worker_ended(self, worker: int, cause: str) -> None:
        """See ``Observer``."""
        self._count(families.RESTARTS, cause)
        self.user.forget_gauges(worker)

    def worker_reported(self, worker: int, report: Mapping[str, Any], *, current: bool) -> None:
        """See ``Observer``."""
        for reason, times in self.user.take(worker, report, current=current).items():
            self._count(families.USER_DROPPED, reason, by=times)

    # --- inside

    def _count(self, family: Family, *labels: str, by: float = 1) -> None:
        counts = self._counts.setdefault(family, {})
        if len(counts) >= _MOST_LABEL_SETS and labels not in counts:
            labels = ("other",) * len(labels)
        counts[labels] = counts.get(labels, 0) + by

    def _histogram(self, family: Family, *labels: str) -> Histogram:
        cells = self._histograms.setdefault(family, {})
        cell = cells.get(labels)
        if cell is None:
            cell = cells[labels] = Histogram(family.bounds)
        return cell

    def _make_requests(self, route: str, method: str, status: int) -> _Requests:
        if method not in _METHODS:  # whatever clients make up must not become labels
            method = _OTHER_METHOD
        key = (route, method, status)
        cell = self._requests.get(key)
        if cell is None:
            cell = self._requests[key] = _Requests(self._histogram(families.REQUEST_SECONDS, route))
        return cell


class _Stream(StreamObserver):
    __slots__ = ("_begun", "_first", "_gaps", "_last", "_open", "_route")

    def __init__(self, still_open: dict[str, int], route: str, first: Histogram, gaps: Histogram, begun: float) -> None:
        self._open = still_open
        self._route = route
        self._first = first
        self._gaps = gaps
        self._begun = begun
        self._last = 0.0

    def piece_sent(self) -> None:
        now = time.perf_counter()
        if self._last:
            self._gaps.observe(now - self._last)
        else:
            self._first.observe(now - self._begun)
        self._last = now

    def closed(self) -> None:
        self._open[self._route] -= 1
