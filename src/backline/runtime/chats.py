"""Chats in front of the workers: who answers which, and how long that may take.

A worker answers many chats at a time, beside the one prediction (or batch) that it works on. A chat is answered by one
reply, or by a stream of pieces that come as the model says them::

    submit ──▶ WAITING ──least loaded worker──▶ RUNNING ──reply, or the stream's end──▶ DONE
                                                   └── deadline, client gone ──▶ ABANDONED ──▶ DONE

A chat is never asked twice once a worker has begun with it, as it may have cost money or sent messages.
"""

from __future__ import annotations

import asyncio
import collections
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, cast

from backline.errors import DeadlineExceeded, QueueFull, WorkerDied, WorkerReported
from backline.observe.observer import SILENT
from backline.runtime.call import Call, CallState, Reply
from backline.runtime.deadlines import Deadlines
from backline_worker.channel import STREAM_WINDOW

if TYPE_CHECKING:
    from backline.config.settings import LimitSettings, WorkerSettings
    from backline.observe.observer import Observer
    from backline.runtime.worker import Worker

logger = logging.getLogger("backline.runtime")

_MAX_LOSSES = 5  # workers that may die with a chat before they begin with it
_DELIVERED_AT_ONCE = 2  # streams in one turn of the event loop
_LOOK_AGAIN = 1.0  # seconds until a worker that could not be killed is looked at again


