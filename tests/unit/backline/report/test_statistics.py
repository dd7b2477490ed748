from __future__ import annotations

import random

import pytest

from backline.report.statistics import quantile, quantile_with_interval


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, 50), (0.95, 95), (0.99, 99), (1.0, 100), (0.0, 1)],
    ids=["p50", "p95", "p99", "1", "0"],
)
def test_a_quantile_is_a_value_of_the_sample(share: float, expected: int) -> None:
    assert quantile(list(range(1, 101)), share) == expected


def test_the_interval_is_that_of_drawn_resamples() -> None:
    """The short way over the ranks gives what resampling gives."""
    chance = random.Random(1)
    sample = sorted(chance.expovariate(10) for _ in range(300))
    for share in (0.5, 0.95):
        short = quantile_with_interval(sample, share)
        drawn = sorted(quantile(sorted(chance.choices(sample, k=len(sample))), share) for _ in range(2000))
        for ours, theirs in ((short.low, drawn[50]), (short.high, drawn[1950])):
            place = sum(value <= theirs for value in sample)
            around = sample[max(0, place - 5)], sample[min(len(sample) - 1, place + 5)]
            assert around[0] <= ours <= around[1]


@pytest.mark.parametrize("share", [0.5, 0.95, 0.99])
def test_the_interval_holds_the_true_quantile_most_of_the_time(share: float) -> None:
    chance = random.Random(2)
    hits = 0
    for _ in range(200):
        found = quantile_with_interval(sorted(chance.random() for _ in range(400)), share)
        hits += found.low <= share <= found.high
    assert hits >= 170  # 95 % of 200 are 190; the interval is known to be a little too short in the tail


def test_one_value_is_its_own_quantile_and_interval() -> None:
    found = quantile_with_interval([0.25], 0.99)
    assert (found.low, found.value, found.high) == (0.25, 0.25, 0.25)
