"""Loads the model folder anew while the old model serves: on SIGHUP, when the operator asks, when a file changes.

Who asks while a reload is under way gets the next one, as the files may have changed after they were read; all who ask
before that begins share it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from backline.config.settings import OPTIONS
from backline.errors import BacklineError, ModelLoadFailed, ReloadFailed
from backline.runtime.supervisor import ModelState

if TYPE_CHECKING:
    from backline.config.model_folder import ModelFolder
    from backline.runtime.service import ModelService

logger = logging.getLogger("backline.runtime")

_TAKEN_SECTIONS = ("model",)
_TAKEN = ("workers.python", "workers.memory_limit", "workers.reload_mode")
"""The settings that a reload takes from the folder; the others are those of the server's start."""


class Reloader:
    """Runs reloads, one after another. ``run`` is its life.

    ``reread`` reads settings and folder as at the start; it may block, and raises ``ConfigError``. ``on_change`` is
    called with the folder that serves from then on.
    """

    def __init__(
        self,
        service: ModelService,
        folder: ModelFolder,
        reread: Callable[[], ModelFolder],
        on_change: Callable[[ModelFolder], None],
    ) -> None:
        self._service = service
        self._folder = folder
        self._reread = reread
        self._on_change = on_change
        self._wanted: asyncio.Future[None] | None = None
        self._asked = asyncio.Event()
        self._began: float | None = None
        self._last: dict[str, Any] | None = None

    def ask(self, reason: str) -> None:
        """Ask for a reload; ``reason`` is for the log, which tells how it went, too."""
        logger.info("the model folder is loaded anew: %s", reason)
        if self._wanted is None:
            self._wanted = asyncio.get_running_loop().create_future()
            self._wanted.add_done_callback(lambda done: done.cancelled() or done.exception())  # it may interest nobody
            self._asked.set()

    async def reload(self, reason: str) -> None:
        """Ask for a reload and wait until it is done. Raises ``ReloadFailed``; cancelling leaves it to go on."""
        self.ask(reason)
        assert self._wanted is not None
        await asyncio.shield(self._wanted)

    def describe(self) -> dict[str, Any]:
        """Return which generation serves, and how the last reload went, for ``/info/``."""
        return {
            "generation": self._service.supervisor.plan.generation,
            "reloading": self._began is not None or self._wanted is not None,
            "last": self._last,
        }

    async def run(self) -> None:
        """Reload whenever somebody asks; never returns."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            wanted, self._wanted = self._wanted, None
            assert wanted is not None
            self._began = time.monotonic()
            try:
                await self._reload()
            except asyncio.CancelledError:
                wanted.cancel()
                raise
            except BacklineError as exc:
                self._failed(wanted, exc)
            except Exception as exc:  # it must not take the server along
                logger.exception("fault in the server's own code, in a reload")
                self._failed(wanted, BacklineError(f"{type(exc).__name__} in the server; its log has more"))
            else:
                self._note(None)
                seconds = time.monotonic() - self._began
                logger.info("model %d serves, after %.1f s", self._service.supervisor.plan.generation, seconds)
                wanted.set_result(None)
            self._began = None

    async def _reload(self) -> None:
        supervisor = self._service.supervisor
        folder = _with_settings_of(self._folder, await asyncio.to_thread(self._reread))
        settings = folder.settings
        plan = dataclasses.replace(
            supervisor.plan,
            python=await self._service.find_python(settings),
            spec=folder.spec(),
            generation=supervisor.plan.generation + 1,
        )
        try:
            await supervisor.reload(plan, together=settings.workers.reload_mode == "together")
        except ModelLoadFailed as exc:
            if supervisor.plan is not plan:
                raise
            what = f"not every worker could be renewed, and the others still have the model before it: {exc.message}"
            raise ModelLoadFailed(what, traceback=exc.traceback) from exc
        finally:
            if supervisor.plan is plan:  # also where some workers could not be renewed yet
                self._folder = folder
                self._on_change(folder)

    def _failed(self, wanted: asyncio.Future[None], exc: BacklineError) -> None:
        serving = self._service.supervisor
        if serving.state is ModelState.READY:
            what = f"model {serving.plan.generation} goes on serving"
        else:
            what = "no model serves"
        message = f"the reload has failed, and {what}: {exc.message}"
        trace = getattr(exc, "traceback", None)
        logger.error("%s%s", message, f"\n{trace}" if trace else "")
        self._note(exc.message)
        wanted.set_exception(ReloadFailed(message, traceback=trace))

    def _note(self, error: str | None) -> None:
        assert self._began is not None
        self._last = {
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "seconds": round(time.monotonic() - self._began, 3),
            "error": error,
        }


def _with_settings_of(running: ModelFolder, folder: ModelFolder) -> ModelFolder:
    """Return the folder with what a reload takes from its settings, and all else as the server runs with it.

    Says in the log what else has changed, and needs a restart. Raises ``ConfigError`` for a folder with a problem.
    """
    if folder.problem is not None:
        raise folder.problem
    old, new = running.settings, folder.settings
    left = []
    for option in OPTIONS:
        if option.section in _TAKEN_SECTIONS or option.dotted in _TAKEN:
            continue
        before, after = (getattr(getattr(each, option.section), option.name) for each in (old, new))
        if before != after:
            left.append(f"{option.dotted} ({option.show(before)}, now {option.show(after)})")
    if left:
        logger.warning("changed settings that take effect with a restart of the server: %s", ", ".join(left))
    workers = dataclasses.replace(
        old.workers,
        python=new.workers.python,
        memory_limit=new.workers.memory_limit,
        reload_mode=new.workers.reload_mode,
    )
    settings = dataclasses.replace(old, model=new.model, workers=workers)
    return dataclasses.replace(folder, settings=settings, server_code=running.server_code)