class ChatStream:
    """The pieces of one streamed answer, between the worker and the client. One task reads, by ``read``."""

    __slots__ = ("_error", "_grant", "_loop", "_pieces", "_quiet", "_read", "_take", "_waiter", "content_type", "ended")

    def __init__(self, content_type: str, grant: Callable[[int], None], loop: asyncio.AbstractEventLoop) -> None:
        """``grant`` tells the worker how many more bytes have been taken."""
        self.content_type = content_type
        self.ended = False
        """Whether nothing more will come than what can be read at once."""
        self._grant = grant
        self._loop = loop
        self._pieces: list[bytes] = []
        self._quiet = False
        self._read = 0  # bytes that were read since the worker was told
        self._error: Exception | None = None
        self._waiter: asyncio.Future[bool] | None = None
        self._take: Callable[[bytes], bool] | None = None

    def offer_to(self, take: Callable[[bytes], bool]) -> None:
        """From now on offer what comes while ``read`` waits to ``take`` first, which saves waking a task for it.

        ``take`` returns whether it has taken it; what it has not is for ``read``. It raises nothing.
        """
        self._take = take

    async def read(self) -> bytes:
        """Return all that has come since the last time, or wait for it; ``b""`` at the end, or after a silence.

        Where ``ended`` is true there is no more than ``rest``; ``check`` then tells whether it was all.
        """
        self._tell_taken()
        if not self._pieces and not self.ended:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data = self.rest()
        self._read += len(data)
        return data

    def rest(self) -> bytes:
        """Return what has come since the last time, without waiting."""
        data = self._joined()
        self._pieces.clear()
        return data

    def check(self) -> None:
        """Raise the error that the stream ended with, if any."""
        if self._error is not None:
            raise self._error

    def tick(self) -> None:
        """Let who waits for the next piece return with nothing, if none has come since the last tick."""
        if self._quiet:
            self._wake()
        self._quiet = True

    def feed(self, data: bytes) -> None:
        """Take a piece; from the worker. It goes on when it is read, or with ``deliver``."""
        self._quiet = False
        if not self.ended and data:
            self._pieces.append(data)

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to be read or delivered."""
        return not self._pieces

    def deliver(self) -> None:
        """Offer what has been fed, or wake who reads."""
        if not self._pieces:
            return
        data = self._joined()
        if self._take is not None and self._waiter is not None and self._take(data):
            self._pieces.clear()
            self._read += len(data)
            self._tell_taken()
        else:
            self._wake()

    def end(self, error: Exception | None = None) -> None:
        """Nothing more comes; ``error`` says why, where it is not all."""
        if not self.ended:
            self.ended = True
            self._error = error
            self._take = None
            self._wake()

    def _joined(self) -> bytes:
        return self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)

    def _tell_taken(self) -> None:
        if self._read >= STREAM_WINDOW // 2 and not self.ended:
            self._grant(self._read)
            self._read = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)


class Admission(Protocol):
    """What chats have in common with all other calls: the bodies that are held, whether any are taken at all, ids."""

    def admit(self, call: Call) -> None:
        """Count a call in. Raises ``RequestRefused`` subclasses, or the error that the model has failed with."""

    def release(self, call: Call) -> None:
        """Count a call out that was admitted."""

    def next_id(self) -> int:
        """Return an id that no call has had, above all of them."""


class Chats:
    """The chats of one model: those that wait, and those that the workers have.

    ``replace`` is called with a worker that should be replaced: a chat ran into its memory limit. ``keep_alive``: after
    how many seconds of silence a stream is read as ``b""``; 0: never.
    """

    def __init__(
        self,
        limits: LimitSettings,
        workers: WorkerSettings,
        *,
        admission: Admission,
        replace: Callable[[Worker], None],
        keep_alive: float,
        observer: Observer = SILENT,
    ) -> None:
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._settings = workers
        self._admission = admission
        self._replace = replace
        self._keep_alive = keep_alive
        self._waiting: dict[Call, None] = {}  # in order
        self._workers: list[Worker] = []
        self._deadlines = Deadlines[Call](self._loop, self._deadline_passed)
        self._streams: set[ChatStream] = set()
        self._fed: collections.deque[ChatStream] = collections.deque()  # those with something to deliver
        self._delivery: asyncio.Handle | None = None  # of those that had to wait for their turn
        self._ticker: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many chats wait for a worker."""
        return len(self._waiting)

    @property
    def open(self) -> int:
        """How many chats the workers have, those included that nobody waits for any more."""
        return sum(len(worker.chats) for worker in self._workers)

    @property
    def idle(self) -> bool:
        """Whether every accepted chat is answered to its end."""
        return not self._waiting and not any(worker.has_running_chat() for worker in self._workers)

    # --- from the API

    def submit(self, call: Call) -> None:
        """Queue a chat; its ``future`` gets a ``Reply``, a ``ChatStream``, or one of the errors of ``backline.errors``.

        Raises ``RequestRefused`` subclasses when it is not taken; the payload is closed then, too. Whoever submits a
        chat calls ``cancel`` when it is done with it, however it ended.
        """
        try:
            self._admission.admit(call)
            self._check_room(call)
        except BaseException:
            call.state = CallState.DONE
            call.payload.close()
            raise
        call.submitted = self._loop.time()
        call.queued = time.monotonic()
        if call.deadline is not None:
            self._deadlines.add(call, call.deadline)
        self._wait(call)
        self._pump()

    def cancel(self, call: Call) -> None:
        """Nobody waits for this chat any more: drop it from the queue, or stop the hook. Nothing, once it is over."""
        if call.state is CallState.WAITING:
            self._observer.call_cancelled(running=False)
            del self._waiting[call]
            self._close(call)
        elif call.state is CallState.RUNNING:
            self._observer.call_cancelled(running=True)
            self._abandon(call, self._settings.cancel_grace, "its client left", cause="client_left")
        if not call.future.done():
            call.future.cancel()
        elif call.stream is not None:
            call.stream.end()

    def fail(self, error: Exception) -> None:
        """Answer everything that waits with this error."""
        for call in list(self._waiting):
            self._resolve(call, error)
            self._close(call)
        self._waiting.clear()

    # --- from the dispatcher

    def worker_ready(self, worker: Worker) -> None:
        """A worker can be given chats."""
        self._workers = [other for other in self._workers if other.takes_chats() or other.chats]
        self._workers.append(worker)
        self._pump()

    def worker_gone(self, worker: Worker) -> None:
        """A worker is dead or about to be."""
        if worker in self._workers and not worker.chats:
            self._workers.remove(worker)

    def started(self, call: Call, stream: ChatStream) -> None:
        """A stream has begun."""
        if call.state is not CallState.RUNNING:
            return
        call.stream = stream
        if call.deadline is not None:
            self._deadlines.discard(call)
            call.deadline = None
        if self._settings.stream_timeout:
            call.deadline = call.submitted + self._settings.stream_timeout
            self._deadlines.add(call, call.deadline)
        self._streams.add(stream)
        if self._ticker is None and self._keep_alive:
            self._ticker = self._loop.call_later(self._keep_alive / 2, self._tick)
        self._resolve(call, stream)

    def piece_came(self, stream: ChatStream, data: bytes) -> None:
        """A worker has sent a piece; ``deliver`` is called when all that came with it has been looked at."""
        if stream.is_empty:
            self._fed.append(stream)
        stream.feed(data)

    def deliver(self) -> None:
        """Hand on what the streams have been fed, of a few at a time.

        The pieces of many streams may come together. Between them the loop turns, so that a probe or a prediction that
        comes meanwhile waits for a few of them and not for all.
        """
        if self._delivery is None and self._fed:
            self._deliver_some()

    def _deliver_some(self) -> None:
        self._delivery = None
        for _ in range(min(_DELIVERED_AT_ONCE, len(self._fed))):
            self._fed.popleft().deliver()
        if self._fed:
            self._delivery = self._loop.call_soon(self._deliver_some)

    def finished(self, worker: Worker, call: Call, result: Reply | WorkerReported | None) -> None:
        """A chat is over; ``None``: its stream has ended."""
        if isinstance(result, WorkerReported) and result.code == "out_of_memory":
            self._replace(worker)
        if call.state is CallState.RUNNING:
            # No busy time: chats run beside each other, and most of the time they wait for somebody else.
            stages = result.seconds if isinstance(result, Reply) else {}
            self._observer.calls_answered(worker.number, [call.started - call.queued], 1, stages, 0.0)
        self._end(call, result)
        self._pump()

    def lost(self, worker: Worker, calls: list[Call], last_begun: int) -> None:
        """The worker is dead, and these chats were in its hands; it had begun with those up to ``last_begun``."""
        if worker in self._workers:
            self._workers.remove(worker)
        reason = worker.death_reason or "unknown"
        running = [call for call in calls if call.state is CallState.RUNNING]
        if running:
            logger.warning(
                "worker %d died with %d open chat%s (%s)",
                worker.number,
                len(running),
                "" if len(running) == 1 else "s",
                reason,
                extra={"worker": worker.number, "request_id": running[0].request_id},
            )
        for call in calls:
            if call.state is CallState.RUNNING and call.id > last_begun and call.losses + 1 < _MAX_LOSSES:
                call.losses += 1
                call.worker = None
                self._observer.call_retried()
                self._wait(call, first=True)
            else:
                self._end(
                    call,
                    WorkerDied(
                        f"the model's process died on this chat ({reason}); it is not asked again, as that might do "
                        "things twice; the server's log has its last output"
                    ),
                )
        self._pump()

    # --- inside

    def _check_room(self, call: Call) -> None:
        if len(self._waiting) >= self._limits.queue and self._least_loaded() is None:
            self._admission.release(call)
            raise QueueFull(
                f"{len(self._waiting)} chats wait already, as many as --queue allows; come back later", retry_after=1
            )

    def _wait(self, call: Call, *, first: bool = False) -> None:
        call.state = CallState.WAITING
        if first:
            self._waiting = {call: None, **self._waiting}
        else:
            self._waiting[call] = None

    def _tick(self) -> None:
        """Look for streams that are silent."""
        for stream in self._streams:
            stream.tick()
        self._ticker = self._loop.call_later(self._keep_alive / 2, self._tick) if self._streams else None

    def _pump(self) -> None:
        while self._waiting and (worker := self._least_loaded()) is not None:
            call = next(iter(self._waiting))
            del self._waiting[call]
            call.id = self._admission.next_id()
            call.state = CallState.RUNNING
            call.worker = worker
            worker.start_chat(call)

    def _least_loaded(self) -> Worker | None:
        able = [worker for worker in self._workers if worker.takes_chats()]
        # One that predicts shares its interpreter with the chats: of two alike the other one is better.
        return min(able, key=lambda worker: (len(worker.chats), len(worker.calls)), default=None)

    def _deadline_passed(self, call: Call) -> None:
        if call.state is CallState.WAITING:
            del self._waiting[call]
            error = DeadlineExceeded("the deadline passed while the request waited for a worker", in_queue=True)
            self._resolve(call, error)
            self._close(call)
        elif call.state is CallState.RUNNING:
            if call.stream is None:
                text = "the deadline passed before the model answered; the work is stopped"
            else:
                text = f"the stream took over {self._settings.stream_timeout:g} s (--stream-timeout); it is stopped"
            error = DeadlineExceeded(text, in_queue=False)
            self._abandon(call, self._settings.timeout_grace, "its request ran over the deadline", cause="deadline")
            self._resolve(call, error)

    def _abandon(self, call: Call, grace: float, reason: str, *, cause: str) -> None:
        """Stop a running chat. Where the hook does not stop, its worker is killed once nothing else is open on it."""
        call.state = CallState.ABANDONED
        worker = call.worker
        assert worker is not None
        worker.cancel_chat(call)

        def kill() -> None:
            if call.state is not CallState.ABANDONED:
                return
            if worker.has_running_chat() or worker.has_running_call():
                call.abandon_timer = self._loop.call_later(_LOOK_AGAIN, kill)
            else:
                worker.kill(reason, cause=cause)

        call.abandon_timer = self._loop.call_later(grace, kill)

    def _end(self, call: Call, result: Reply | Exception | None) -> None:
        if call.state is CallState.RUNNING:
            if result is not None:
                self._resolve(call, result)
            elif call.stream is not None:
                call.stream.end()
        self._close(call)

    def _resolve(self, call: Call, result: Reply | ChatStream | Exception) -> None:
        if not call.future.done():
            if isinstance(result, Exception):
                call.future.set_exception(result)
            else:
                cast("asyncio.Future[Reply | ChatStream]", call.future).set_result(result)
        elif call.stream is not None and isinstance(result, Exception):
            call.stream.end(result)

    def _close(self, call: Call) -> None:
        call.state = CallState.DONE
        call.worker = None
        if call.deadline is not None:
            self._deadlines.discard(call)
        if call.abandon_timer is not None:
            call.abandon_timer.cancel()
        if call.stream is not None:
            self._streams.discard(call.stream)
        self._admission.release(call)
        call.payload.close()
