"""How long a request would wait, learnt from calls that the test makes up."""

from __future__ import annotations

import pytest

from backline.runtime.pace import Pace


def test_nothing_is_expected_before_a_call_was_seen() -> None:
    assert Pace(100).wait(1000, 1, batching=False) == 0
    assert Pace(100).wait(1000, 1, batching=True) == 0


def test_calls_of_their_own_are_waited_for_one_after_another() -> None:
    pace = Pace(100)
    for _ in range(50):
        pace.observe(1, 1, 0.01)
    assert pace.call == pytest.approx(0.01)
    assert pace.wait(99, 1, batching=False) == pytest.approx(1.0)
    assert pace.wait(99, 4, batching=False) == pytest.approx(0.25)
    assert pace.wait(99, 0, batching=False) == pytest.approx(1.0)  # the only worker is being replaced


def test_shared_calls_take_as_many_as_they_may() -> None:
    pace = Pace(128)
    for rows in (1, 8, 64, 128) * 20:
        pace.observe(rows, rows, 0.003 + 0.0001 * rows)
    # 1280 that wait are ten calls of 128 rows, and there is one before them
    assert pace.wait(1280, 1, batching=True) == pytest.approx(11 * 0.003 + 1280 * 0.0001, rel=0.05)


def test_calls_that_were_hardly_shared_say_little_of_those_that_will_be() -> None:
    pace = Pace(128)
    for _ in range(50):
        pace.observe(1, 1, 0.003)
    assert pace.wait(256, 1, batching=True) == pytest.approx(3 * 0.003)


def test_a_model_that_becomes_slower_is_soon_known_to_be() -> None:
    pace = Pace(100)
    for seconds in [0.01] * 100 + [0.1] * 200:
        pace.observe(1, 1, seconds)
    assert pace.call == pytest.approx(0.1, rel=0.05)


def test_one_huge_request_does_not_make_the_others_look_slow() -> None:
    pace = Pace(100)
    for seconds in [0.01] * 100 + [60.0]:
        pace.observe(1, 1, seconds)
    assert pace.call < 0.013
