"""Every metric of the server's own: the one table that counting, exposition and the reference page are made from."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]

SECONDS: Final = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0,
)  # fmt: skip
_START_SECONDS: Final = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_REQUESTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)
_ROWS: Final = (*_REQUESTS, 512.0, 1024.0, 2048.0, 4096.0, 16384.0, 65536.0)


@dataclasses.dataclass(frozen=True, slots=True)
class Family:
    """One metric. ``labels`` come after ``model``, which all have that are about the model."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    of_model: bool = True


REQUESTS = Family(
    "backline_requests_total",
    "counter",
    "Requests answered, by route template, method and status; status 499: the client left before the answer.",
    ("route", "method", "status"),
)
REQUEST_SECONDS = Family(
    "backline_request_seconds", "histogram", "From a request's arrival to the end of its answer.", ("route",), SECONDS
)
STAGE_SECONDS = Family(
    "backline_stage_seconds",
    "histogram",
    "What one request waited for each stage: queue, then the worker's decode, predict and encode. Requests that share "
    "a call of the model all wait for the whole of it.",
    ("stage",),
    SECONDS,
)
BATCH_REQUESTS = Family(
    "backline_batch_requests", "histogram", "Requests that shared one call of the model.", (), _REQUESTS
)
BATCH_ROWS = Family(
    "backline_batch_rows",
    "histogram",
    "Rows of one call of the model; bodies other than CSV count as one row each.",
    (),
    _ROWS,
)
IN_FLIGHT = Family("backline_requests_in_flight", "gauge", "Requests that have come and are not over.")
QUEUE = Family("backline_queue_requests", "gauge", "Requests that wait for a worker.")
QUEUE_LIMIT = Family("backline_queue_limit_requests", "gauge", "How many requests may wait (--queue).")
HELD = Family("backline_held_bytes", "gauge", "Bytes of request bodies held, waiting or with a worker.")
HELD_LIMIT = Family("backline_held_limit_bytes", "gauge", "How many may be held (limits.max_bytes_in_flight).")
ERRORS = Family(
    "backline_errors_total",
    "counter",
    "Requests answered with an error, or cut off with one, by its code; docs/reference/errors.md has the codes.",
    ("code",),
)
REJECTIONS = Family(
    "backline_rejections_total", "counter", "Requests refused before any work was done, by the reason.", ("reason",)
)
DEADLINES = Family(
    "backline_deadlines_exceeded_total",
    "counter",
    "Requests answered 504 because their deadline passed: before a worker had them (queue), or after (worker).",
    ("where",),
)
RETRIES = Family("backline_retries_total", "counter", "Calls tried again because their worker died.")
CANCELLATIONS = Family(
    "backline_cancellations_total",
    "counter",
    "Calls given up because the client left: in the queue, or while a worker was at it (worker).",
    ("where",),
)
STREAMS_OPEN = Family("backline_streams_open", "gauge", "Streamed answers under way.", ("route",))
FIRST_CHUNK_SECONDS = Family(
    "backline_stream_first_chunk_seconds",
    "histogram",
    "From a request's arrival to the first chunk of its streamed answer.",
    ("route",),
    SECONDS,
)
CHUNK_GAP_SECONDS = Family(
    "backline_stream_chunk_gap_seconds",
    "histogram",
    "Between two chunks of a streamed answer; chunks that come together count as one.",
    ("route",),
    SECONDS,
)
TOKENS = Family(
    "backline_tokens_total",
    "counter",
    "Tokens, where an answer's usage tells them: of the input and of the output.",
    ("route", "direction"),
)
MODEL_STATE = Family(
    "backline_model_state", "gauge", "1 for the state that the model is in, 0 for the others.", ("state",)
)
WORKERS = Family("backline_workers", "gauge", "Workers by state.", ("state",))
WORKERS_CONFIGURED = Family("backline_workers_configured", "gauge", "How many workers there should be (--workers).")
RESTARTS = Family(
    "backline_worker_restarts_total",
    "counter",
    "Workers that died, did not start or were replaced, by cause; the end of the server does not count.",
    ("cause",),
)
START_SECONDS = Family(
    "backline_worker_start_seconds", "histogram", "From a worker's start to its readiness.", (), _START_SECONDS
)
LOAD_SECONDS = Family(
    "backline_worker_load_seconds", "histogram", "What loading the model took in a worker.", (), _START_SECONDS
)
WORKER_REQUESTS = Family(
    "backline_worker_requests_total", "counter", "Requests that each place for a worker has answered.", ("worker",)
)
WORKER_CALLS = Family(
    "backline_worker_model_calls_total",
    "counter",
    "Calls of the model that answered them: fewer, where batches form.",
    ("worker",),
)
WORKER_BUSY = Family(
    "backline_worker_busy_seconds_total", "counter", "Time that workers have worked on requests.", ("worker",)
)
WORKER_RSS = Family(
    "backline_worker_resident_memory_bytes",
    "gauge",
    "Resident memory of each worker, shared pages counted whole.",
    ("worker",),
)
WORKER_PSS = Family(
    "backline_worker_proportional_memory_bytes",
    "gauge",
    "The same with each shared page counted by its share, so that a sum over workers is true.",
    ("worker",),
)
WORKER_CPU = Family(
    "backline_worker_cpu_seconds_total",
    "counter",
    "Processor time of each worker's process; starts anew with a new process.",
    ("worker",),
)
BACKEND_READY = Family(
    "backline_backend_ready", "gauge", "1 while the backend of --backend says that it is ready.", of_model=False
)
BACKEND_IN_FLIGHT = Family(
    "backline_backend_in_flight", "gauge", "Requests and WebSockets under way to the backend.", of_model=False
)
BACKEND_LIMIT = Family(
    "backline_backend_limit_in_flight", "gauge", "How many may be under way (--backend-connections).", of_model=False
)
SHADOW = Family(
    "backline_shadow_requests_total",
    "counter",
    "Requests mirrored to the shadow (--shadow): answered the same, differently, or not at all (failed); skipped, as "
    "the shadow fails all the time; dropped, as it was too slow; or not mirrored, as their bodies were too large.",
    ("outcome",),
)
USER_DROPPED = Family(
    "backline_user_metrics_dropped_total",
    "counter",
    "Metrics of the model's own code that were not taken: a name that is ours, a form unlike before, too many.",
    ("reason",),
)
INFO = Family(
    "backline_info",
    "gauge",
    "Always 1; the labels tell what is served, by which version.",
    ("version", "target_type", "predictor"),
)

FAMILIES: Final = (
    REQUESTS, REQUEST_SECONDS, STAGE_SECONDS, BATCH_REQUESTS, BATCH_ROWS, IN_FLIGHT, QUEUE, QUEUE_LIMIT, HELD,
    HELD_LIMIT, ERRORS, REJECTIONS, DEADLINES, RETRIES, CANCELLATIONS, STREAMS_OPEN, FIRST_CHUNK_SECONDS,
    CHUNK_GAP_SECONDS, TOKENS, MODEL_STATE, WORKERS, WORKERS_CONFIGURED, RESTARTS, START_SECONDS, LOAD_SECONDS,
    WORKER_REQUESTS, WORKER_CALLS, WORKER_BUSY, WORKER_RSS, WORKER_PSS, WORKER_CPU, BACKEND_READY, BACKEND_IN_FLIGHT,
    BACKEND_LIMIT, SHADOW, USER_DROPPED, INFO,
)  # fmt: skip
"""In the order of the page; what Python and the process tell of the server comes after them."""
