"""How long a request would wait, by what waits already and how quickly the model has answered of late.

A queue that is bounded by its length alone makes everybody wait for the whole of it. Where clients have deadlines it is
worse: each request gets its turn when its time is nearly up, and all the work is done for nobody. So what could not be
answered in time is refused when it comes, while the client can still go elsewhere.
"""

from __future__ import annotations

from backline.runtime.batching import LinearTime

_FADE = 0.97  # of what was seen, with each further call of the model
_OUTLIER = 8.0  # times the average: what takes longer counts as so much, or one huge request would have others refused


class Pace:
    """Learns from the calls that were answered. Pure: told the times, does nothing by itself.

    ``most_rows`` is how many a call of the model may have where requests share it.
    """

    def __init__(self, most_rows: int) -> None:
        self.call = 0.0
        """Seconds that a call of the model takes on average; 0 until one has been seen."""
        self._most_rows = most_rows
        self._shared = LinearTime()
        self._requests = 0.0  # these are sums that fade
        self._rows = 0.0
        self._calls = 0.0
        self._seconds = 0.0
        self._fixed = self._each = 0.0
        self._stale = False

    def observe(self, requests: int, rows: int, seconds: float) -> None:
        """A call of the model has answered so many requests with so many rows."""
        if self.call:
            seconds = min(seconds, _OUTLIER * self.call)
        self._calls = self._calls * _FADE + 1
        self._requests = self._requests * _FADE + requests
        self._rows = self._rows * _FADE + rows
        self._seconds = self._seconds * _FADE + seconds
        self.call = self._seconds / self._calls
        self._shared.observe(max(1, rows), seconds)
        self._stale = True

    def wait(self, waiting: int, workers: int, *, batching: bool) -> float:
        """Return for how many seconds a request is expected to wait behind ``waiting`` others, all workers being busy.

        0 where nothing is known yet. Where none serves, as all are being replaced, one is taken for granted.
        """
        if not self.call:
            return 0.0
        if not batching:
            return (waiting + 1) * self.call / max(1, workers)
        if self._stale:
            self._stale = False
            self._fixed, self._each = self._shared.fixed(), self._shared.each()
        rows = waiting * self._rows / self._requests
        return (self._fixed * (1 + rows / self._most_rows) + self._each * rows) / max(1, workers)
