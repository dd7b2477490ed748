"""Decides when a worker may begin to load: as many at once as there are cores, and as memory holds.

How much memory a copy of the model needs while it loads is not known before one has loaded. So the first worker loads
alone; its peak then says how many of the others fit. Who does not fit waits until there is room: a smaller number of
workers answers, where starting them all would have the kernel kill one, and not always one of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from backline.runtime import memory

logger = logging.getLogger("backline.runtime")

_LOOK_AGAIN = 5.0  # seconds until memory is looked at again: nobody tells us that there is more of it
_RESERVE = 64 << 20  # bytes left for answering requests, and for the rest of the machine
_RESERVE_PART = 0.1  # the same, of what the model needs


class LoadGate:
    """Lets workers in to load. ``enter`` and ``leave`` are called by the slots, on the event loop."""

    def __init__(self, *, available: Callable[[], int | None] = memory.available_bytes) -> None:
        self._available = available
        self._cores = memory.usable_cores()
        self._loading: dict[int, Callable[[], int | None]] = {}  # number -> its process, once it has one
        self._need: int | None = None
        self._measured = False
        self._changed = asyncio.Event()

    async def enter(
        self, number: int, pid: Callable[[], int | None], *, serving: Callable[[], int], given_up: Callable[[], bool]
    ) -> bool:
        """Wait until worker ``number`` may load; return ``False`` once ``given_up`` says that it need not any more.

        ``pid`` returns the process of the worker that loads, ``serving`` how many workers have the model loaded.
        Whoever has entered leaves by ``leave``. Until a worker has loaded it is the turn of number 1, or its successor
        -1; later nobody waits while no other is loaded or loads: whether the only one fits, trying tells.
        """
        told = False
        while not given_up():
            serving_now = serving()
            if self._may_load(number, serving_now):
                self._loading[number] = pid
                return True
            if not told and self._lacks_memory():
                told = True
                self._tell(number, serving_now)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._changed.wait()
        return False

    def leave(self, number: int, *, loaded_pid: int | None = None) -> None:
        """Note that a worker has loaded, as the process ``loaded_pid``, or that it has failed."""
        self._loading.pop(number, None)
        if loaded_pid is not None:
            self._measured = True
            peak = memory.private_peak_bytes(loaded_pid)
            if peak is not None:
                self._need = max(peak, self._need or 0)
        self.look_again()

    def forget_larger(self, pid: int | None) -> None:
        """Take what the process ``pid`` has needed for what all need: another model is loaded from now on."""
        peak = memory.private_peak_bytes(pid)
        if peak is not None:
            self._need = peak

    def look_again(self) -> None:
        """Let those who wait look whether they may go on: a worker is loaded or gone, or the server stops."""
        self._changed.set()

    def _may_load(self, number: int, serving: int) -> bool:
        if not self._measured:
            return abs(number) == 1
        if not self._loading and not serving:
            return True
        return len(self._loading) < self._cores and self._fits()

    def _lacks_memory(self) -> bool:
        return self._measured and not self._loading and not self._fits()

    def _fits(self) -> bool:
        available = self._available()
        if self._need is None or available is None:
            return True
        # Those that load now have not taken yet what they will.
        outstanding = sum(max(0, self._need - memory.private_bytes(pid())) for pid in self._loading.values())
        return available - outstanding >= self._need + self._reserve()

    def _reserve(self) -> int:
        return max(_RESERVE, int(_RESERVE_PART * (self._need or 0)))

    def _tell(self, number: int, serving: int) -> None:
        available = self._available()
        assert self._need is not None
        assert available is not None
        logger.warning(
            "no process is started for worker %d now: loading the model takes up to %s, %s is kept free, and %s is "
            "available; %d %s and it waits for room. Give the machine or container more memory, or ask for fewer "
            "--workers",
            abs(number),
            memory.in_words(self._need),
            memory.in_words(self._reserve()),
            memory.in_words(available),
            serving,
            "worker serves" if serving == 1 else "workers serve",
        )
