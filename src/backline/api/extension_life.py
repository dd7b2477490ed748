"""The operator's start and stop work: begun after the server's own, ended before it, each with a deadline."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from backline.api.extension import Extension, failure
from backline.config.problems import SettingError
from backline.observe.loop_watch import LoopWatch

if TYPE_CHECKING:
    from backline.api.application import Application
    from backline.api.state import ApiState

logger = logging.getLogger("backline.api")

_STOP_SECONDS = 30.0

Contexts = list[Callable[[Any], AbstractAsyncContextManager[Any]]]


class StartStopped(Exception):
    """The server was told to stop while the operator's start work went on."""


@contextlib.asynccontextmanager
async def extension_running(app: Application, state: ApiState, contexts: Contexts) -> AsyncIterator[None]:
    """Run the operator's start work, for ``--start-timeout`` at most; watch the loop; run his stop work at the end.

    ``contexts`` are what the application's router has collected. Start and stop run in one task, as context managers
    may ask for it. Raises ``SettingError`` naming the line, and ``StartStopped``.
    """
    extension = state.extension
    assert extension is not None
    if extension.lifespan is not None:
        contexts = [*contexts, extension.lifespan]
    watch = state.loop_watch = LoopWatch(extension.file.parent)
    watch.start()
    started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(_hold(app, extension, contexts, started, stop))
            try:
                await _wait_started(started, state, extension)
                yield
            finally:
                stop.set()
                if not started.done():
                    task.cancel()
                _, late = await asyncio.wait([task], timeout=_STOP_SECONDS)
                if late:
                    logger.error(
                        "the stop work of %s is not done after %g s, and is left", extension.file, _STOP_SECONDS
                    )
                    task.cancel()
                watch.stop()
    except BaseExceptionGroup as group:
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise


async def _wait_started(started: asyncio.Future[None], state: ApiState, extension: Extension) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + state.settings.workers.start_timeout
    # Not one long wait: uvicorn hears signals while it starts, and does nothing about them until then.
    while not started.done():
        await asyncio.wait([started], timeout=0.1)
        if state.leaving and not started.done():
            raise StartStopped
        if loop.time() > deadline and not started.done():
            raise SettingError(
                f"the start work took longer than {state.settings.workers.start_timeout:g} s",
                where=str(extension.file),
                mend="raise --start-timeout, or move what takes long out of it",
            )
    started.result()


async def _hold(
    app: Application, extension: Extension, contexts: Contexts, started: asyncio.Future[None], stop: asyncio.Event
) -> None:
    """Enter the contexts, wait, leave them. Raises nothing: ``started`` has an error of the start, the log the rest."""
    try:
        async with contextlib.AsyncExitStack() as stack:
            for context in contexts:
                await stack.enter_async_context(context(app))
            if not started.done():
                started.set_result(None)
            await stop.wait()
    except Exception as exc:
        error = failure(exc, extension.file, "start work" if not started.done() else "stop work")
        if started.done():
            logger.exception("%s", error)
        else:
            error.__cause__ = exc
            started.set_exception(error)


def events_as_context(app: Application) -> Callable[[Any], AbstractAsyncContextManager[Any]]:
    """Return the handlers of ``@app.on_event``, which a lifespan of one's own leaves out, as one more context."""

    @contextlib.asynccontextmanager
    async def events(_: object) -> AsyncIterator[None]:
        for handler in getattr(app.router, "on_startup", ()):
            await _call(handler)
        try:
            yield
        finally:
            for handler in getattr(app.router, "on_shutdown", ()):
                await _call(handler)

    return events


async def _call(handler: Callable[[], Any]) -> None:
    result = handler()
    if inspect.isawaitable(result):
        await result
