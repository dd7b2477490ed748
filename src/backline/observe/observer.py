"""What the server tells of itself while it works: one port, called with plain values, by code that knows no metrics.

Every call is made on the event loop, in the middle of the work it tells of, so an implementation returns at once and
raises nothing. ``Observer`` itself does nothing with what it is told; ``metrics.Metrics`` counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backline.errors import BacklineError

CLIENT_LEFT = 499
"""Stands for the status of a request whose client left before its answer; nginx logs it so."""


class StreamObserver:
    """Told how one streamed answer goes. ``closed`` is called once, whatever happened."""

    __slots__ = ()

    def piece_sent(self) -> None:
        """A piece of the answer's body goes out to the client."""

    def closed(self) -> None:
        """The answer is over: complete, cut off or left by its client."""


SILENT_STREAM = StreamObserver()
"""For an answer that is no stream."""


class Observer:
    """Does nothing; subclasses take what they want of it."""

    def request_begun(self) -> None:
        """A request has come; ``request_ended`` follows, once."""

    def request_ended(
        self, route: str, method: str, status: int, seconds: float, traceparent: bytes | None = None
    ) -> None:
        """A request is over. ``route`` is a template, never a path as it came; ``status`` may be ``CLIENT_LEFT``.

        ``traceparent`` is the W3C header of the trace it belongs to, if any.
        """

    def socket_ended(self, route: str, status: int) -> None:
        """A WebSocket is over, or was not taken; ``request_begun`` came before. ``status`` is 101 if it was open."""

    def error_answered(self, route: str, error: BacklineError, status: int, request_id: str) -> None:
        """A request is answered with an error, or was cut off with one; ``request_ended`` follows."""

    def stream_opened(self, route: str, begun: float) -> StreamObserver:
        """A streamed answer begins, to a request that came at ``begun`` (``time.perf_counter``)."""
        return SILENT_STREAM

    def tokens_used(self, route: str, prompt: int, completion: int) -> None:
        """An answer told how many tokens it took."""

    def calls_answered(
        self, worker: int, queue_seconds: Sequence[float], rows: int, stages: Mapping[str, float], seconds: float
    ) -> None:
        """A worker has answered the calls that shared one call of the model, with answers or errors.

        ``queue_seconds`` holds for each of them how long it waited; ``rows`` is about how many rows they had together;
        ``stages`` are the seconds of decode, predict and encode, empty where all ended in errors; ``seconds`` is what
        the worker took for it all.
        """

    def call_retried(self) -> None:
        """A call whose worker died is tried again."""

    def call_cancelled(self, *, running: bool) -> None:
        """A call is given up because its client left: in the queue, or while a worker was at it."""

    def worker_ready(self, worker: int, start_seconds: float, load_seconds: float) -> None:
        """A worker has loaded the model: seconds since it was started, and of these those of loading."""

    def worker_ended(self, worker: int, cause: str) -> None:
        """A worker has died, did not start, or is retired for a replacement. The end of the server is not told."""

    def worker_reported(self, worker: int, report: Mapping[str, Any], *, current: bool) -> None:
        """Metrics of the model's own code have come from a worker, in the form of ``backline_worker.metrics``, or not.

        ``current`` says that no other worker has taken its place.
        """


SILENT = Observer()
"""For whoever has nobody to tell."""
