"""When a free worker should take what waits, and when a moment's wait gives everybody an answer sooner.

A free worker takes all that waits: a lone request pays nothing, and under load batches form by themselves. With clients
that wait for their answers before they send again, this alone splits them into two halves that take turns, so that
everybody waits for two calls of the model. A short wait for those that were just answered merges the halves, for as
long as it is worth it.

The rule. Let ``n`` be the clients seen (just answered, plus those that wait already), ``a`` the usual time between two
arrivals in a burst, and let a call with ``r`` rows take ``F + w*r``: a fixed part, and a part for each row. Merged, all
``n`` are answered every ``n*a + F + w*r``, as the requests come in while the worker waits. As two halves they are
answered every ``2*F + w*r``, or every ``n*a`` if that is longer, as requests come in while the worker works. Merging
wins when ``n*a < F``, so it is done then and only then: with few clients and a slow model, not with many, nor with a
model that is quick to start and slow by the row. The wait ends when all ``n`` are there, when arrivals pause, or after
``F``.
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
        self._cost = CallCost()
        self._last_arrival = 0.0
        self._target = 0
        self._closes = 0.0

    def arrived(self, now: float) -> None:
        """A request has come in."""
        gap = now - self._last_arrival
        if 0 <= gap < _BURST_GAP:
            self._interval += _WEIGHT * (gap - self._interval)
        self._last_arrival = now

    def finished(self, now: float, *, answered: int, waiting: int, rows: int, seconds: float) -> None:
        """A call has ended that answered ``answered`` requests with ``rows`` rows, while ``waiting`` others wait."""
        self._cost.observe(rows, seconds)
        self._target = 0
        clients = answered + waiting
        if clients < 2:
            return
        fixed = self._cost.fixed_seconds()
        # Now and then a window is left out, so that there are smaller calls to learn from.
        if fixed > self.TICK and clients * self._interval < fixed and self._cost.is_certain():
            self._target = clients
            self._closes = now + fixed
            self._last_arrival = now  # the answers go out only now: the pause is counted from here

    def is_open(self, now: float, waiting: int) -> bool:
        """Whether a worker should still be held back; ``waiting`` requests are there."""
        if self._target == 0:
            return False
        paused = now - self._last_arrival > max(self.TICK, 8 * self._interval)
        if waiting >= self._target or paused or now >= self._closes:
            self._target = 0
            return False
        return True


class CallCost:
    """What a call costs whatever its size, learnt from calls of different sizes.

    Calls are put into classes by the power of two of their rows; a line through the classes' averages, by least squares
    of the relative errors, meets zero rows at the fixed cost. A class that is not seen any more loses its say.
    """

    _FADE = 0.99  # of a class's weight, with each call of another class
    _MOST_WEIGHT = 10.0
    _LEAST_WEIGHT = 0.1  # of a class that says something yet

    def __init__(self) -> None:
        self._calls = 0
        self._classes: dict[int, _SizeClass] = {}

    def observe(self, rows: int, seconds: float) -> None:
        """Take a call into account; ``seconds`` is how long it took."""
        self._calls += 1
        key = rows.bit_length()
        found = self._classes.get(key)
        if found is None:
            found = self._classes[key] = _SizeClass()
        weight = self._weight_now(found)
        found.weight = min(weight + 1, self._MOST_WEIGHT)
        found.seen_at = self._calls
        found.rows += (rows - found.rows) / found.weight
        found.seconds += (seconds - found.seconds) / found.weight

    def is_certain(self) -> bool:
        """Whether calls of at least two sizes were seen not long ago: those of one size do not tell the parts apart."""
        return sum(self._weight_now(seen) >= self._LEAST_WEIGHT for seen in self._classes.values()) > 1

    def fixed_seconds(self) -> float:
        """Return the fixed cost of a call in seconds; of calls of one size alone, all that they take."""
        least = min(seen.seconds for seen in self._classes.values())
        s = sx = sy = sxx = sxy = 0.0
        for seen in self._classes.values():
            weight = self._weight_now(seen) / max(seen.seconds, 1e-9) ** 2
            s += weight
            sx += weight * seen.rows
            sy += weight * seen.seconds
            sxx += weight * seen.rows * seen.rows
            sxy += weight * seen.rows * seen.seconds
        spread = s * sxx - sx * sx
        if spread <= 1e-6 * s * sxx:
            return least
        return min(max((sxx * sy - sx * sxy) / spread, 0.0), least)

    def _weight_now(self, seen: _SizeClass) -> float:
        return float(seen.weight * self._FADE ** (self._calls - seen.seen_at))


class _SizeClass:
    """Averages of the calls of about one size."""

    __slots__ = ("rows", "seconds", "seen_at", "weight")

    def __init__(self) -> None:
        self.weight = 0.0
        self.seen_at = 0
        self.rows = 0.0
        self.seconds = 0.0
