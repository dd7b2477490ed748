"""``backline`` with a clock at the doors that a request goes through: ``python profiled_server.py FILE serve ...``.

Run by the server's interpreter. The clocks are put around methods of the server here, from outside, so that the real
one carries none. When the server ends, ``FILE`` gets the times of each prediction, in seconds of ``time.perf_counter``,
which on Linux is one clock for all processes.

::

    came ─HTTP parsed, routed─▶ called ─body read─▶ submitted ─queue─▶ started ─channel and worker─▶ answered
         ─event loop─▶ sending ─▶ done
"""

from __future__ import annotations

import contextvars
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from backline.api.endpoint import Endpoint
from backline.cli.main import main
from backline.runtime.call import Call, Reply
from backline.runtime.dispatcher import Dispatcher
from backline.runtime.worker import Worker

_KEY = "backline.profile"

Times = dict[str, float]

finished: list[Times] = []
of_this_task: contextvars.ContextVar[Times] = contextvars.ContextVar("of_this_task")
of_call: dict[int, Times] = {}  # by the call's id in the dispatcher


def wrap(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``make(method)`` in the place of a method."""
    setattr(owner, name, make(getattr(owner, name)))


def note_coming(receive: Callable[..., Any]) -> Callable[..., Any]:
    """Around ``HttpToolsProtocol.data_received``: bytes of a request have come."""

    def data_received(self: Any, data: bytes) -> None:
        self.came = time.perf_counter()
        receive(self, data)

    return data_received


def note_beginning(begin: Callable[..., Any]) -> Callable[..., Any]:
    """Around ``HttpToolsProtocol.on_message_begin``, which makes the scope."""

    def on_message_begin(self: Any) -> None:
        begin(self)
        self.scope[_KEY] = self.came

    return on_message_begin


def note_call(call: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Around ``Endpoint.__call__``, and the ``send`` that it is given."""

    async def wrapped(self: Any, scope: Any, receive: Any, send: Any) -> None:
        times = {"came": scope.get(_KEY, 0.0), "called": time.perf_counter()}
        token = of_this_task.set(times)

        async def sending(message: Any) -> None:
            times.setdefault("sending", time.perf_counter())
            await send(message)

        try:
            await call(self, scope, receive, sending)
        finally:
            of_this_task.reset(token)
            times["done"] = time.perf_counter()
            if "answered" in times:
                finished.append(times)

    return wrapped


def note_submit(submit: Callable[..., None]) -> Callable[..., None]:
    """Around ``Dispatcher.submit``: a free worker may be given the call before it returns."""

    def wrapped(self: Any, call: Call) -> None:
        times = of_this_task.get()
        times["submitted"] = time.perf_counter()
        of_call[id(call)] = times
        submit(self, call)

    return wrapped


def note_start(start: Callable[..., None]) -> Callable[..., None]:
    """Around ``Worker.start``: the calls leave the queue."""

    def wrapped(self: Any, calls: list[Call]) -> None:
        now = time.perf_counter()
        for call in calls:
            if id(call) in of_call:
                of_call[id(call)]["started"] = now
        start(self, calls)

    return wrapped


def note_answer(finish: Callable[..., None]) -> Callable[..., None]:
    """Around ``Dispatcher.calls_finished``: the worker's own timings come with the answer."""

    def wrapped(self: Any, worker: Worker, results: Any, seconds: float) -> None:
        now = time.perf_counter()
        for call, result in results:
            times = of_call.pop(id(call), None)
            if times is not None and isinstance(result, Reply):
                times |= {"answered": now, "batch": len(results), **result.seconds}
        finish(self, worker, results, seconds)

    return wrapped


if __name__ == "__main__":
    wrap(HttpToolsProtocol, "data_received", note_coming)
    wrap(HttpToolsProtocol, "on_message_begin", note_beginning)
    wrap(Endpoint, "__call__", note_call)
    wrap(Dispatcher, "submit", note_submit)
    wrap(Worker, "start", note_start)
    wrap(Dispatcher, "calls_finished", note_answer)
    target = Path(sys.argv.pop(1))
    code = main()
    target.write_text(json.dumps(finished))
    sys.exit(code)
