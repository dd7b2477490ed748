"""Hands waiting calls to free workers; the one place where a call changes its state.

::

    NEW ──submit──▶ WAITING ──free worker──▶ RUNNING ──answer──▶ DONE
                     │   ▲                     │  │
                     │   └── worker died, once ┘  ├── deadline, client gone ──▶ ABANDONED ──▶ DONE
                     └────── deadline, client gone, refused ──────────────────────────────▶ DONE

A call is answered at most once, because its future is; and always, because every way out of RUNNING resolves it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

from backline.errors import DeadlineExceeded, PoisonRequest, QueueFull, WorkerDied, WorkerReported
from backline.observe.observer import SILENT
from backline.runtime.batching import MergeWindow
from backline.runtime.call import Call, CallState, Reply
from backline.runtime.call_queue import CallQueue
from backline.runtime.chats import Chats
from backline.runtime.deadlines import Deadlines
from backline.runtime.pace import Pace
from backline.runtime.poison import PoisonList
from backline.runtime.probation import Probation

if TYPE_CHECKING:
    from collections.abc import Callable

    from backline.config.settings import BatchSettings, LimitSettings, WorkerSettings
    from backline.observe.observer import Observer
    from backline.runtime.worker import Results, Worker

logger = logging.getLogger("backline.runtime")

_KILLS_TO_POISON = 2
_CAUTION = 1.5  # times the expected wait must fit before a deadline: what is taken on is to be answered in time
_LOOK_FOR_ANSWERS = 0.001  # seconds between two looks in one round of the event loop
_LOOK_AGAIN = 1.0  # seconds until a worker that could not be killed yet is looked at again
_ALWAYS_MAY_WAIT = 32  # requests, however long that takes: a slow model with a few clients refuses none of them
_MOST_OF_ONE = 3 / 4  # of the room in the queue, for one address
_MAX_LOSSES = 5  # workers that may die with a call before they begin with it: it may be what kills them, all the same


class Dispatcher:
    """The queue in front of the workers.

    ``on_out_of_memory`` is called with a worker whose call hit the memory limit, so that it can be replaced.
    """

    def __init__(
        self,
        limits: LimitSettings,
        workers: WorkerSettings,
        batch: BatchSettings,
        *,
        on_out_of_memory: Callable[[Worker], None],
        keep_alive: float,
        observer: Observer = SILENT,
    ) -> None:
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._batch = batch
        self._batching = False  # until a model says that its rows are independent, or the operator does
        self._window = MergeWindow()
        self._pace = Pace(batch.max_rows)
        self._serving: set[Worker] = set()
        self._looked = 0.0
        self._tick: asyncio.TimerHandle | None = None
        self._timeout_grace = workers.timeout_grace
        self._cancel_grace = workers.cancel_grace
        self._on_out_of_memory = on_out_of_memory
        self._deadlines = Deadlines[Call](self._loop, self._deadline_passed)
        self._queue = CallQueue()
        self._bytes = 0
        self._free: list[Worker] = []  # a stack: the worker that worked last has the warmest caches
        self._ids = 0
        self._failure: Exception | None = None  # set when no worker will come
        self._probation = Probation()
        self._probation_timer: asyncio.TimerHandle | None = None
        self.poison = PoisonList(limits.poison_time)
        self.chats = Chats(
            limits, workers, admission=self, replace=on_out_of_memory, keep_alive=keep_alive, observer=observer
        )

    @property
    def waiting(self) -> int:
        """How many calls wait for a worker."""
        return self._queue.waiting

    @property
    def bytes_in_flight(self) -> int:
        """How many bytes of request bodies are held, waiting or running."""
        return self._bytes

    # --- from the API

    def submit(self, call: Call) -> None:
        """Queue a call; its ``future`` gets a ``Reply`` or one of the errors of ``backline.errors``.

        Raises ``RequestRefused`` subclasses when it is not taken; the payload is closed then, too.
        """
        try:
            self._check_room(call)
        except BaseException:
            call.state = CallState.DONE
            call.payload.close()
            raise
        call.id = self.next_id()
        self._bytes += call.payload.size
        call.submitted = self._loop.time()
        call.queued = time.monotonic()
        if call.deadline is not None:
            self._deadlines.add(call, call.deadline)
        if self._batching:
            self._window.arrived(call.submitted)
            call.on_probation = call.batch_key is not None and call.client in self._probation
        self._enqueue(call)
        self._pump()

    def cancel(self, call: Call) -> None:
        """Nobody waits for this call any more: drop it from the queue, or stop the work after the cancel grace."""
        if call.state is CallState.WAITING:
            self._observer.call_cancelled(running=False)
            self._leave_queue(call)
            self._close(call)
        elif call.state is CallState.RUNNING:
            self._observer.call_cancelled(running=True)
            self._abandon(call, self._cancel_grace, "its client left", cause="client_left", spare_others=True)
        if not call.future.done():
            call.future.cancel()

    def fail(self, error: Exception) -> None:
        """Answer everything that waits, or comes before a worker does, with this error."""
        self._failure = error
        for call in self._queue.drain():
            self._resolve(call, error)
            self._close(call)
        self.chats.fail(error)

    # --- from the supervisor

    def worker_ready(self, worker: Worker, *, rows_independent: bool) -> None:
        """A worker is free for its first call; ``rows_independent``: its model may be given several calls at once."""
        self._failure = None
        self._free = [other for other in self._free if other.is_free()]  # the retired are not told of otherwise
        worker.takes_batches = self._batch.mode == "on" or (self._batch.mode == "auto" and rows_independent)
        self._batching = worker.takes_batches
        self._free.append(worker)
        self._serving.add(worker)
        self.chats.worker_ready(worker)
        self._pump()

    def model_changed(self) -> None:
        """Forget what was learnt of the model: another one takes its place."""
        self._window = MergeWindow()
        self._pace = Pace(self._batch.max_rows)
        self.poison = PoisonList(self._limits.poison_time)

    def worker_gone(self, worker: Worker) -> None:
        """A worker dies or drains: it gets no call any more."""
        self.chats.worker_gone(worker)
        self._serving.discard(worker)
        if worker in self._free:
            self._free.remove(worker)

    # --- WorkerOwner

    def calls_finished(self, worker: Worker, results: Results, seconds: float) -> None:
        """See ``WorkerOwner``."""
        if any(isinstance(result, WorkerReported) and result.code == "out_of_memory" for _, result in results):
            self._on_out_of_memory(worker)
        if not results[0][0].on_probation:  # looking for the faults of those takes many calls, and others do not wait
            self._pace.observe(len(results), sum(call.rows for call, _ in results), seconds)
        if self._batching and results[0][0].batch_key is not None:
            self._learn_from(results, seconds)
        if worker.is_free():
            self._free.append(worker)
            self._pump()  # before the answers are written: the worker should not wait for that
        for call, result in results:
            if call.state is CallState.RUNNING:
                self._resolve(call, result)
            self._close(call)
        self._tell(worker, results, seconds)

    def _tell(self, worker: Worker, results: Results, seconds: float) -> None:
        """Tell the observer of a finished call, now that nobody waits for this."""
        started = worker.last_started
        rows = 0
        waited = []
        stages: dict[str, float] = {}
        for call, result in results:
            rows += call.rows
            waited.append(started - call.queued)
            if isinstance(result, Reply):
                stages = result.seconds
        self._observer.calls_answered(worker.number, waited, rows, stages, seconds)

    def _learn_from(self, results: Results, seconds: float) -> None:
        """Take into account how long a call took, and whose requests could not be answered."""
        now = self._loop.time()
        faults = False
        for call, result in results:
            failed = isinstance(result, WorkerReported)
            faults |= failed
            self._probation.judge(call.client, failed=failed)
        if results[0][0].on_probation:
            self._probation.ran(now, seconds)
            return
        self._probation.others_ran()
        if not faults:  # looking for them takes many calls
            rows = sum(call.rows for call, _ in results)
            self._window.finished(now, answered=len(results), waiting=self.waiting, rows=rows, seconds=seconds)

    def worker_reported(self, worker: Worker, report: dict[str, Any]) -> None:
        """See ``WorkerOwner``."""
        self._observer.worker_reported(worker.number, report, current=not worker.retiring)

    def calls_lost(self, worker: Worker, calls: list[Call], stage: str) -> None:
        """See ``WorkerOwner``."""
        self.worker_gone(worker)
        reason = worker.death_reason or "unknown"
        running = [call for call in calls if call.state is CallState.RUNNING]
        for call in calls:
            if call.state is not CallState.RUNNING:
                self._close(call)
        if not running:
            return
        logger.warning(
            "worker %d died with %d request%s in hand (%s, at stage %s)",
            worker.number,
            len(running),
            "" if len(running) == 1 else "s",
            reason,
            stage,
            extra={"worker": worker.number, "request_id": running[0].request_id},
        )
        for call in reversed(running):  # each goes to the head of the queue
            if call.trace is not None:
                call.trace.event("worker died", {"backline.worker": worker.number, "backline.stage": stage})
            if len(calls) > 1:
                # Whose fault it was is found by trying each alone.
                call.alone = True
                self._observer.call_retried()
                self._enqueue(call, first=True)
            else:
                self._lose(call, reason, "idle" if worker.innocent and call.retryable else stage)
        self._pump()

    def _lose(self, call: Call, reason: str, stage: str) -> None:
        """Try a call again whose worker has died on it, or give it up."""
        if stage == "idle":  # as good as new, even where it must not be done twice
            call.losses += 1
            again = call.losses < _MAX_LOSSES
        else:
            call.kills += 1
            call.decode_deaths += stage == "decode"
            again = call.kills < _KILLS_TO_POISON and call.retryable
        if again:
            self._observer.call_retried()
            self._enqueue(call, first=True)
            return
        if call.kills >= _KILLS_TO_POISON:
            with contextlib.suppress(OSError):  # its file is gone: who is like it cannot be told
                self.poison.add(call.payload.digest())
        self._resolve(call, _died(call, reason))
        self._close(call)

    # --- Admission of chats

    def admit(self, call: Call) -> None:
        """See ``Admission``."""
        self._check_open()
        self._check_content(call)
        self._bytes += call.payload.size

    def release(self, call: Call) -> None:
        """See ``Admission``."""
        self._bytes -= call.payload.size

    # --- inside

    def next_id(self) -> int:
        """Return the next id of a call: one for each, of any kind."""
        self._ids += 1
        return self._ids

    def check_room(self, deadline: float | None, client: tuple[str, int] | None = None) -> None:
        """Refuse what would wait too long, or come too late, as things stand; asked before a body is read, too.

        A client, told by its address, that most of what waits has come from leaves a quarter of the room to others:
        so there is always some for those who ask for little. ``deadline`` in the loop's time. Raises ``QueueFull``, or
        what keeps the model from answering at all.
        """
        self._check_open()
        if self._has_free_worker():
            return
        self._look_for_answers()
        waiting = self.waiting
        share = _MOST_OF_ONE if waiting >= _ALWAYS_MAY_WAIT and self._queue.is_mostly_of(client) else 1.0
        if waiting >= share * self._limits.queue:
            wait = self._pace.wait(waiting, len(self._serving), batching=self._batching)
            raise QueueFull(
                f"{waiting} requests wait already, as many as --queue allows; come back later",
                retry_after=max(1.0, wait / 2),
            )
        wait = self._pace.wait(waiting, len(self._serving), batching=self._batching)
        longest = self._limits.max_wait
        if longest and wait > share * longest and waiting >= _ALWAYS_MAY_WAIT:
            raise QueueFull(
                f"{waiting} requests wait already, so that this one would wait for about {wait:.1f} s; at most "
                f"{longest:g} s are allowed (--max-wait); come back later",
                retry_after=max(1.0, wait / 2),
            )
        if deadline is not None and waiting:
            left = deadline - self._loop.time()
            if _CAUTION * wait / share + self._pace.call > left:
                raise QueueFull(
                    f"{waiting} requests wait already, so that the answer would take about "
                    f"{wait + self._pace.call:.2f} s, too near to its deadline in {left:.2f} s; come back later",
                    retry_after=max(1.0, wait - left),
                )

    def _look_for_answers(self) -> None:
        """Keep the workers at work while a round of the event loop brings many requests."""
        now = time.monotonic()
        if now - self._looked >= _LOOK_FOR_ANSWERS:
            self._looked = now
            for worker in list(self._serving):
                if worker.calls:
                    worker.look_for_answer()

    def _check_room(self, call: Call) -> None:
        self.check_room(call.deadline, call.client)
        self._check_content(call)

    def _check_open(self) -> None:
        if self._failure is not None:
            raise self._failure.with_traceback(None)  # or it would keep the frames of every request that it refused

    def _check_content(self, call: Call) -> None:
        if self._bytes + call.payload.size > self._limits.max_bytes_in_flight:
            raise QueueFull(
                f"request bodies of {self._bytes} bytes are held already; with this one of {call.payload.size} they "
                f"would be over limits.max_bytes_in_flight ({self._limits.max_bytes_in_flight}); come back later",
                retry_after=1,
            )
        if self.poison and (left := self.poison.seconds_left(call.payload.digest())):
            raise PoisonRequest(
                f"a request with this very content crashed the model twice; it is refused for another {left:.0f} s",
                retry_after=left,
            )

    def _has_free_worker(self) -> bool:
        return any(worker.is_free() for worker in self._free)

    def _enqueue(self, call: Call, *, first: bool = False) -> None:
        call.state = CallState.WAITING
        self._queue.add(call, first=first)

    def _leave_queue(self, call: Call) -> None:
        call.state = CallState.DONE
        self._queue.give_up(call)

    def _pump(self) -> None:
        """Give waiting calls to free workers while there are both, and no reason to wait for more."""
        while self._queue.waiting and self._has_free_worker():
            probation = self._queue.on_probation > 0 and self._loop.time() >= self._probation.next_call
            if not probation:
                if self._queue.waiting == self._queue.on_probation:
                    if self._probation_timer is None:
                        self._probation_timer = self._loop.call_at(self._probation.next_call, self._probation_over)
                    return
                if self._batching and self._should_wait():
                    return
            worker = self._free.pop()
            if not worker.is_free():
                continue
            # By the worker: while one model takes the place of another, both work.
            calls = self._queue.take(self._batch if worker.takes_batches else None, probation=probation)
            if self._queue.waiting:
                calls = self._without_hopeless(calls)
                if not calls:
                    self._free.append(worker)
                    continue
            for call in calls:
                call.state = CallState.RUNNING
                call.worker = worker
            worker.start(calls)

    def _without_hopeless(self, calls: list[Call]) -> list[Call]:
        """Give up those whose deadline comes before the model can have answered: others wait, who can be helped."""
        soonest = self._loop.time() + self._pace.call
        kept = []
        for call in calls:
            if call.deadline is None or call.deadline > soonest:
                kept.append(call)
                continue
            text = "the request waited so long for a worker that its deadline would pass while the model works on it"
            self._resolve(call, DeadlineExceeded(text, in_queue=True))
            self._close(call)
        return kept

    def _probation_over(self) -> None:
        self._probation_timer = None
        self._pump()

    def _should_wait(self) -> bool:
        """Say whether a free worker is to wait for more calls; makes sure that this is asked again in time."""
        now = self._loop.time()
        wait = 0.0
        if self._batch.delay:
            wait = self._queue.first().submitted + self._batch.delay - now
        if wait <= 0 and self._window.is_open(now, self._queue.waiting):
            wait = self._window.TICK
        if wait <= 0:
            return False
        if self._tick is None:
            self._tick = self._loop.call_later(wait, self._tick_passed)
        return True

    def _tick_passed(self) -> None:
        self._tick = None
        self._pump()

    def _deadline_passed(self, call: Call) -> None:
        if call.state is CallState.WAITING:
            self._leave_queue(call)
            self._resolve(
                call, DeadlineExceeded("the deadline passed while the request waited for a worker", in_queue=True)
            )
            self._close(call)
        elif call.state is CallState.RUNNING:
            self._resolve(
                call,
                DeadlineExceeded("the deadline passed before the model answered; the work is stopped", in_queue=False),
            )
            self._abandon(call, self._timeout_grace, "its request ran over the deadline", cause="deadline")

    def _abandon(self, call: Call, grace: float, reason: str, *, cause: str, spare_others: bool = False) -> None:
        """Give a running call up; ``spare_others``: not at the cost of those in its batch that are still waited for."""
        call.state = CallState.ABANDONED
        worker = call.worker
        assert worker is not None

        def kill() -> None:
            if call not in worker.calls:
                return
            if spare_others and any(other.state is CallState.RUNNING for other in worker.calls):
                return  # the last of them to be given up comes here again
            if worker.has_running_chat():
                # They are not to pay for it: another worker takes over, and this one lasts as long as its chats.
                self._on_out_of_memory(worker)
                call.abandon_timer = self._loop.call_later(_LOOK_AGAIN, kill)
                return
            worker.kill(reason, cause=cause)

        call.abandon_timer = self._loop.call_later(grace, kill)

    def _resolve(self, call: Call, result: Reply | Exception) -> None:
        if call.future.done():
            return
        if isinstance(result, Reply):
            call.future.set_result(result)
        else:
            call.future.set_exception(result)

    def _close(self, call: Call) -> None:
        call.state = CallState.DONE
        call.worker = None
        if call.deadline is not None:
            self._deadlines.discard(call)
        if call.abandon_timer is not None:
            call.abandon_timer.cancel()
        self._bytes -= call.payload.size
        call.payload.close()


def _died(call: Call, reason: str) -> WorkerDied:
    if call.decode_deaths == call.kills == _KILLS_TO_POISON:
        return WorkerDied(
            f"the body crashes its decoder ({reason}, twice); it is damaged or made to do harm", while_decoding=True
        )
    if call.losses >= _MAX_LOSSES:
        return WorkerDied(f"{call.losses} workers died before they could begin with this request ({reason})")
    times = "twice, on two workers" if call.kills >= _KILLS_TO_POISON else "once, and it cannot be tried again safely"
    return WorkerDied(
        f"the model's process died on this request ({reason}), {times}; the server's log has its last output"
    )
