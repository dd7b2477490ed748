"""Clients whose last request could not be answered, and how much of the workers' time they get.

A request at fault makes the shared call of its batch fail, and the rows are then tried in parts until it is found: ten
calls or so where one would have done, at the cost of everybody in the batch. Who has sent one is likely to send more.
So from its first fault until it sends something that can be answered, a client's predictions share no call with others,
and while others are served too, such calls get three hundredths of the time. So few requests of the others then wait
for one of them that their slowest hundredth hardly moves.
"""

from __future__ import annotations

from collections.abc import Hashable

_SHARE = 0.03
_MAX_CLIENTS = 4096


class Probation:
    """Who is on probation, and when the next call of theirs may be made. Pure: told the time."""

    def __init__(self) -> None:
        self._clients: dict[Hashable, None] = {}
        self._others_ran = False
        self.next_call = 0.0
        """The time from which on the next call may be made; in the clock of ``ran``."""

    def __contains__(self, client: Hashable) -> bool:
        return client in self._clients

    def judge(self, client: Hashable, *, failed: bool) -> None:
        """Note how a client's request ended; the oldest faults are forgotten where there are many."""
        if failed:
            self._clients[client] = None
            if len(self._clients) > _MAX_CLIENTS:
                del self._clients[next(iter(self._clients))]
        elif self._clients:
            self._clients.pop(client, None)

    def others_ran(self) -> None:
        """A call for other clients has ended."""
        self._others_ran = True

    def ran(self, now: float, seconds: float) -> None:
        """A call for clients on probation has ended, after ``seconds``."""
        self.next_call = now + seconds * (1 / _SHARE - 1) if self._others_ran else now
        self._others_ran = False
