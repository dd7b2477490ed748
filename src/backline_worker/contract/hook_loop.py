"""The event loop of a model's asynchronous hooks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any, Optional


class HookLoop:
    """One loop for as long as the worker lives: clients kept by user code between requests are bound to it.

    Where chats run beside each other it turns in a thread of its own, else in the caller's while ``run`` waits.
    """

    def __init__(self, *, in_thread: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread: Optional[threading.Thread] = None
        if in_thread:
            self._thread = threading.Thread(target=self._turn, name="hooks", daemon=True)
            self._thread.start()
        else:
            asyncio.set_event_loop(self.loop)

    def run(self, awaitable: Any) -> Any:
        """Run an awaitable of user code to its end and return its result."""
        if self._thread is None:
            return self.loop.run_until_complete(_awaited(awaitable))
        exits, result = asyncio.run_coroutine_threadsafe(_without_exit(awaitable), self.loop).result()
        if exits is not None:
            raise exits
        return result

    def close(self) -> None:
        """Stop the loop and close it."""
        if self._thread is None:
            self.loop.close()
            asyncio.set_event_loop(None)
            return
        thread, self._thread = self._thread, None
        self.loop.call_soon_threadsafe(self.loop.stop)
        thread.join(1)
        if not thread.is_alive():
            self.loop.close()

    def _turn(self) -> None:
        asyncio.set_event_loop(self.loop)
        while self._thread is not None:
            # sys.exit() in a task of the user's own would end it, and it is everybody's.
            with contextlib.suppress(BaseException):
                self.loop.run_forever()


async def _awaited(awaitable: Any) -> Any:
    return await awaitable


async def _without_exit(awaitable: Any) -> Any:
    """Return exception and result: ``SystemExit`` would leave the loop rather than come to who waits."""
    try:
        return None, await awaitable
    except (SystemExit, KeyboardInterrupt) as exc:
        return exc, None
