"""Looks at every worker once a second: is it alive, has it grown, has it served its time.

What a worker does with its requests, its channel tells. This is for what no message tells: a process that was stopped,
one that hangs while it has nothing to do, one that grows. All of it is read from ``/proc``, where there is one, which
the kernel answers from memory: some 0.1 ms a worker and second.

A worker that is to go for its size, its age or the number of its requests is recycled: the supervisor starts its
successor first, one at a time. Its own limits are a little below those of the settings, by chance, so that workers that
were started together do not go together.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backline.runtime import memory
from backline.runtime.worker import WorkerState
from backline.runtime.zygote import bury_orphans

if TYPE_CHECKING:
    from backline.config.settings import WorkerSettings
    from backline.runtime.supervisor import Supervisor
    from backline.runtime.worker import Worker

logger = logging.getLogger("backline.runtime")

_INTERVAL = 1.0  # seconds
_STOPPED_LOOKS = 2  # looks in a row at which a stopped process is found stopped, until it is given up
_SPREAD = 0.1  # by how much, at most, a worker's own limits are below those of the settings
_SETTLED = 30.0  # seconds after which a worker's memory is taken for what it needs
_GROWTH_TOLD = 64 << 20  # bytes
_SHARED_LOOKS = 5  # looks from one at the memory of forked workers to the next
_PART_OF_LIMIT = 0.9  # of --memory-limit, where --recycle-memory is not given


class _Notes:
    """What is remembered of one worker between two looks."""

    def __init__(self, settings: WorkerSettings) -> None:
        part = 1 - _SPREAD * random.random()  # noqa: S311  (to spread them; no secret)
        self.most_requests = settings.recycle_requests * part
        self.oldest = settings.recycle_age * part
        self.ready_at: float | None = None
        self.stopped = 0
        self.settled_bytes: int | None = None
        self.told_bytes = 0


class Governor:
    """Watches the workers of a supervisor. ``run`` is its life."""

    def __init__(self, supervisor: Supervisor, settings: WorkerSettings) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._notes: dict[Worker, _Notes] = {}
        self._told_large = False

    async def run(self, stop: asyncio.Event) -> None:
        """Look at the workers until ``stop`` is set."""
        looks = 0
        while not stop.is_set():
            alive = self._supervisor.alive
            self._notes = {worker: self._notes.get(worker) or _Notes(self._settings) for worker in alive}
            for worker, notes in self._notes.items():
                try:
                    self._look(worker, notes, time.monotonic())
                except Exception:  # it must not take the workers along
                    logger.exception("fault in the server's own code: worker %d cannot be watched", worker.number)
            if self._settings.preload:
                bury_orphans()
                looks += 1
                if looks % _SHARED_LOOKS == 1:
                    await self._look_at_shared()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_INTERVAL):
                    await stop.wait()

    async def _look_at_shared(self) -> None:
        """See how much memory those workers have of their own that were forked, and share the rest.

        The kernel goes through all of a process's pages for it: 4 ms for each GiB, so not on the event loop.
        """
        for worker in list(self._notes):
            if worker.is_forked or worker.is_zygote:
                size = await asyncio.to_thread(memory.unshared_bytes, worker.pid)
                worker.private_bytes = size
                worker.loaded_bytes = worker.loaded_bytes or size

    def _look(self, worker: Worker, notes: _Notes, now: float) -> None:
        if worker.pid is None or worker.state is WorkerState.DEAD:
            return
        worker.look_for_exit()
        notes.stopped = notes.stopped + 1 if _is_stopped(worker.pid) else 0
        if notes.stopped >= _STOPPED_LOOKS:
            worker.kill("it was stopped by a signal, and not let go on", cause="stopped", innocent=True)
            return
        if worker.state not in (WorkerState.READY, WorkerState.BUSY):
            return
        notes.ready_at = notes.ready_at or now
        self._see_life(worker, now)
        if not worker.is_forked and not worker.is_zygote:  # see _look_at_shared
            worker.private_bytes = memory.private_bytes(worker.pid)
        if worker.is_zygote:
            return
        self._see_growth(worker, notes, now)
        if not worker.retiring and (cause := self._due(worker, notes, now)) is not None:
            self._supervisor.recycle(worker, cause)

    def _see_life(self, worker: Worker, now: float) -> None:
        """Ask an idle worker for a sign of life, and give up one that has given none for too long."""
        interval, patience = self._settings.heartbeat_interval, self._settings.heartbeat_timeout
        if not interval:
            return
        if worker.pinged_at is None:
            if not worker.calls and now - worker.heard_at >= interval:
                worker.ping()
        elif now - worker.pinged_at > patience:
            worker.kill(
                f"it hung: with nothing to do it did not answer for {patience:g} s (--heartbeat-timeout)",
                cause="hung",
                innocent=True,
            )

    def _see_growth(self, worker: Worker, notes: _Notes, now: float) -> None:
        """Tell once for each doubling that a worker grows."""
        size = worker.private_bytes
        assert notes.ready_at is not None
        if notes.settled_bytes is None:
            if now - notes.ready_at >= _SETTLED:
                notes.settled_bytes = notes.told_bytes = size
        elif size > 2 * notes.told_bytes and size > notes.told_bytes + _GROWTH_TOLD:
            notes.told_bytes = size
            logger.warning(
                "worker %d (pid %s) has grown from %s to %s in %d requests; --recycle-memory would replace it in time",
                worker.number,
                worker.pid,
                memory.in_words(notes.settled_bytes),
                memory.in_words(size),
                worker.answered,
            )

    def _due(self, worker: Worker, notes: _Notes, now: float) -> str | None:
        """Return why the worker is to be recycled, as a word to count by."""
        settings = self._settings
        assert notes.ready_at is not None
        if settings.recycle_requests and worker.answered >= notes.most_requests:
            return "requests"
        if settings.recycle_age and now - notes.ready_at >= notes.oldest:
            return "age"
        most, size, loaded = settings.recycle_memory, worker.private_bytes, worker.loaded_bytes
        if most is None and settings.memory_limit is not None:
            most = int(settings.memory_limit * _PART_OF_LIMIT)
            if worker.is_forked:  # the limit counts what it shares, too
                size, loaded = memory.private_bytes(worker.pid), worker.forked_bytes
        if most is not None and size > most and not self._is_that_large(loaded, most):
            return "memory"
        return None

    def _is_that_large(self, loaded: int, most: int) -> bool:
        """Whether the model takes that much as soon as it is loaded: a successor would be no smaller."""
        if loaded <= most:
            return False
        if not self._told_large:
            self._told_large = True
            logger.warning(
                "workers are not recycled for their memory: the model alone takes %s, which is over %s",
                memory.in_words(loaded),
                memory.in_words(most),
            )
        return True


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped by a signal; a debugger's stop, which has a letter of its own, does not count."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat.rpartition(b") ")[2][:1] == b"T"
