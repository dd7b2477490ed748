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
    share their calls, hold up a large one for one call. Calls on probation wait in a line of their own, and are taken
    from it only when that is asked for. The dispatcher changes the calls' states: those in a line that
    are not ``WAITING`` any more are passed over when their turn comes.
    """

    def __init__(self) -> None:
        self.waiting = 0
        """How many calls wait; those given up do not count."""
        self.on_probation = 0
        """How many of them are on probation."""
        self._small: collections.deque[Call] = collections.deque()
        self._large: collections.deque[Call] = collections.deque()
        self._probation: collections.deque[Call] = collections.deque()
        self._turn_of_large = False
        self._by_address: collections.Counter[str] = collections.Counter()

    def __len__(self) -> int:
        return len(self._small) + len(self._large) + len(self._probation)

    def add(self, call: Call, *, first: bool = False) -> None:
        """Let a call wait, behind the others or ``first`` of all in its line."""
        line = self._small if call.payload.path is None else self._large
        self.waiting += 1
        self._by_address[_address(call.client)] += 1
        if call.on_probation:
            line = self._probation
            self.on_probation += 1
        if first:
            line.appendleft(call)
        else:
            line.append(call)

    def give_up(self, call: Call) -> None:
        """Count a call out that was given up; its state says so already."""
        self.waiting -= 1
        self._leaves(call)
        self.on_probation -= call.on_probation
        # Its turn does not come while all workers hang, and it holds its body: so such calls are swept out before they
        # are many.
        if len(self) > 2 * self.waiting + _GIVEN_UP:
            for line in (self._small, self._large, self._probation):
                kept = [other for other in line if other.state is CallState.WAITING]
                line.clear()
                line.extend(kept)

    def first(self) -> Call:
        """Return the call that is next; there is one that is not on probation."""
        return self._next_line()[0]

    def take(self, batch: BatchSettings | None, *, probation: bool = False) -> list[Call]:
        """Take the call that is next, and with it, within the limits of ``batch``, those that can share its call.

        ``probation`` asks for those on probation, instead of the others; there must be one of them.
        """
        line = self._probation if probation else self._next_line()
        _drop_given_up(line)
        if not probation:
            self._turn_of_large = line is self._small
        calls = [line.popleft()]
        key = calls[0].batch_key
        if batch is not None and key is not None and not calls[0].alone:
            self._take_alike(calls, line, batch)
        self.waiting -= len(calls)
        for call in calls:
            self._leaves(call)
        self.on_probation -= len(calls) if probation else 0
        return calls

    def is_mostly_of(self, client: tuple[str, int] | None) -> bool:
        """Whether more than half of what waits has come from this client's address."""
        return client is not None and 2 * self._by_address[client[0]] > self.waiting

    def _leaves(self, call: Call) -> None:
        address = _address(call.client)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    def drain(self) -> Iterator[Call]:
        """Take all that wait, one by one."""
        while self.waiting:
            yield self.take(None, probation=self.on_probation > 0)[0]

    def _next_line(self) -> collections.deque[Call]:
        for line in (self._small, self._large):
            _drop_given_up(line)
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


def _drop_given_up(line: collections.deque[Call]) -> None:
    while line and line[0].state is not CallState.WAITING:
        line.popleft()


def _address(client: tuple[str, int] | None) -> str:
    return "" if client is None else client[0]
