"""Keeps the wished number of workers alive: starts, replaces, gives up, stops.

Each slot is a task that runs one worker after another. A slot that loses its worker starts the next one at once, and
waits longer and longer when starts fail. When every slot has given up, the model is failed: the server stays up and
says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import logging
import time
from typing import TYPE_CHECKING, Any

from backline.errors import ConfigError, EnvironmentFailed, ModelLoadFailed, ModelLoading
from backline.observe.observer import SILENT
from backline.observe.worker_log import WorkerLog
from backline.runtime.call import CallState
from backline.runtime.environments.cache import BuildCancelled
from backline.runtime.load_gate import LoadGate
from backline.runtime.worker import LoadRefused, Ready, Worker, WorkerOwner, WorkerPlan, WorkerState

if TYPE_CHECKING:
    from backline.config.settings import WorkerSettings
    from backline.observe.observer import Observer
    from backline.runtime.dispatcher import Dispatcher
    from backline.runtime.environments.prepare import ModelPython
    from backline.runtime.launch import Launched

logger = logging.getLogger("backline.runtime")

_MAX_BACKOFF = 30.0  # seconds
_STABLE_TIME = 10.0  # seconds that a ready worker has to live for its slot to count as healthy again
_STOP_GRACE = 5.0


class ModelState(enum.Enum):
    """Whether the model can answer."""

    LOADING = "loading"  # no worker has been ready yet
    READY = "ready"  # at least one worker is
    RECOVERING = "recovering"  # it was ready; the workers died and new ones are loading: requests wait
    FAILED = "failed"  # given up; ``failure`` says why


class Supervisor:
    """Owns the workers of one model. ``run`` is its life; ``first_outcome`` tells when the first start is decided."""

    def __init__(
        self,
        plan: WorkerPlan,
        settings: WorkerSettings,
        dispatcher: Dispatcher,
        *,
        log_lines_per_second: int,
        launched: Launched | None = None,
        python: ModelPython | None = None,
        observer: Observer = SILENT,
    ) -> None:
        """``launched``: a process of this plan that has been started; it becomes that of the first worker.

        ``python`` gives the plan its interpreter, which may have to be built before the first worker starts.
        """
        self._plan = plan
        self._python = python
        self._launched = launched
        self.observer = observer
        self._settings = settings
        self._dispatcher = dispatcher
        self._log_rate = log_lines_per_second
        self._slots: list[_Slot] = []
        self.gate = LoadGate()
        self._was_ready = False
        self._stopping = False
        self._ended = asyncio.Event()
        self.failure: ModelLoadFailed | ConfigError | None = None
        self.model: Ready | None = None
        self.restarts = 0
        self.first_outcome: asyncio.Future[ModelState] = asyncio.get_running_loop().create_future()

    # --- asked by the API

    @property
    def python(self) -> str:
        """The interpreter of the workers, or what the setting says while it is not there."""
        return self._plan.python

    @property
    def state(self) -> ModelState:
        """The model's state, from the workers as they are now."""
        if any(slot.has_ready_worker() for slot in self._slots):
            return ModelState.READY
        if self.failure is not None:
            return ModelState.FAILED
        return ModelState.RECOVERING if self._was_ready else ModelState.LOADING

    def check_accepting(self) -> None:
        """Raise ``ModelLoadFailed`` or ``ModelLoading`` when a request would wait for nothing or for the first load."""
        if self._was_ready and (self.failure is None or self.state is ModelState.READY):
            return
        if self.failure is not None:
            raise self.failure.with_traceback(None)  # or it would keep the frames of every request that it refused
        if self._python is not None and self._python.doing:
            raise ModelLoading(f"the model's environment is being built: {self._python.doing}", retry_after=5)
        raise ModelLoading("the model is still loading; come back in a moment", retry_after=1)

    def has_running_call(self) -> bool:
        """Whether a worker works on a call that somebody waits for."""
        calls = (call for slot in self._slots if slot.worker is not None for call in slot.worker.calls)
        return any(call.state is CallState.RUNNING for call in calls)

    def workers(self) -> list[dict[str, Any]]:
        """Return what there is to know of each worker, for ``/stats/``."""
        return [worker for slot in self._slots for worker in slot.describe()]

    # --- life

    async def run(self) -> None:
        """Run all slots until ``stop``; cancelling kills the workers."""
        try:
            if self._python is not None and not await self._prepare(self._python):
                return
            self._slots = [_Slot(number, self) for number in range(1, self._settings.count + 1)]
            async with asyncio.TaskGroup() as group:
                for slot in self._slots:
                    group.create_task(slot.run())
        finally:
            self._ended.set()

    async def _prepare(self, python: ModelPython) -> bool:
        """Wait for the model's interpreter, which may have to be built; return whether it is there."""
        try:
            self._plan = dataclasses.replace(self._plan, python=await python.wait())
        except (ConfigError, EnvironmentFailed) as exc:
            self._fail(exc)
            return False
        except BuildCancelled:
            return False
        return not self._stopping

    def refuse(self, problem: ConfigError) -> None:
        """Fail for good without a single start, in place of ``run``: what a worker would need is not there."""
        self._fail(problem)
        self._ended.set()

    async def stop(self) -> None:
        """Stop every worker politely, then not; return when all are gone."""
        self._stopping = True
        if self._python is not None:
            self._python.cancel()
        self.gate.look_again()
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(slot.stop())
        await self._ended.wait()

    def replace(self, worker: Worker) -> None:
        """Retire a worker as soon as its replacement is ready; until then it goes on."""
        for slot in self._slots:
            if slot.worker is worker:
                slot.replace_requested.set()

    # --- from the slots

    def make_worker(self, number: int) -> Worker:
        """Build (not start) the worker of a slot."""

        def make_log(worker: Worker) -> WorkerLog:
            return WorkerLog(number, lines_per_second=self._log_rate, request_of=worker.recent.get)

        owner: WorkerOwner = self._dispatcher
        launched = None
        if self._launched is not None:
            launched, self._launched = self._launched.hand_over(), None
        return Worker(number, self._plan, owner, make_log, launched=launched)

    def count_serving(self) -> int:
        """Return how many workers have the model loaded."""
        return sum(slot.has_ready_worker() for slot in self._slots)

    def is_hopeless(self) -> bool:
        """Whether no further worker need try: the server stops, or the model has never loaded and is given up."""
        return self._stopping or (self.failure is not None and not self._was_ready)

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stopping

    @property
    def settings(self) -> WorkerSettings:
        """How many, how long, how often."""
        return self._settings

    @property
    def was_ready(self) -> bool:
        """Whether a worker has ever been ready."""
        return self._was_ready

    def worker_ready(self, worker: Worker, ready: Ready) -> None:
        """A worker has loaded the model."""
        self.model = ready
        self._was_ready = True
        self.failure = None
        self.observer.worker_ready(worker.number, time.monotonic() - worker.started_at, ready.load_seconds)
        logger.info("worker %d (pid %s) is ready after %.1f s", worker.number, worker.pid, ready.load_seconds)
        self._dispatcher.worker_ready(worker, rows_independent=ready.description["rows_independent"])
        if not self.first_outcome.done():
            self.first_outcome.set_result(ModelState.READY)

    def worker_lost(self, worker: Worker) -> None:
        """A worker that had been ready is dead."""
        self.restarts += 1
        self.observer.worker_ended(worker.number, worker.death_cause)
        self._dispatcher.worker_gone(worker)
        logger.warning("worker %d (pid %s) is gone: %s", worker.number, worker.pid, worker.death_reason)

    def slot_failed(self, slot: _Slot, error: ModelLoadFailed) -> None:
        """A slot has given up; the last one takes the model with it."""
        # The first outcome is told by whoever waits for it, and so is one reason that several workers share.
        known = not self._was_ready or (self.failure is not None and self.failure.message == error.message)
        logger.error("worker %d is given up%s", slot.number, "" if known else f": {error.message}")
        if all(other.given_up for other in self._slots) or not self._was_ready:
            self._fail(error)

    def _fail(self, error: ModelLoadFailed | ConfigError) -> None:
        self.failure = error
        self._dispatcher.fail(error)
        if not self.first_outcome.done():
            self.first_outcome.set_result(ModelState.FAILED)


