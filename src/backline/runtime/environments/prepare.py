"""The interpreter of the model, for whoever starts workers: the one that is named, or the one that has to be built."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from backline.config.problems import SettingError
from backline.config.python import AUTO, CURRENT, default_cache, is_to_be_built
from backline.runtime.environments.build import obtain
from backline.runtime.environments.cache import EnvironmentCache, Held, Watch
from backline.runtime.environments.recipe import Recipe, archive_named_by, read_recipe

if TYPE_CHECKING:
    from backline.config.settings import Settings

logger = logging.getLogger("backline.runtime")


def recipe_for(settings: Settings) -> Recipe | None:
    """Return what the model's environment is to be built from; ``None`` where the interpreter is a given one.

    Raises ``SettingError`` for a file of the folder that cannot be used.
    """
    python = settings.workers.python
    if not is_to_be_built(python):
        return None
    return read_recipe(settings.model.code_dir, archive=archive_named_by(python))


def cache_for(settings: Settings) -> EnvironmentCache:
    """Return the cache that the settings name."""
    return EnvironmentCache(settings.workers.env_cache or default_cache())


@contextlib.contextmanager
def python_if_there(settings: Settings) -> Iterator[str | None]:
    """Give the model's interpreter for the block, or ``None`` where it has yet to be built, or cannot be."""
    try:
        recipe = recipe_for(settings)
    except SettingError:  # told by the server, which may stay up to tell it
        yield None
        return
    if recipe is None:
        python = settings.workers.python
        yield CURRENT if python == AUTO else python
        return
    held = cache_for(settings).find(recipe)
    if held is None:
        yield None
        return
    with held:
        yield held.python


class ModelPython:
    """The model's interpreter while workers may be started with it.

    Resource handling: ``wait`` holds the environment, so that it is not pruned, until ``close``.
    """

    def __init__(self, settings: Settings) -> None:
        self.doing = ""
        """What is being done to get it, for those who ask; empty before and after."""
        self._settings = settings
        self._cancelled = threading.Event()
        self._held: Held | None = None

    async def wait(self) -> str:
        """Return the interpreter, after building its environment where that is needed.

        Raises ``EnvironmentFailed``, or ``SettingError`` for files of the folder. Cancellation, and ``cancel``, end the
        build: then ``BuildCancelled``.
        """
        # In a thread: hashing the files takes its time too, where a packed environment is among them.
        work = asyncio.get_running_loop().run_in_executor(None, self._obtain)
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            self.cancel()
            with contextlib.suppress(Exception):
                await work
            raise
        finally:
            self.doing = ""

    def cancel(self) -> None:
        """End a build that goes on."""
        self._cancelled.set()

    def close(self) -> None:
        """Let go of the environment."""
        if self._held is not None:
            self._held.close()

    def _obtain(self) -> str:
        settings = self._settings
        recipe = recipe_for(settings)
        if recipe is None:
            return CURRENT if settings.workers.python == AUTO else settings.workers.python
        watch = Watch(
            tell=lambda text: logger.info("environment: %s", text),
            show=self._show,
            cancelled=self._cancelled.is_set,
            timeout=settings.workers.env_timeout,
        )
        held = self._held = obtain(cache_for(settings), recipe, watch)
        logger.debug("the model's environment is %s", held.folder)
        return held.python

    def _show(self, text: str) -> None:
        self.doing = text


def build(settings: Settings, watch: Watch) -> Held | None:
    """Build the environment of a model, or find it built; ``None`` where it asks for none. For the command line."""
    recipe = recipe_for(settings)
    return None if recipe is None else obtain(cache_for(settings), recipe, watch)
