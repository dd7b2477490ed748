"""When a free worker should take what waits, and when a moment's wait gives everybody an answer sooner.

A free worker takes all that waits: a lone request pays nothing, and under load batches form by themselves. With clients
that wait for their answers before they send again, this alone splits them into two halves that take turns, so that
everybody waits for two calls of the model. A short wait for those that were just answered merges the halves, for as
long as it is worth it.

The rule. Let ``n`` be the clients seen (just answered, plus those that wait already), ``a`` the usual time between two
arrivals in a burst and ``T`` the time of a call. Merged, ``n`` answers take ``T + n*a``: the worker waits while the
requests come in. As two halves they take ``2*max(T, n*a/2)``: requests come in while the worker works. Merging wins
when ``n*a < T``, so it is done then and only then: with few clients and a slow model, not with many or a fast one.
The wait ends when all ``n`` are there, when arrivals pause, or after ``T``.
"""

from __future__ import annotations

_BURST_GAP = 0.002  # seconds; a longer silence is not part of a burst
_WEIGHT = 0.1  # of the newest observation in the averages


class MergeWindow:
    """Decides whether to hold a free worker back for a moment. Pure: told the time, does nothing by itself.

    The owner tells it of every arrival and every finished call, asks ``is_open`` before it gives work to a worker, and
    asks again after each arrival and at least every ``TICK`` seconds while the window is open.
    """

    TICK = 0.001

    def __init__(self) -> None:
        self._interval = 50e-6  # between arrivals of a burst, seconds: a guess until there are observations
        self._service = 0.0  # of a call with several requests or one, seconds
        self._last_arrival = 0.0
        self._target = 0
        self._closes = 0.0

    def arrived(self, now: float) -> None:
        """A request has come in."""
        gap = now - self._last_arrival
        if 0 <= gap < _BURST_GAP:
            self._interval += _WEIGHT * (gap - self._interval)
        self._last_arrival = now

    def finished(self, now: float, *, answered: int, waiting: int, seconds: float) -> None:
        """A call has ended that answered ``answered`` requests in ``seconds``, while ``waiting`` others wait."""
        self._service = seconds if self._service == 0 else self._service + _WEIGHT * (seconds - self._service)
        clients = answered + waiting
        if clients > 1 and clients * self._interval < self._service and self._service > self.TICK:
            self._target = clients
            self._closes = now + self._service
            self._last_arrival = now  # the answers go out only now: the pause is counted from here
        else:
            self._target = 0

    def is_open(self, now: float, waiting: int) -> bool:
        """Whether a worker should still be held back; ``waiting`` requests are there."""
        if self._target == 0:
            return False
        paused = now - self._last_arrival > max(self.TICK, 8 * self._interval)
        if waiting >= self._target or paused or now >= self._closes:
            self._target = 0
            return False
        return True
