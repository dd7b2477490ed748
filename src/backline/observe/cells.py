"""Where figures are kept between scrapes: plain cells, written on the event loop only.

prometheus-client's own metrics take a lock and look labels up with every observation, some 2 µs each; a request makes
six, which would be a tenth of all that it costs the server. These take 0.2 µs; ``exposition`` turns them into
prometheus-client's families when somebody asks.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_TRACEPARENT_LENGTH = 55  # of version 00, the only one there is
_SAMPLED = b"13579bdf"  # last digits of the flags with bit 0 set: the trace is kept somewhere, so it can be looked at


class Histogram:
    """Counts observations by upper bound; ``counts`` has one more, for what is over the last bound."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, tuple[bytes, float, float]] | None = None
        """Of each bucket the last observation of a sampled trace: ``traceparent``, value and Unix time."""

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``times`` observations of the same value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_traced(self, value: float, traceparent: bytes) -> None:
        """Count an observation, and keep its trace as the bucket's exemplar if it is sampled."""
        self.observe(value)
        if len(traceparent) == _TRACEPARENT_LENGTH and traceparent[-1] in _SAMPLED:
            if self.exemplars is None:
                self.exemplars = {}
            self.exemplars[bisect_left(self.bounds, value)] = (traceparent, value, time.time())
