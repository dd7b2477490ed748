"""The calls that wait for a worker, and which of them it gets next."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backline.runtime.call import Call, CallState

if TYPE_CHECKING:
    from backline.config.settings import BatchSettings

_GIVEN_UP = 16  # calls that nobody waits for any more, kept until their turn comes
_LOOK_AHEAD = 64  # calls of other kinds that a batch may reach over; more would make them wait too long


class CallQueue:
    """First come, first served, in two lines that take turns: one for large bodies, one for the others.

    So a row of large requests holds up a small one for the time of one of them, and any number of small ones, which
    share their calls, hold up a large one for one call. The dispatcher changes the calls' states: those in a line that
    are not ``WAITING`` any more are passed over when their turn comes.
    """

    def __init__(self) -> None:
        self.waiting = 0
        """How many calls wait; those given up do not count."""
        self._small: collections.deque[Call] = collections.deque()
        self._large: collections.deque[Call] = collections.deque()
        self._turn_of_large = False

    def __len__(self) -> int:
        return len(self._small) + len(self._large)

    def add(self, call: Call, *, first: bool = False) -> None:
        """Let a call wait, behind the others or ``first`` of all in its line."""
        line = self._small if call.payload.path is None else self._large
        self.waiting += 1
        if first:
            line.appendleft(call)
        else:
            line.append(call)

    def give_up(self, call: Call) -> None:
        """Count a call out that was given up; its state says so already."""
        self.waiting -= 1
        # Its turn does not come while all workers hang, and it holds its body: so such calls are swept out before they
        # are many.
        if len(self) > 2 * self.waiting + _GIVEN_UP:
            for line in (self._small, self._large):
                kept = [other for other in line if other.state is CallState.WAITING]
                line.clear()
                line.extend(kept)

    def first(self) -> Call:
        """Return the call that is next; there is one."""
        return self._next_line()[0]

    def take(self, batch: BatchSettings | None) -> list[Call]:
        """Take the call that is next, and with it, within the limits of ``batch``, those that can share its call."""
        line = self._next_line()
        self._turn_of_large = line is self._small
        calls = [line.popleft()]
        key = calls[0].batch_key
        if batch is not None and key is not None and not calls[0].alone:
            self._take_alike(calls, line, batch)
        self.waiting -= len(calls)
        return calls

    def drain(self) -> Iterator[Call]:
        """Take all that wait, one by one."""
        while self.waiting:
            yield self.take(None)[0]

    def _next_line(self) -> collections.deque[Call]:
        for line in (self._small, self._large):
            while line and line[0].state is not CallState.WAITING:
                line.popleft()
        preferred, other = (self._large, self._small) if self._turn_of_large else (self._small, self._large)
        return preferred or other

    def _take_alike(self, calls: list[Call], line: collections.deque[Call], batch: BatchSettings) -> None:
        key, rows, size = calls[0].batch_key, calls[0].rows, calls[0].payload.size
        others: list[Call] = []
        while line and rows < batch.max_rows:
            call = line.popleft()
            if call.state is not CallState.WAITING:
                continue
            if call.batch_key != key or call.alone:
                others.append(call)
                if len(others) > _LOOK_AHEAD:
                    break
                continue
            rows += call.rows
            size += call.payload.size
            if rows > batch.max_rows or size > batch.max_bytes:
                others.append(call)
                break
            calls.append(call)
        line.extendleft(reversed(others))
