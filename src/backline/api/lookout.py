"""Looks after requests that take their time: bodies that do not come, clients that leave.

Most requests are answered within milliseconds, before either matters. So nothing is set up for a single request: one
timer passes over all that are open, and does something for the few that were there the time before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import Receive


class OpenRequest:
    """A request from its arrival to its answer: first its body is read, then its client waits.

    ``leave`` is called, at most once, when the client leaves while it waits; ``late`` says that the deadline passed
    before the body was there, and that this is why the task was cancelled.
    """

    __slots__ = ("_deadline", "_leave", "_passed_over", "_receive", "_task", "_watch", "late")

    def __init__(self, receive: Receive, task: asyncio.Task[None] | None, deadline: float | None) -> None:
        self.late = False
        self._receive = receive
        self._task = task
        self._deadline = deadline
        self._leave: Callable[[], None] | None = None
        self._passed_over = False
        self._watch: asyncio.Task[None] | None = None

    def wait_for_answer(self, leave: Callable[[], None]) -> None:
        """The body is there: from now on it matters whether the client stays. The last ``leave`` counts."""
        self._leave = leave

    @property
    def reading(self) -> bool:
        """Whether the body is still on its way."""
        return self._leave is None

    def give_up(self) -> None:
        """Cancel the request's task; what its client is told is the endpoint's affair."""
        if self._task is not None:
            self._task.cancel()

    @property
    def client_left(self) -> bool:
        """Whether the client was seen to leave."""
        return self._watch is not None and self._watch.done()

    def look(self, now: float) -> bool:
        """See to it, and say whether that was all there is to do; called by the ``Lookout`` only, until it is."""
        if self._leave is None:
            if self._deadline is not None and now >= self._deadline and self._task is not None and not self.late:
                self.late = True
                self._task.cancel()
        elif not self._passed_over:
            self._passed_over = True
        else:
            self._watch = asyncio.get_running_loop().create_task(self._await_leaving())
            return True
        return False

    def close(self) -> None:
        """Stop looking."""
        if self._watch is not None:
            self._watch.cancel()

    async def _await_leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        assert self._leave is not None
        self._leave()


class Lookout:
    """The open requests that have to be looked after, and the timer that passes over them.

    One whose client is watched needs no more looks: a thousand open streams cost nothing here.
    """

    PERIOD = 0.05  # seconds

    def __init__(self) -> None:
        self._open: dict[OpenRequest, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    def open(self, request: OpenRequest, loop: asyncio.AbstractEventLoop) -> None:
        """Look after this request until it is closed."""
        self._open[request] = None
        if self._timer is None:
            self._timer = loop.call_later(self.PERIOD, self._pass, loop)

    def close(self, request: OpenRequest) -> None:
        """The request is answered, or given up."""
        self._open.pop(request, None)
        request.close()

    @property
    def reading(self) -> bool:
        """Whether the body of a request is still on its way."""
        return any(request.reading for request in self._open)

    def give_up_bodies(self) -> None:
        """Cancel the requests whose bodies are not here: nobody works on them, and they may never come."""
        for request in list(self._open):
            if request.reading:
                request.give_up()

    def _pass(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(self.PERIOD, self._pass, loop) if self._open else None
        now = loop.time()
        for request in list(self._open):
            if request.look(now):
                del self._open[request]
