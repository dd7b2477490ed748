"""A store behind a thread of its own, for an event loop that may wait for it but not be held up by it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import functools
from collections.abc import AsyncIterator, Callable
from typing import Concatenate, ParamSpec, TypeVar

from backline.parity.store import Store

P = ParamSpec("P")
T = TypeVar("T")


class StoreDesk:
    """Does with the store what it is handed, one thing after the other; made by ``store_desk``."""

    def __init__(self, store: Store, thread: concurrent.futures.Executor) -> None:
        self._store = store
        self._thread = thread
        self._loop = asyncio.get_running_loop()

    async def use(self, what: Callable[Concatenate[Store, P], T], *args: P.args, **more: P.kwargs) -> T:
        """Return ``what(store, *args, **more)``, called in the store's thread. It is done even if we are cancelled."""
        return await self._loop.run_in_executor(self._thread, functools.partial(what, self._store, *args, **more))


@contextlib.asynccontextmanager
async def store_desk(opened: Callable[[], Store]) -> AsyncIterator[StoreDesk]:
    """Open a store in its thread for the block, and close it."""
    loop = asyncio.get_running_loop()
    with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix="parity-store") as thread:
        store = await loop.run_in_executor(thread, opened)
        try:
            yield StoreDesk(store, thread)
        finally:
            await asyncio.shield(loop.run_in_executor(thread, store.close))
