"""Sees when files of a model folder change, for ``--reload``. Imports watchfiles when it is used."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger("backline.runtime")

_QUIET_MILLISECONDS = 400  # editors write a file in several steps, and a copy writes many
_NAMED = 3
_OTHER_FOLDERS = ("venv", ".ipynb_checkpoints", ".ruff_cache")  # beside those that watchfiles leaves out itself
_OTHER_FILES = (r"\.log$", r"\.tmp$")


async def watch_folder(folder: Path, changed: Callable[[str], None]) -> None:
    """Call ``changed`` with what has changed, in words, whenever a file of the folder has and then none for a moment.

    Caches, version control, environments, editors' and log files do not count. Returns only where the
    folder cannot be watched, which the log tells.
    """
    try:
        from watchfiles import DefaultFilter, awatch
    except ImportError:
        logger.warning("--reload: watchfiles is not installed, so changes are not seen; SIGHUP loads the model anew")
        return

    wanted = DefaultFilter(
        ignore_dirs=(*DefaultFilter.ignore_dirs, *_OTHER_FOLDERS),
        ignore_entity_patterns=(*DefaultFilter.ignore_entity_patterns, *_OTHER_FILES),
    )
    real = os.path.realpath(folder)  # noqa: ASYNC240  (once, while nothing is asked for yet)
    try:
        async for changes in awatch(real, watch_filter=wanted, debounce=5000, step=_QUIET_MILLISECONDS):
            names = sorted({path.removeprefix(f"{real}{os.sep}") for _, path in changes})
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            changed(f"{', '.join(names[:_NAMED])}{more} changed")
    except (OSError, RuntimeError) as exc:
        logger.warning("--reload: %s cannot be watched: %s; SIGHUP loads the model anew all the same", folder, exc)
