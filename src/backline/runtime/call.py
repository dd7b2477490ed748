"""One request on its way through the dispatcher and a worker."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from typing import TYPE_CHECKING, Any, NamedTuple

from backline_worker.channel import Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from backline.observe.tracing import RequestTrace
    from backline.runtime.chats import ChatStream
    from backline.runtime.payload import Payload
    from backline.runtime.worker import Worker
    from backline_worker.types import Buffer


class CallState(enum.Enum):
    """Where a call is; changed by the dispatcher only."""

    NEW = "new"  # made, not yet submitted
    WAITING = "waiting"  # in the queue
    RUNNING = "running"  # a worker has it
    ABANDONED = "abandoned"  # a worker has it, and nobody waits for the answer any more
    DONE = "done"  # answered, or given up; its payload is released


@dataclasses.dataclass(frozen=True, slots=True)
class Reply:
    """A worker's complete answer. ``seconds`` maps the stages decode, predict and encode to their durations."""

    content_type: str
    body: Buffer
    headers: dict[str, str]
    seconds: dict[str, float]
    header: dict[str, Any]


class BatchKey(NamedTuple):
    """What predictions that share a call of the model have in common: how they are read and answered."""

    part_type: str
    filename: str | None
    accept: str


def _ignore(_: dict[str, Any]) -> None:
    pass


class Call:
    """A request with its payload, its deadline and the future of its reply.

    Resource handling: the dispatcher takes the payload over on ``submit`` and closes it when the call has left both the
    queue and the worker; the caller only awaits ``future``.
    """

    __slots__ = (
        "abandon_timer",
        "alone",
        "batch_key",
        "client",
        "deadline",
        "decode_deaths",
        "future",
        "header",
        "id",
        "kills",
        "kind",
        "losses",
        "on_probation",
        "payload",
        "progress",
        "queued",
        "request_id",
        "retryable",
        "rows",
        "started",
        "state",
        "stream",
        "submitted",
        "trace",
        "worked_on_by",
        "worker",
    )

    def __init__(
        self,
        *,
        header: dict[str, Any],
        payload: Payload,
        request_id: str,
        deadline: float | None,
        retryable: bool,
        batch_key: BatchKey | None = None,
        kind: Kind = Kind.REQUEST,
        progress: Callable[[dict[str, Any]], None] = _ignore,
        client: tuple[str, int] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.kind = kind
        self.batch_key = batch_key  # calls with equal keys can share a call of the model; None: never
        self.client = client  # its address and port: one connection, as far as can be told
        self.on_probation = False  # see ``probation``; decided by the dispatcher
        self.rows = _count_rows(batch_key, payload)
        self.alone = False  # it was in a batch whose worker died: tried again, it must not take others with it
        self.id = 0  # given by the dispatcher
        self.header = header
        self.payload = payload
        self.request_id = request_id
        self.deadline = deadline  # in the loop's time
        self.retryable = retryable  # answering it twice does no harm
        self.state = CallState.NEW
        self.future: asyncio.Future[Reply] = (loop or asyncio.get_running_loop()).create_future()
        self.stream: ChatStream | None = None  # of a chat that is answered by one
        self.abandon_timer: asyncio.TimerHandle | None = None
        self.kills = 0
        self.losses = 0  # workers that died with it, and had not begun
        self.decode_deaths = 0
        self.submitted = 0.0  # in the loop's time, which may stand still for a turn of the loop
        self.queued = 0.0  # the same in time.monotonic, which does not
        self.started = 0.0  # when a worker was given it last, in time.monotonic
        self.worked_on_by: int | None = None  # the number of that worker
        self.trace: RequestTrace | None = None  # its request's span, where requests are traced
        self.worker: Worker | None = None
        self.progress = progress


def _count_rows(key: BatchKey | None, payload: Payload) -> int:
    """Return about how many rows a call has: lines where that is what rows are, else one."""
    if key is None or payload.data is None or "csv" not in key.part_type:
        return 1
    return max(1, payload.data.count(b"\n") - 1)
