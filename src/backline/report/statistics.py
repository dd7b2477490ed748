"""Quantiles of measured times, and how far they can be trusted."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

_DRAWS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """A quantile of a sample and the 95 % interval of the bootstrap around it."""

    share: float
    value: float
    low: float
    high: float


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return the smallest value that at least ``share`` of the sample does not exceed; ``ordered`` is sorted."""
    assert ordered
    return ordered[max(0, min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1))]


def quantile_with_interval(ordered: Sequence[float], share: float, *, seed: int = 0) -> Quantile:
    """Return a quantile with the 95 % percentile interval of its bootstrap.

    A resample's k-th value is the sample's value at a rank that is distributed as n times a Beta(k, n - k + 1): the
    resamples themselves need not be drawn (Maritz and Jarrett, 1978). The same seed gives the same interval.
    """
    size = len(ordered)
    rank = max(1, min(size, math.ceil(share * size)))
    draw = random.Random(seed).betavariate  # noqa: S311 - statistics, no secret
    places = sorted(min(size - 1, int(draw(rank, size - rank + 1) * size)) for _ in range(_DRAWS))
    return Quantile(
        share=share,
        value=quantile(ordered, share),
        low=ordered[places[round(0.025 * (_DRAWS - 1))]],
        high=ordered[places[round(0.975 * (_DRAWS - 1))]],
    )
