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
import collections
import logging
from typing import TYPE_CHECKING

from backline.errors import DeadlineExceeded, PoisonRequest, QueueFull, ServerDraining, WorkerDied, WorkerReported
from backline.runtime.call import Call, CallState, Reply
from backline.runtime.poison import PoisonList

if TYPE_CHECKING:
    from collections.abc import Callable

    from backline.config.settings import LimitSettings, WorkerSettings
    from backline.runtime.worker import Worker

logger = logging.getLogger("backline.runtime")

_KILLS_TO_POISON = 2


class Dispatcher:
    """The queue in front of the workers.

    ``on_out_of_memory`` is called with a worker whose call hit the memory limit, so that it can be replaced.
    """

    def __init__(
        self, limits: LimitSettings, workers: WorkerSettings, *, on_out_of_memory: Callable[[Worker], None]
    ) -> None:
        self._limits = limits
        self._timeout_grace = workers.timeout_grace
        self._cancel_grace = workers.cancel_grace
        self._on_out_of_memory = on_out_of_memory
        self._queue: collections.deque[Call] = collections.deque()
        self._waiting = 0  # calls in the queue that are still WAITING; those given up stay there until popped
        self._bytes = 0
        self._free: list[Worker] = []  # a stack: the worker that worked last has the warmest caches
        self._ids = 0
        self._draining = False
        self._failure: Exception | None = None  # set when no worker will come
        self.poison = PoisonList(limits.poison_time)

    @property
    def waiting(self) -> int:
        """How many calls wait for a worker."""
        return self._waiting

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
        self._ids += 1
        call.id = self._ids
        self._bytes += call.payload.size
        loop = asyncio.get_running_loop()
        call.submitted = loop.time()
        if call.deadline is not None:
            call.deadline_timer = loop.call_at(call.deadline, self._deadline_passed, call)
        self._enqueue(call, first=False)
        self._pump()

    def cancel(self, call: Call) -> None:
        """Nobody waits for this call any more: drop it from the queue, or stop the work after the cancel grace."""
        if call.state is CallState.WAITING:
            self._leave_queue(call)
            self._close(call)
        elif call.state is CallState.RUNNING:
            self._abandon(call, self._cancel_grace, "its client left")
        if not call.future.done():
            call.future.cancel()

    def drain(self) -> None:
        """Take no new calls; those that were taken are still answered."""
        self._draining = True

    def fail(self, error: Exception) -> None:
        """Answer everything that waits, or comes before a worker does, with this error."""
        self._failure = error
        while self._queue:
            call = self._queue.popleft()
            if call.state is CallState.WAITING:
                self._leave_queue(call)
                self._resolve(call, error)
                self._close(call)

    # --- from the supervisor

    def worker_ready(self, worker: Worker) -> None:
        """A worker is free for its first call."""
        self._failure = None
        self._free.append(worker)
        self._pump()

    def worker_gone(self, worker: Worker) -> None:
        """A worker dies or drains: it gets no call any more."""
        if worker in self._free:
            self._free.remove(worker)

    # --- WorkerOwner

    def call_finished(self, worker: Worker, call: Call, result: Reply | WorkerReported) -> None:
        """See ``WorkerOwner``."""
        out_of_memory = isinstance(result, WorkerReported) and result.code == "out_of_memory"
        if out_of_memory:
            self._on_out_of_memory(worker)
        if worker.is_free():
            self._free.append(worker)
            self._pump()  # before the answer is written: the worker should not wait for that
        if call.state is CallState.RUNNING:
            self._resolve(call, result)
        self._close(call)

    def call_lost(self, worker: Worker, call: Call) -> None:
        """See ``WorkerOwner``."""
        self.worker_gone(worker)
        if call.state is not CallState.RUNNING:
            self._close(call)
            return
        stage = worker.progress_of(call)
        if stage != "idle":
            call.kills += 1
            call.decode_deaths += stage == "decode"
        reason = worker.death_reason or "unknown"
        logger.warning(
            "worker %d died with a request in hand (%s, at stage %s)",
            worker.number,
            reason,
            stage,
            extra={"worker": worker.number, "request_id": call.request_id},
        )
        if call.kills < _KILLS_TO_POISON and call.retryable:
            self._enqueue(call, first=True)
            self._pump()
            return
        if call.kills >= _KILLS_TO_POISON:
            self.poison.add(call.payload.digest())
        self._resolve(call, _died(call, reason))
        self._close(call)

    # --- inside

    def _check_room(self, call: Call) -> None:
        if self._draining:
            raise ServerDraining("the server is shutting down; send the request to another one", retry_after=1)
        if self._failure is not None:
            raise self._failure
        if self._waiting >= self._limits.queue and not self._has_free_worker():
            raise QueueFull(
                f"{self._waiting} requests wait already, as many as --queue allows; come back later", retry_after=1
            )
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

    def _enqueue(self, call: Call, *, first: bool) -> None:
        call.state = CallState.WAITING
        self._waiting += 1
        if first:
            self._queue.appendleft(call)
        else:
            self._queue.append(call)

    def _leave_queue(self, call: Call) -> None:
        self._waiting -= 1
        call.state = CallState.DONE

    def _pump(self) -> None:
        """Give waiting calls to free workers while there are both."""
        while self._free and self._queue:
            call = self._queue.popleft()
            if call.state is not CallState.WAITING:
                continue
            worker = self._free.pop()
            if not worker.is_free():
                self._queue.appendleft(call)
                continue
            self._waiting -= 1
            call.state = CallState.RUNNING
            call.worker = worker
            worker.start_call(call)

    def _deadline_passed(self, call: Call) -> None:
        call.deadline_timer = None
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
            self._abandon(call, self._timeout_grace, "its request ran over the deadline")

    def _abandon(self, call: Call, grace: float, reason: str) -> None:
        call.state = CallState.ABANDONED
        worker = call.worker
        assert worker is not None

        def kill() -> None:
            if worker.call is call:
                worker.kill(reason)

        call.abandon_timer = asyncio.get_running_loop().call_later(grace, kill)

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
        for timer in (call.deadline_timer, call.abandon_timer):
            if timer is not None:
                timer.cancel()
        self._bytes -= call.payload.size
        call.payload.close()


def _died(call: Call, reason: str) -> WorkerDied:
    if call.decode_deaths == call.kills == _KILLS_TO_POISON:
        return WorkerDied(
            f"the body crashes its decoder ({reason}, twice); it is damaged or made to do harm", while_decoding=True
        )
    times = "twice, on two workers" if call.kills >= _KILLS_TO_POISON else "once, and it cannot be tried again safely"
    return WorkerDied(
        f"the model's process died on this request ({reason}), {times}; the server's log has its last output"
    )
