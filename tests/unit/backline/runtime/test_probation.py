"""Who sends what cannot be answered is kept apart from the others, and shares the time with them."""

from __future__ import annotations

import pytest

from backline.runtime import probation
from backline.runtime.probation import Probation


def test_a_fault_puts_a_client_on_probation_until_it_sends_something_sound() -> None:
    found = Probation()
    found.judge("a", failed=True)
    found.judge("b", failed=False)
    assert "a" in found
    assert "b" not in found
    found.judge("a", failed=False)
    assert "a" not in found


def test_a_client_alone_with_its_faults_is_not_held_up() -> None:
    found = Probation()
    for now in range(10):
        assert found.next_call <= now
        found.ran(now, 0.5)


def test_while_others_are_served_probation_gets_a_small_share_of_the_time() -> None:
    found = Probation()
    found.others_ran()
    found.ran(100.0, 0.5)
    assert found.next_call == pytest.approx(100.0 + 0.5 / probation._SHARE - 0.5)


def test_the_oldest_faults_are_forgotten() -> None:
    found = Probation()
    for client in range(probation._MAX_CLIENTS + 1):
        found.judge(client, failed=True)
    assert 0 not in found
    assert probation._MAX_CLIENTS in found
