"""Deadlines are kept to the moment, near or far, and forgotten when they do not matter any more."""

from __future__ import annotations

import asyncio

from backline.runtime import deadlines
from backline.runtime.deadlines import Deadlines


async def reached_after(wait: float) -> float:
    """Return how many seconds late a deadline ``wait`` seconds away was."""
    loop = asyncio.get_running_loop()
    reached = loop.create_future()
    found = Deadlines[str](loop, reached.set_result)
    at = loop.time() + wait
    found.add("call", at)
    assert await asyncio.wait_for(reached, wait + 30) == "call"
    return loop.time() - at


def test_a_near_deadline_is_kept() -> None:
    assert 0 <= asyncio.run(reached_after(0.01)) < 5


def test_a_far_deadline_gets_its_timer_in_time() -> None:
    assert 0 <= asyncio.run(reached_after(2.5 * deadlines._NEAR)) < 5


def test_a_discarded_deadline_is_not_acted_on() -> None:
    async def main() -> list[str]:
        loop = asyncio.get_running_loop()
        acted: list[str] = []
        done = loop.create_future()

        def act(name: str) -> None:
            acted.append(name)
            if name == "last":
                done.set_result(None)

        found = Deadlines[str](loop, act)
        now = loop.time()
        for name, wait in (("near", 0.01), ("far", 2.1 * deadlines._NEAR), ("last", 2.3 * deadlines._NEAR)):
            found.add(name, now + wait)
        found.discard("near")
        found.discard("far")
        found.discard("never added")
        await asyncio.wait_for(done, 30)
        return acted

    assert asyncio.run(main()) == ["last"]


def test_nothing_runs_while_there_is_nothing_to_look_after() -> None:
    async def main() -> bool:
        loop = asyncio.get_running_loop()
        found = Deadlines[str](loop, lambda _: None)
        found.add("far", loop.time() + 600)
        found.discard("far")
        await asyncio.sleep(1.5 * deadlines._NEAR)  # what is waited for is that nothing comes
        return found._look is None

    assert asyncio.run(main())
