"""When a worker waits for more requests, by a clock that the test moves."""

from __future__ import annotations

from backline.runtime.batching import MergeWindow


def burst(window: MergeWindow, clients: int, interval: float, start: float = 0.0) -> float:
    """Let ``clients`` requests arrive; return the time of the last one."""
    now = start
    for _ in range(clients):
        now += interval
        window.arrived(now)
    return now


def seen(clients: int, interval: float, service: float) -> tuple[MergeWindow, float]:
    """A window that has seen many bursts of this kind, at the end of a call that answered half of the clients."""
    window = MergeWindow()
    now = 0.0
    for _ in range(30):
        now = burst(window, clients, interval, now) + service
        window.finished(now, answered=clients // 2 or 1, waiting=clients - (clients // 2 or 1), seconds=service)
    return window, now


def test_a_lone_client_is_never_made_to_wait() -> None:
    window = MergeWindow()
    now = burst(window, 1, 0.00005)
    window.finished(now + 0.003, answered=1, waiting=0, seconds=0.003)
    assert not window.is_open(now + 0.003, 0)
    assert not window.is_open(now + 0.003, 1)


def test_with_few_clients_and_a_slow_model_those_just_answered_are_waited_for() -> None:
    window, now = seen(8, 0.00005, 0.003)
    assert window.is_open(now, 4)
    now = burst(window, 4, 0.00005, now)
    assert not window.is_open(now, 8)


def test_with_more_clients_than_a_call_takes_to_come_in_nobody_is_waited_for() -> None:
    window, now = seen(128, 0.00005, 0.003)
    assert not window.is_open(now, 64)


def test_a_fast_model_is_never_held_back() -> None:
    window, now = seen(8, 0.00005, 0.0003)
    assert not window.is_open(now, 4)


def test_the_wait_ends_when_arrivals_pause() -> None:
    window, now = seen(8, 0.00005, 0.01)
    now = burst(window, 2, 0.00005, now)
    assert window.is_open(now + MergeWindow.TICK / 2, 6)
    assert not window.is_open(now + 2 * MergeWindow.TICK, 6)


def test_the_wait_is_never_longer_than_a_call() -> None:
    window, now = seen(8, 0.0003, 0.003)
    end = now + 0.003
    while now < end - 0.0005:
        now += 0.0005
        window.arrived(now)
        assert window.is_open(now, 5)
    assert not window.is_open(end, 5)
