"""When a free worker should take what waits, and when a moment's wait gives everybody an answer sooner.

A free worker takes all that waits: a lone request pays nothing, and under load batches form by themselves. With clients
that wait for their answers before they send again, this alone splits them into two halves that take turns, so that
everybody waits for two calls of the model. A short wait for those that were just answered merges the halves, for as
long as it is worth it.

The rule. Let ``n`` be the clients seen (just answered, plus those that wait already), ``R(n)`` the time in which so
many come in again once they are answered, and let a call with ``r`` rows take ``F + w*r``: a fixed part, and a part for
each row. Merged, all ``n`` are answered every ``R(n) + F + w*r``, as the requests come in while the worker waits. As
two halves they are answered every ``2*F + w*r``, or every ``R(n)`` if that is longer, as requests come in while the
worker works. Merging wins when ``R(n) < F``, so it is done then and only then: with few clients and a slow model, not
with many, nor with a model that is quick to start and slow by the row. The wait ends when all ``n`` are there, when
arrivals pause, or after ``F``.
"""

from __future__ import annotations

_RETURN_FADE = 0.9  # of what was seen of returning clients, with each further observation


class MergeWindow:
    """Decides whether to hold a free worker back for a moment. Pure: told the time, does nothing by itself.

    The owner tells it of every arrival and every finished call, asks ``is_open`` before it gives work to a worker, and
    asks again after each arrival and at least every ``TICK`` seconds while the window is open.
    """

    TICK = 0.001

    def __init__(self) -> None:
        self._call = LinearTime()  # of a call, by its rows
        # From answers to the next requests of those answered: sums for the time of each, ``seconds*number/number**2``.
        # So the many count more than the few, whose time is that of the way and not of their number.
        self._return_seconds = 0.0
        self._return_squares = 0.0
        self._answered = 0
        self._answered_at = 0.0
        self._missing = 0  # of those answered, how many have not come in again
        self._last_arrival = 0.0
        self._target = 0
        self._closes = 0.0

    def arrived(self, now: float) -> None:
        """A request has come in."""
        self._last_arrival = now
        if self._missing:
            self._missing -= 1
            if not self._missing:
                number = self._answered
                self._return_seconds = _RETURN_FADE * self._return_seconds + number * (now - self._answered_at)
                self._return_squares = _RETURN_FADE * self._return_squares + number * number

    def finished(self, now: float, *, answered: int, waiting: int, rows: int, seconds: float) -> None:
        """A call has ended that answered ``answered`` requests with ``rows`` rows, while ``waiting`` others wait."""
        self._call.observe(rows, seconds)
        self._answered = self._missing = answered
        self._answered_at = now
        self._target = 0
        clients = answered + waiting
        if clients < 2:
            return
        fixed = self._call.fixed()
        if fixed <= self.TICK or self._return_of(clients) >= fixed:
            return
        # Calls of one size alone do not tell what is fixed. Then the other thing is done for once: where all come in
        # together a window is left out, and where they take turns one is opened.
        if self._call.is_certain() or waiting:
            self._target = clients
            self._closes = now + fixed
            self._last_arrival = now  # the answers go out only now: the pause is counted from here

    def _return_of(self, clients: int) -> float:
        return clients * self._return_seconds / self._return_squares if self._return_squares else 0.0

    def is_open(self, now: float, waiting: int) -> bool:
        """Whether a worker should still be held back; ``waiting`` requests are there."""
        if self._target == 0:
            return False
        paused = now - self._last_arrival > self.TICK
        if waiting >= self._target or paused or now >= self._closes:
            self._target = 0
            return False
        return True


class LinearTime:
    """A time that grows with a number: a fixed part and a part for each unit, learnt from what is observed.

    Observations are put into classes by the power of two of their number; the line through the classes' averages is
    that of the least squares of relative errors. A class that is not seen any more loses its say.
    """

    _FADE = 0.99  # of a class's weight, with each observation of another class
    _MOST_WEIGHT = 10.0
    _LEAST_WEIGHT = 0.1  # of a class that says something yet

    def __init__(self) -> None:
        self._observations = 0
        self._classes: dict[int, _SizeClass] = {}

    def observe(self, number: int, seconds: float) -> None:
        """Take an observation into account: ``number`` (1 or more) took ``seconds``."""
        self._observations += 1
        key = number.bit_length()
        found = self._classes.get(key)
        if found is None:
            found = self._classes[key] = _SizeClass()
        found.weight = min(self._weight_now(found) + 1, self._MOST_WEIGHT)
        found.seen_at = self._observations
        found.number += (number - found.number) / found.weight
        found.seconds += (seconds - found.seconds) / found.weight

    def is_certain(self) -> bool:
        """Whether numbers of two sizes were seen not long ago: those of one size do not tell the parts apart."""
        return sum(self._weight_now(seen) >= self._LEAST_WEIGHT for seen in self._classes.values()) > 1

    def fixed(self) -> float:
        """Return the fixed part in seconds; after observations of one size alone, all of what they took."""
        s = sx = sy = sxx = sxy = 0.0
        for seen in self._classes.values():
            weight = self._weight_now(seen) / max(seen.seconds, 1e-9) ** 2
            s += weight
            sx += weight * seen.number
            sy += weight * seen.seconds
            sxx += weight * seen.number * seen.number
            sxy += weight * seen.number * seen.seconds
        spread = s * sxx - sx * sx
        mean = sy / s
        if spread <= 1e-6 * s * sxx:
            return mean
        # Neither part is negative, whatever the noise says.
        return min(max((sxx * sy - sx * sxy) / spread, 0.0), mean)

    def each(self) -> float:
        """Return what each one adds, in seconds; after observations of one size alone, nothing."""
        s = sx = sy = 0.0
        for seen in self._classes.values():
            weight = self._weight_now(seen) / max(seen.seconds, 1e-9) ** 2
            s += weight
            sx += weight * seen.number
            sy += weight * seen.seconds
        return max(0.0, (sy - s * self.fixed()) / sx) if sx else 0.0

    def _weight_now(self, seen: _SizeClass) -> float:
        return float(seen.weight * self._FADE ** (self._observations - seen.seen_at))


class _SizeClass:
    """Averages of the observations of about one size."""

    __slots__ = ("number", "seconds", "seen_at", "weight")

    def __init__(self) -> None:
        self.weight = 0.0
        self.seen_at = 0
        self.number = 0.0
        self.seconds = 0.0
