"""What comes again and again is counted."""

from __future__ import annotations

import logging

from backline.observe.repeats import Repeats

WARNING = logging.WARNING


def admitted(repeats: Repeats, text: str, now: float, *, burst: int = 2) -> bool:
    return repeats.admit("backline.api", WARNING, text, burst=burst, now=now)


def test_the_first_are_written_and_the_others_counted_until_the_window_is_over() -> None:
    repeats = Repeats()
    assert [admitted(repeats, f"worker {number} is slow", 0.1 * number) for number in range(10)] == [True] * 2 + [
        False
    ] * 8
    assert not list(repeats.take_ended(9.9))
    (repeated,) = repeats.take_ended(10.0)
    assert (repeated.text, repeated.repeats, repeated.level) == ("worker 9 is slow", 8, WARNING)
    assert admitted(repeats, "worker 10 is slow", 10.1)


def test_different_messages_do_not_hold_each_other_back() -> None:
    repeats = Repeats()
    assert all(admitted(repeats, text, 0.0, burst=1) for text in ("loading", "draining", "queue full"))
    assert not list(repeats.take_ended(0.0, all_of_them=True))


def test_ever_new_messages_are_written_and_not_kept() -> None:
    repeats = Repeats()
    names = ("".join(chr(97 + (number >> shift) % 16) for shift in (0, 4, 8)) for number in range(3000))
    assert all(admitted(repeats, name, 0.0, burst=1) for name in names)
    assert len(repeats._seen) == 1000
