"""Where figures are kept between scrapes: plain cells, written on the event loop only.

prometheus-client's own metrics take a lock and look labels up with every observation, some 2 µs each; a request makes
six, which would be a tenth of all that it costs the server. These take 0.2 µs; ``exposition`` turns them into
prometheus-client's families when somebody asks.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

# Bit 0 of the flags at the end says that the trace is kept somewhere, so that it can be looked at.
_SAMPLED = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f][13579bdf]")


class Example(NamedTuple):
    """A request to look at: its trace, and what was observed of it at which Unix time."""

    trace_id: str
    span_id: str
    value: float
    time: float


class Histogram:
    """Counts observations by upper bound; ``counts`` has one more, for what is over the last bound."""

    __slots__ = ("bounds", "counts", "exemplars", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0
        self.exemplars: dict[int, Example] | None = None
        """Of each bucket the last observation of a sampled trace."""

    def observe(self, value: float, times: int = 1) -> None:
        """Count ``times`` observations of the same value."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def observe_traced(self, value: float, traceparent: bytes) -> None:
        """Count an observation, and keep its trace as the bucket's exemplar if it is sampled."""
        self.observe(value)
        found = _SAMPLED.fullmatch(traceparent)
        if found is not None:
            if self.exemplars is None:
                self.exemplars = {}
            example = Example(found[1].decode(), found[2].decode(), value, time.time())
            self.exemplars[bisect_left(self.bounds, value)] = example
