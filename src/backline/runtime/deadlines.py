"""Deadlines by the thousand, of which hardly one is ever reached.

An event loop's timer costs a microsecond to set and to cancel. Most deadlines are minutes away and most answers
milliseconds, so a deadline is only noted at first, and gets its timer when it comes near.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

_NEAR = 1.0  # seconds; those further away are looked through this often

T = TypeVar("T", bound=Hashable)


class Deadlines(Generic[T]):
    """Calls ``action(item)`` when the time of an item comes that has not been discarded by then."""

    def __init__(self, loop: asyncio.AbstractEventLoop, action: Callable[[T], None]) -> None:
        self._loop = loop
        self._action = action
        self._far: dict[T, float] = {}
        self._near: dict[T, asyncio.TimerHandle] = {}
        self._look: asyncio.TimerHandle | None = None

    def add(self, item: T, at: float) -> None:
        """Note an item; ``at`` in the loop's time."""
        if at - self._loop.time() <= 2 * _NEAR:
            self._near[item] = self._loop.call_at(at, self._reached, item)
            return
        self._far[item] = at
        if self._look is None:
            self._look = self._loop.call_later(_NEAR, self._look_through)

    def discard(self, item: T) -> None:
        """Forget an item, whether it is here or not."""
        if self._far.pop(item, None) is None and self._near:
            timer = self._near.pop(item, None)
            if timer is not None:
                timer.cancel()

    def _look_through(self) -> None:
        self._look = None
        soon = self._loop.time() + 2 * _NEAR
        for item in [item for item, at in self._far.items() if at <= soon]:
            self._near[item] = self._loop.call_at(self._far.pop(item), self._reached, item)
        if self._far:
            self._look = self._loop.call_later(_NEAR, self._look_through)

    def _reached(self, item: T) -> None:
        del self._near[item]
        self._action(item)
