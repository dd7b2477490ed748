"""When a worker waits for more requests, by a clock that the test moves."""

from __future__ import annotations

import pytest

from backline.runtime.batching import LinearTime, MergeWindow


def burst(window: MergeWindow, clients: int, interval: float, start: float = 0.0) -> float:
    """Let ``clients`` requests arrive; return the time of the last one."""
    now = start
    for _ in range(clients):
        now += interval
        window.arrived(now)
    return now


def seen(clients: int, interval: float, fixed: float, by_row: float = 0.0) -> tuple[MergeWindow, float]:
    """A window that has seen many bursts of one-row requests, at the end of a call that answered half of the clients.

    A call takes ``fixed`` and ``by_row`` for each row, in seconds.
    """
    window = MergeWindow()
    now = 0.0
    half = clients // 2 or 1
    for turn in range(60):
        rows = half if turn % 2 else clients
        seconds = fixed + by_row * rows
        now = burst(window, rows, interval, now) + seconds
        window.finished(now, answered=rows, waiting=clients - rows, rows=rows, seconds=seconds)
    return window, now


def test_a_lone_client_is_never_made_to_wait() -> None:
    window = MergeWindow()
    now = 0.0
    for _ in range(100):
        now = burst(window, 1, 0.00005, now) + 0.003
        window.finished(now, answered=1, waiting=0, rows=1, seconds=0.003)
        assert not window.is_open(now, 0)
        assert not window.is_open(now, 1)


def test_with_few_clients_and_a_slow_model_those_just_answered_are_waited_for() -> None:
    window, now = seen(8, 0.00005, 0.003)
    assert window.is_open(now, 4)
    now = burst(window, 4, 0.00005, now)
    assert not window.is_open(now, 8)


def test_two_clients_that_take_turns_are_brought_together() -> None:
    window = MergeWindow()
    now = 0.0
    for _ in range(3):  # each comes in again while the other is answered
        now = burst(window, 1, 0.0001, now) + 0.003
        window.finished(now, answered=1, waiting=1, rows=1, seconds=0.003)
    assert window.is_open(now, 1)
    now = burst(window, 1, 0.0001, now)
    assert not window.is_open(now, 2)
    now += 0.003
    window.finished(now, answered=2, waiting=0, rows=2, seconds=0.003)
    assert window.is_open(now, 0)


def test_with_more_clients_than_a_call_takes_to_come_in_nobody_is_waited_for() -> None:
    window, now = seen(128, 0.00005, 0.003)
    assert not window.is_open(now, 64)


def test_a_fast_model_is_never_held_back() -> None:
    window, now = seen(8, 0.00005, 0.0003)
    assert not window.is_open(now, 4)


def test_a_model_that_is_slow_by_the_row_is_not_held_back_however_long_its_calls() -> None:
    window, now = seen(32, 0.00005, 0.0005, by_row=0.001)
    assert not window.is_open(now, 16)


def test_the_wait_ends_when_arrivals_pause() -> None:
    window, now = seen(8, 0.00005, 0.01)
    now = burst(window, 2, 0.00005, now)
    assert window.is_open(now + MergeWindow.TICK / 2, 6)
    assert not window.is_open(now + 2 * MergeWindow.TICK, 6)


def test_the_wait_is_never_longer_than_the_fixed_part_of_a_call() -> None:
    window, now = seen(8, 0.0003, 0.003)
    end = now + 0.003
    while now < end - 0.0005:
        now += 0.0005
        window.arrived(now)
        assert window.is_open(now, 5)
    assert not window.is_open(end + 1e-9, 5)


def test_calls_of_one_size_are_now_and_then_split_to_learn_from_smaller_ones() -> None:
    window, now = seen(8, 0.00005, 0.003)
    left_out = 0
    for _ in range(2000):
        now = burst(window, 8, 0.00005, now) + 0.003
        window.finished(now, answered=8, waiting=0, rows=8, seconds=0.003)
        if not window.is_open(now, 0):
            left_out += 1
            window.finished(now, answered=4, waiting=4, rows=4, seconds=0.003)
    assert 0 < left_out < 20  # under a hundredth, so that not even the slowest hundredth of the answers shows it


@pytest.mark.parametrize(("fixed", "by_row"), [(0.003, 0.0), (0.003, 0.00001), (0.0, 0.001), (0.0005, 0.0001)])
def test_the_fixed_cost_of_a_call_is_learnt_from_calls_of_different_sizes(fixed: float, by_row: float) -> None:
    cost = LinearTime()
    for turn in range(200):
        rows = (1, 7, 8, 33, 120)[turn % 5]
        cost.observe(rows, fixed + by_row * rows)
    assert cost.is_certain()
    assert cost.fixed() == pytest.approx(fixed, abs=1e-5)


def test_what_a_cold_start_took_is_forgotten() -> None:
    cost = LinearTime()
    cost.observe(1, 0.5)
    for turn in range(1000):
        rows = (16, 32)[turn % 2]
        cost.observe(rows, 0.002 + 0.00001 * rows)
    assert cost.fixed() == pytest.approx(0.002, rel=0.02)


def test_calls_of_one_size_say_nothing_certain() -> None:
    cost = LinearTime()
    for _ in range(100):
        cost.observe(32, 0.004)
    assert not cost.is_certain()
    assert cost.fixed() == pytest.approx(0.004)
