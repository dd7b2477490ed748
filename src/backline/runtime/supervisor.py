"""Keeps the wished number of workers alive: starts, replaces, renews, gives up, stops.

Each slot is a task that runs one worker after another. A slot that loses its worker starts the next one at once, and
waits longer and longer when starts fail. When every slot has given up, the model is failed: the server stays up and
says why.

A worker that still answers is renewed by the supervisor, not by its slot, one at a time: its successor loads beside it,
and when it is ready the slot adopts it and the old one retires. So it goes when the model folder is loaded anew
(``reload``) and when a worker is recycled; where the successor does not load, nothing has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backline.errors import ConfigError, EnvironmentFailed, ModelLoadFailed, ModelLoading
from backline.observe.observer import SILENT
from backline.observe.worker_log import WorkerLog
from backline.runtime import memory
from backline.runtime.call import CallState
from backline.runtime.environments.cache import BuildCancelled
from backline.runtime.governor import Governor
from backline.runtime.load_gate import LoadGate
from backline.runtime.worker import LoadRefused, Ready, Worker, WorkerOwner, WorkerPlan, WorkerState
from backline.runtime.zygote import Zygote

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
_ROOM_TIMEOUT = 30.0  # seconds that a successor waits for memory to load in


class ModelState(enum.Enum):
    """Whether the model can answer."""

    LOADING = "loading"  # no worker has been ready yet
    READY = "ready"  # at least one worker is
    RECOVERING = "recovering"  # it was ready; the workers died and new ones are loading: requests wait
    FAILED = "failed"  # given up; ``failure`` says why


@dataclasses.dataclass(frozen=True, slots=True)
class _Successor:
    """A worker that has loaded, and belongs to no slot yet."""

    worker: Worker
    life: asyncio.Task[None]
    ready: Ready


class NoRoom(ModelLoadFailed):
    """There was no memory for one more copy of the model beside those that serve."""


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
        self.plan = plan
        """What every worker that is started now is started from."""
        self._python = python
        self._python_known = asyncio.Event()
        self._launched = launched
        self.observer = observer
        self._settings = settings
        self._dispatcher = dispatcher
        self._log_rate = log_lines_per_second
        self._slots: list[_Slot] = []
        self._alive: list[Worker] = []  # also those that load, and those that retire
        self._zygotes: dict[int, Zygote] = {}  # by the generation of their plan
        self._group: asyncio.TaskGroup | None = None
        self._renewing = asyncio.Lock()
        self._to_recycle: dict[Worker, str] = {}  # with the reason
        self._recycle_wanted = asyncio.Event()
        self._reload_waits = False
        self.gate = LoadGate()
        self._was_ready = False
        self._stop_requested = asyncio.Event()
        self._ended = asyncio.Event()
        self.failure: ModelLoadFailed | ConfigError | None = None
        self.model: Ready | None = None
        self.restarts = 0
        self.recycled: dict[str, int] = {}
        """How many workers were replaced while they could still answer, by reason."""
        self.first_outcome: asyncio.Future[ModelState] = asyncio.get_running_loop().create_future()

    # --- asked by the API

    @property
    def python(self) -> str:
        """The interpreter of the workers, or what the setting says while it is not there."""
        return self.plan.python

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
        return any(call.state is CallState.RUNNING for worker in self._alive for call in worker.calls)

    def workers(self) -> list[dict[str, Any]]:
        """Return what there is to know of each worker, for ``/stats/``."""
        known = sorted(self._alive, key=lambda worker: worker.number)
        return [worker.describe() for worker in known if worker.state is not WorkerState.DEAD and not worker.is_zygote]

    def zygotes(self) -> list[dict[str, Any]]:
        """Return what there is to know of the processes that workers are forked from, for ``/stats/``."""
        return [zygote.describe() for zygote in self._zygotes.values()]

    @property
    def alive(self) -> list[Worker]:
        """All workers that have a process: also those that load, and those that retire."""
        return self._alive

    async def collect_reports(self, seconds: float) -> None:
        """Let the workers that are idle tell what user code has counted, for some ``seconds`` at most."""
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        await asyncio.gather(*(worker.report(seconds) for worker in workers))

    # --- life

    async def run(self, *, problem: ConfigError | None = None) -> None:
        """Run all slots until ``stop``; cancelling kills the workers.

        With a ``problem`` no worker is started, as what it would need is not there: the model has failed until a
        ``reload`` mends it.
        """
        self._slots = [_Slot(number, self) for number in range(1, self._settings.count + 1)]
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                group.create_task(self._recycle())
                group.create_task(Governor(self, self._settings).run(self._stop_requested))
                if problem is not None:
                    self._python_known.set()
                    self._fail(problem)
                elif await self._prepare():
                    for slot in self._slots:
                        slot.begin()
                await self._stop_requested.wait()
        finally:
            self._ended.set()

    async def _prepare(self) -> bool:
        """Wait for the model's interpreter, which may have to be built; return whether it is there."""
        try:
            if self._python is not None:
                self.plan = dataclasses.replace(self.plan, python=await self._python.wait())
        except (ConfigError, EnvironmentFailed) as exc:
            self._fail(exc)
            return False
        except BuildCancelled:
            return False
        finally:
            self._python_known.set()
        return not self.stopping

    async def stop(self) -> None:
        """Stop every worker politely, then not; return when all are gone."""
        self._stop_requested.set()
        self._recycle_wanted.set()
        if self._python is not None:
            self._python.cancel()
        self.gate.look_again()
        for slot in self._slots:
            slot.wake()
        async with asyncio.TaskGroup() as group:
            for worker in self._alive:
                if not worker.is_zygote or not worker.ready.done():  # else it goes after those that are forked from it
                    group.create_task(worker.stop(_STOP_GRACE))
        for zygote in self._zygotes.values():
            zygote.end()
        await self._ended.wait()

    # --- renewal

    def recycle(self, worker: Worker, reason: str) -> None:
        """Retire a worker as soon as its successor is ready; until then it goes on. ``reason``: a word to count by."""
        self._to_recycle.setdefault(worker, reason)
        self._recycle_wanted.set()

    async def reload(self, plan: WorkerPlan, *, together: bool = False) -> None:
        """Replace every worker by one of ``plan``, each ready before the old one retires.

        One after another, or, ``together``, all in one moment once all are ready; this takes memory for as many copies
        of the model more. Raises ``ModelLoadFailed`` where the new model cannot be loaded: the old one then goes on.
        """
        self._reload_waits = True
        self.gate.look_again()
        async with self._renewing:
            self._reload_waits = False
            await self._python_known.wait()
            if not self.first_outcome.done():
                await self._load_another(plan)
                return
            slots = self._slots
            first = slots if together else slots[:1]
            try:
                successors = await self._load_successors(first, plan)
            except BaseException:
                self._end_zygote(plan)
                raise
            former, self.plan = self.plan, plan
            self._end_zygote(former)
            self.gate.forget_larger(successors[0].worker.pid)
            self._dispatcher.model_changed()
            for slot, successor in zip(first, successors, strict=True):
                slot.adopt(successor, cause="reload")
            for slot in slots[len(first) :]:
                await self._renew(slot)

    async def _load_another(self, plan: WorkerPlan) -> None:
        """Load ``plan`` in place of the one that has not been loaded yet."""
        former, self.plan = self.plan, plan
        self._end_zygote(former)
        for worker in self._alive:
            worker.kill("the model folder is loaded anew", cause="reload")
        if await asyncio.shield(self.first_outcome) is ModelState.FAILED:
            assert self.failure is not None
            raise ModelLoadFailed(self.failure.message, traceback=getattr(self.failure, "traceback", None))

    async def _load_successors(self, slots: list[_Slot], plan: WorkerPlan) -> list[_Successor]:
        """Load one worker for each slot, all or none."""
        loading = [asyncio.ensure_future(self._load_successor(slot.number, plan)) for slot in slots]  # noqa: TID251
        try:
            await asyncio.wait(loading, return_when=asyncio.FIRST_EXCEPTION)
            return [each.result() for each in loading if each.done()]
        except BaseException:
            for each in loading:
                each.cancel()
            for each in loading:
                with contextlib.suppress(ModelLoadFailed, asyncio.CancelledError):
                    self._retire((await each).worker)
            raise

    async def _renew(self, slot: _Slot) -> None:
        """Give a slot a worker of the present plan, with some patience: that the model loads has been seen."""
        for attempt in range(self._settings.max_restarts + 1):
            if self.stopping or (slot.has_ready_worker() and slot.plan is self.plan):
                return
            try:
                slot.adopt(await self._load_successor(slot.number, self.plan), cause="reload")
            except ModelLoadFailed as exc:
                logger.warning("worker %d could not be renewed: %s", slot.number, exc.message)
                if attempt == self._settings.max_restarts:
                    raise
                await self._pause(attempt)

    async def _load_successor(
        self, number: int, plan: WorkerPlan, *, given_up: Callable[[], bool] = bool
    ) -> _Successor:
        """Load a worker beside those that serve. Raises ``ModelLoadFailed``, or ``NoRoom``; nothing is left then."""
        if plan.preload:
            forked = self.make_worker(number, plan)
            return _Successor(forked, *await self.load(forked, None))
        loop = asyncio.get_running_loop()
        patience = loop.time() + _ROOM_TIMEOUT
        worker: Worker | None = None

        def is_over() -> bool:
            return self.stopping or given_up() or loop.time() > patience

        def pid() -> int | None:
            return None if worker is None else worker.pid

        place = -number  # beside the slot, which may be loading, too
        if not await self.gate.enter(place, pid, serving=self.count_serving, given_up=is_over):
            raise NoRoom(
                "there is no room for one more copy of the model beside those that serve"
                if not self.stopping
                else "the server stops"
            )
        worker = self.make_worker(number, plan)
        life, ready = await self.load(worker, place)
        return _Successor(worker, life, ready)

    async def _recycle(self) -> None:
        """Renew the workers that are to be recycled, one after another."""
        failures = 0
        while not self.stopping:
            if not self._to_recycle:
                self._recycle_wanted.clear()
                await self._recycle_wanted.wait()
                continue
            worker = next(iter(self._to_recycle))
            reason = self._to_recycle[worker]
            slot = next((slot for slot in self._slots if slot.worker is worker), None)
            if slot is None or not slot.has_ready_worker():
                del self._to_recycle[worker]
                continue
            try:
                await self._recycle_one(slot, worker, reason)
            except ModelLoadFailed as exc:
                logger.warning("worker %d could not be replaced; the old one goes on: %s", worker.number, exc.message)
                await self._pause(failures := failures + 1)
            else:
                failures = 0
                del self._to_recycle[worker]

    async def _recycle_one(self, slot: _Slot, worker: Worker, reason: str) -> None:
        def is_superfluous() -> bool:
            return self._reload_waits or not slot.has_ready_worker() or slot.worker is not worker

        async with self._renewing:
            if is_superfluous():
                return
            logger.info("worker %d (pid %s) is recycled: %s", worker.number, worker.pid, reason)
            try:
                successor = await self._load_successor(slot.number, self.plan, given_up=is_superfluous)
            except NoRoom:
                if is_superfluous() or self.stopping:
                    return
                if self.count_serving() == 1:
                    raise
                # The others answer meanwhile; keeping one that has grown would make the lack of memory worse.
                await worker.retire(_STOP_GRACE)
            else:
                slot.adopt(successor, cause=reason)
            self.recycled[reason] = self.recycled.get(reason, 0) + 1

    async def _pause(self, failures: int) -> None:
        delay = min(self._settings.restart_backoff * 2.0 ** min(failures, 99), _MAX_BACKOFF)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._stop_requested.wait()

    def _retire(self, worker: Worker) -> None:
        worker.retiring = True
        assert self._group is not None
        self._group.create_task(worker.retire(_STOP_GRACE))

    # --- from the slots

    def make_worker(self, number: int, plan: WorkerPlan | None = None) -> Worker:
        """Build (not start) a worker for a slot; of the present plan if none is given."""

        def make_log(worker: Worker) -> WorkerLog:
            return WorkerLog(number, lines_per_second=self._log_rate, ids_of=worker.recent.get)

        owner: WorkerOwner = self._dispatcher
        plan = plan or self.plan
        if plan.preload:
            return Worker(number, plan, owner, make_log, fork=self._zygote_of(plan).fork)
        return Worker(number, plan, owner, make_log, launched=self._take_launched())

    def _take_launched(self) -> Launched | None:
        launched, self._launched = self._launched, None
        return None if launched is None else launched.hand_over()

    async def load(self, worker: Worker, place: int | None) -> tuple[asyncio.Task[None], Ready]:
        """Start a worker and wait until it has loaded; return its life and what it says.

        ``place`` is that at the gate, which is left, if it has one. Raises ``ModelLoadFailed``; also when this is
        cancelled the worker is gone, or will be.
        """
        assert self._group is not None
        zygote = self._zygote_of(worker.plan) if worker.is_forked else None
        if zygote is not None:
            await zygote.wait_ready()
        life = self._group.create_task(worker.run())
        if zygote is not None:
            zygote.add(life)
        self._alive.append(worker)
        if self.stopping:
            worker.kill("the server stops", cause="stop")
        life.add_done_callback(lambda _: self._alive.remove(worker))
        life.add_done_callback(lambda _: self.gate.look_again())  # there is more memory
        loaded_pid = None
        try:
            async with asyncio.timeout(self._settings.start_timeout):
                ready = await asyncio.shield(worker.ready)
            loaded_pid = worker.pid
            if worker.is_forked:
                worker.forked_bytes = memory.private_bytes(loaded_pid)
            else:
                worker.loaded_bytes = worker.private_bytes = memory.private_bytes(loaded_pid)
        except TimeoutError:
            worker.kill("it took longer than --start-timeout to load", cause="start_timeout")
            await life
            self._tell_failed_start(worker, "start_timeout")
            raise ModelLoadFailed(
                f"the model was not loaded within {self._settings.start_timeout:g} s; raise --start-timeout if it "
                f"needs longer{tail(worker)}"
            ) from None
        except ModelLoadFailed as exc:
            await worker.stop(_STOP_GRACE)
            await life
            self._tell_failed_start(worker, "load_failed" if isinstance(exc, LoadRefused) else worker.death_cause)
            raise
        except asyncio.CancelledError:
            worker.kill("it is not wanted any more", cause="unwanted")
            raise
        finally:
            if place is not None:
                self.gate.leave(place, loaded_pid=loaded_pid)
        return life, ready

    # --- with --preload

    def _zygote_of(self, plan: WorkerPlan) -> Zygote:
        """Return what workers of a plan are forked from; it begins to load."""
        zygote = self._zygotes.get(plan.generation)
        if zygote is None:
            zygote = Zygote(plan, self, self.observer, self._take_launched, log_lines_per_second=self._log_rate)
            self._zygotes[plan.generation] = zygote
            assert self._group is not None
            life = self._group.create_task(zygote.run())
            life.add_done_callback(lambda _: self._zygotes.pop(plan.generation))
        return zygote

    def _end_zygote(self, plan: WorkerPlan) -> None:
        if plan.generation in self._zygotes:
            self._zygotes[plan.generation].end()

    async def enter(self, zygote: Zygote, *, pid: Callable[[], int | None]) -> int:
        """Wait until there is room for what workers are forked from; return the place at the gate.

        Raises ``NoRoom``; for the present model only once nothing is to be loaded any more.
        """
        loop = asyncio.get_running_loop()
        patience = loop.time() + _ROOM_TIMEOUT

        def given_up() -> bool:
            if zygote.plan.generation == self.plan.generation:
                return self.is_hopeless() or zygote.is_over
            return self.stopping or zygote.is_over or loop.time() > patience

        place = 1 if zygote.plan.generation == self.plan.generation else -1
        if not await self.gate.enter(place, pid, serving=self.count_serving, given_up=given_up):
            raise NoRoom("there is no room for one more copy of the model beside those that serve")
        return place

    def _tell_failed_start(self, worker: Worker, cause: str) -> None:
        if not self.stopping:
            self.observer.worker_ended(worker.number, cause)

    def create_task(self, slot: _Slot) -> asyncio.Task[None]:
        """Run a slot."""
        assert self._group is not None
        return self._group.create_task(slot.run())

    def retire(self, worker: Worker) -> None:
        """Let a worker finish the call that it has, and go."""
        self._retire(worker)

    def count_serving(self) -> int:
        """Return how many workers have the model loaded."""
        return sum(slot.has_ready_worker() for slot in self._slots)

    def is_hopeless(self) -> bool:
        """Whether no further worker need try: the server stops, or the model has never loaded and is given up."""
        return self.stopping or (self.failure is not None and not self._was_ready)

    @property
    def stopping(self) -> bool:
        """Whether ``stop`` was called."""
        return self._stop_requested.is_set()

    @property
    def settings(self) -> WorkerSettings:
        """How many, how long, how often."""
        return self._settings

    @property
    def was_ready(self) -> bool:
        """Whether a worker has ever been ready."""
        return self._was_ready

    def worker_ready(self, worker: Worker, ready: Ready) -> None:
        """A worker has loaded the model, and serves."""
        if worker.plan is self.plan or self.model is None:  # one of an older plan may come in late
            self.model = ready
            if worker.is_forked:
                self.model = dataclasses.replace(ready, load_seconds=self._zygote_of(worker.plan).load_seconds)
        self._was_ready = True
        self.failure = None
        self.observer.worker_ready(worker.number, time.monotonic() - worker.started_at, ready.load_seconds)
        seconds = ready.load_seconds
        took = f"{seconds:.1f} s" if seconds >= 1 or not worker.is_forked else f"{seconds * 1000:.0f} ms"
        logger.info("worker %d (pid %s) is ready after %s", worker.number, worker.pid, took)
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
        self.given_up = False
        self._starting: Worker | None = None
        self._life: asyncio.Task[None] | None = None
        self._run: asyncio.Task[None] | None = None
        self._supervisor = supervisor
        self._settings = supervisor.settings
        self._failures = 0
        self._wake = asyncio.Event()  # a worker was adopted, or the server stops

    def begin(self) -> None:
        """Run, where it does not run already."""
        if self._run is None or self._run.done():
            self.given_up = False
            self._run = self._supervisor.create_task(self)

    def has_ready_worker(self) -> bool:
        return self.worker is not None and self.worker.state in (WorkerState.READY, WorkerState.BUSY)

    @property
    def plan(self) -> WorkerPlan | None:
        """The plan of the worker that serves."""
        return None if self.worker is None else self.worker.plan

    def adopt(self, successor: _Successor, *, cause: str) -> None:
        """Put a worker that has loaded in the place of the present one, which retires, or of the one that loads."""
        if self.worker is not None and self.worker.state is not WorkerState.DEAD:
            self._supervisor.observer.worker_ended(self.number, cause)
            self._supervisor.retire(self.worker)
        if self._starting is not None:
            self._starting.kill("another one has taken its place", cause="unwanted")
        self._failures = 0
        self._serve(successor.worker, successor.life, successor.ready)
        self.wake()
        self.begin()

    def wake(self) -> None:
        """Have a look: something has changed that the slot may be waiting for."""
        self._wake.set()

    def _serve(self, worker: Worker, life: asyncio.Task[None], ready: Ready) -> None:
        self.worker, self._life = worker, life
        self.given_up = False
        self._supervisor.worker_ready(worker, ready)

    async def run(self) -> None:
        """Keep one worker alive until stopped or given up."""
        while not self._supervisor.stopping:
            if self.worker is not None:
                await self._watch()
                if self._failures:
                    await self._back_off()
            elif not await self._enter_gate():
                if self.worker is None:
                    self.given_up = True
                    return
            elif not await self._start() and self.worker is None:
                if self.given_up:
                    return
                await self._back_off()

    async def _enter_gate(self) -> bool:
        """Wait for the turn to load; return ``False`` when there is nothing to load any more."""
        supervisor = self._supervisor

        def given_up() -> bool:
            return supervisor.is_hopeless() or self.worker is not None

        def pid() -> int | None:
            return None if self._starting is None else self._starting.pid

        if supervisor.plan.preload:  # a fork takes no memory to speak of
            return not given_up()
        return await supervisor.gate.enter(self.number, pid, serving=supervisor.count_serving, given_up=given_up)

    async def _start(self) -> bool:
        """Start a worker; return whether it serves."""
        worker = self._starting = self._supervisor.make_worker(self.number)
        try:
            life, ready = await self._supervisor.load(worker, None if worker.is_forked else self.number)
        except ModelLoadFailed as exc:
            if worker.plan is self._supervisor.plan:  # else it was killed to make room for another
                self._count_failure(exc)
            return False
        finally:
            self._starting = None
        if self.worker is not None:  # adopted meanwhile
            self._supervisor.retire(worker)
            return False
        self._serve(worker, life, ready)
        return True

    async def _watch(self) -> None:
        """Wait until the worker dies or another one takes its place; judge its death."""
        worker, life = self.worker, self._life
        assert worker is not None
        assert life is not None
        stable = asyncio.get_running_loop().time() + _STABLE_TIME
        self._wake.clear()
        woken = asyncio.ensure_future(self._wake.wait())  # noqa: TID251  (cancelled below)
        try:
            await asyncio.wait({life, woken}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            woken.cancel()
        if self.worker is not worker or not life.done():
            return
        self.worker = None
        if self._supervisor.stopping:
            return
        self._supervisor.worker_lost(worker)
        # A death at work is the fault of the request, which pays for it: requests must not be able to fail the model.
        if worker.answered or worker.died_working or worker.innocent or asyncio.get_running_loop().time() > stable:
            self._failures = 0
        else:
            self._count_failure(
                ModelLoadFailed(f"workers die before they answer anything: {worker.death_reason}{tail(worker)}")
            )

    def _count_failure(self, error: ModelLoadFailed) -> None:
        if self._supervisor.stopping or self.worker is not None:
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
        delay = 0.0 if self._failures <= 1 else self._settings.restart_backoff * 2.0 ** min(self._failures - 2, 99)
        self._wake.clear()
        if self.worker is None and not self._supervisor.stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(delay, _MAX_BACKOFF)):
                    await self._wake.wait()


def tail(worker: Worker) -> str:
    """Return the last lines that a worker wrote, with a title, to follow a message."""
    if not worker.log.tail:
        return ""
    return "\nLast output of the worker:\n" + "\n".join(f"  {line}" for line in worker.log.tail)