class _Slot:
    """One place for a worker, and who comes next in it."""

    def __init__(self, number: int, supervisor: Supervisor) -> None:
        self.number = number
        self.worker: Worker | None = None  # the one that serves
        self.starting: Worker | None = None  # the one that loads: the first, or a replacement
        self.given_up = False
        self.replace_requested = asyncio.Event()
        self._life: asyncio.Task[None] | None = None
        self._supervisor = supervisor
        self._settings = supervisor.settings
        self._failures = 0
        self._stop_requested = asyncio.Event()

    def has_ready_worker(self) -> bool:
        return self.worker is not None and self.worker.state in (WorkerState.READY, WorkerState.BUSY)

    def describe(self) -> list[dict[str, Any]]:
        return [
            {
                "worker": self.number,
                "pid": worker.pid,
                "state": worker.state.value,
                "answered": worker.answered,
                "model_calls": worker.frames,
            }
            for worker in (self.worker, self.starting)
            if worker is not None and worker.state is not WorkerState.DEAD
        ]

    async def run(self) -> None:
        """Keep one worker alive until stopped or given up."""
        async with asyncio.TaskGroup() as group:
            while not self._supervisor.stopping:
                if not await self._enter_gate():
                    if self._life is not None and self._life.done():
                        await self._watch()  # the old worker died before there was room for its replacement
                        continue
                    self.given_up = True
                    return
                if await self._start(group):
                    await self._watch()
                elif self.has_ready_worker():
                    logger.error("worker %d could not be replaced; the old one goes on", self.number)
                    self._failures = 0
                    await self._watch()
                elif self._failures > self._settings.max_restarts or self.given_up:
                    return
                else:
                    await self._back_off()

    async def _enter_gate(self) -> bool:
        """Wait for the turn to load; return ``False`` when there is nothing to load or to replace any more."""
        supervisor = self._supervisor
        replacing = self.has_ready_worker()

        def given_up() -> bool:
            return supervisor.is_hopeless() or (replacing and not self.has_ready_worker())

        def pid() -> int | None:
            return None if self.starting is None else self.starting.pid

        return await supervisor.gate.enter(self.number, pid, serving=supervisor.count_serving, given_up=given_up)

    async def _start(self, group: asyncio.TaskGroup) -> bool:
        """Start a worker and put it in place of the present one when it is ready; return whether that worked."""
        worker = self.starting = self._supervisor.make_worker(self.number)
        life = group.create_task(worker.run())
        life.add_done_callback(lambda _: self._supervisor.gate.look_again())  # there is more memory
        loaded_pid = None
        try:
            async with asyncio.timeout(self._settings.start_timeout):
                ready = await asyncio.shield(worker.ready)
            loaded_pid = worker.pid
        except TimeoutError:
            worker.kill("it took longer than --start-timeout to load", cause="start_timeout")
            await life
            self._tell_failed_start(worker, "start_timeout")
            self._count_failure(
                ModelLoadFailed(
                    f"the model was not loaded within {self._settings.start_timeout:g} s; raise --start-timeout if it "
                    f"needs longer{_tail(worker)}"
                )
            )
            return False
        except ModelLoadFailed as exc:
            await worker.stop(_STOP_GRACE)
            await life
            self._tell_failed_start(worker, "load_failed" if isinstance(exc, LoadRefused) else worker.death_cause)
            self._count_failure(exc)
            return False
        finally:
            self.starting = None
            self._supervisor.gate.leave(self.number, loaded_pid=loaded_pid)
        if self.has_ready_worker():
            assert self.worker is not None
            self._supervisor.observer.worker_ended(self.number, "replaced")
            group.create_task(self.worker.retire(_STOP_GRACE))
        self.worker, self._life = worker, life
        self.replace_requested.clear()
        self._supervisor.worker_ready(worker, ready)
        return True

    async def _watch(self) -> None:
        """Wait until the worker dies or is to be replaced; judge its death."""
        worker, life = self.worker, self._life
        assert worker is not None
        assert life is not None
        stable = asyncio.get_running_loop().time() + _STABLE_TIME
        replaced = asyncio.ensure_future(self.replace_requested.wait())  # noqa: TID251  (cancelled below)
        try:
            await asyncio.wait({life, replaced}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            replaced.cancel()
        self.replace_requested.clear()
        if not life.done() or self._supervisor.stopping:
            return
        self._supervisor.worker_lost(worker)
        # A death at work is the fault of the request, which pays for it: requests must not be able to fail the model.
        if worker.answered or worker.died_working or asyncio.get_running_loop().time() > stable:
            self._failures = 0
        else:
            self._count_failure(
                ModelLoadFailed(f"workers die before they answer anything: {worker.death_reason}{_tail(worker)}")
            )

    def _tell_failed_start(self, worker: Worker, cause: str) -> None:
        if not self._supervisor.stopping:
            self._supervisor.observer.worker_ended(worker.number, cause)

    def _count_failure(self, error: ModelLoadFailed) -> None:
        if self._supervisor.stopping or self.has_ready_worker():
            return
        self._failures += 1
        hopeless = isinstance(error, LoadRefused) and not self._supervisor.was_ready
        if hopeless or self._failures > self._settings.max_restarts:
            self.given_up = True
            self._supervisor.slot_failed(self, error)
        else:
            logger.warning("worker %d, failure %d in a row: %s", self.number, self._failures, error.message)

    async def _back_off(self) -> None:
        # The first retry is immediate: a single kill while loading should cost no more than the load.
        delay = 0.0 if self._failures <= 1 else self._settings.restart_backoff * 2 ** (self._failures - 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(delay, _MAX_BACKOFF)):
                await self._stop_requested.wait()

    async def stop(self) -> None:
        self._stop_requested.set()
        async with asyncio.TaskGroup() as group:
            for worker in (self.worker, self.starting):
                if worker is not None:
                    group.create_task(worker.stop(_STOP_GRACE))


def _tail(worker: Worker) -> str:
    if not worker.log.tail:
        return ""
    return "\nLast output of the worker:\n" + "\n".join(f"  {line}" for line in worker.log.tail)
