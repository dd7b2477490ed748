"""Requests that take their time are looked after: bodies that do not come, clients that leave."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backline.api.lookout import Lookout, OpenRequest


class Client:
    """The other end of ``receive``: silent until it leaves."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()
        self.asked = 0

    async def receive(self) -> Any:
        self.asked += 1
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def wait(event: asyncio.Event) -> None:
    async with asyncio.timeout(30):
        await event.wait()


def test_a_client_that_leaves_is_noticed_once() -> None:
    async def main() -> tuple[int, bool]:
        client, lookout, left = Client(), Lookout(), asyncio.Event()
        calls = 0

        def leave() -> None:
            nonlocal calls
            calls += 1
            left.set()

        request = OpenRequest(client.receive, asyncio.current_task(), None)
        lookout.open(request, asyncio.get_running_loop())
        request.wait_for_answer(leave)
        client.gone.set()
        await wait(left)
        await asyncio.sleep(3 * Lookout.PERIOD)  # what is waited for is that nothing more comes
        seen = request.client_left
        lookout.close(request)
        return calls, seen

    assert asyncio.run(main()) == (1, True)


def test_a_body_that_is_not_there_at_the_deadline_is_given_up() -> None:
    async def main() -> bool:
        client, lookout = Client(), Lookout()
        loop = asyncio.get_running_loop()
        request = OpenRequest(client.receive, asyncio.current_task(), loop.time() + 0.01)
        lookout.open(request, loop)
        with pytest.raises(asyncio.CancelledError):
            await wait(client.gone)
        lookout.close(request)
        return request.late

    assert asyncio.run(main())


def test_a_quick_request_is_never_looked_at() -> None:
    async def main() -> int:
        client, lookout = Client(), Lookout()
        loop = asyncio.get_running_loop()
        for _ in range(3):
            request = OpenRequest(client.receive, asyncio.current_task(), loop.time() + 60)
            lookout.open(request, loop)
            request.wait_for_answer(lambda: None)
            lookout.close(request)
        await asyncio.sleep(3 * Lookout.PERIOD)  # what is waited for is that nothing comes
        return client.asked

    assert asyncio.run(main()) == 0
