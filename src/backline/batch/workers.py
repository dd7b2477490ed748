"""How many workers score a file, where nobody says, and how many threads each of them gets."""

from __future__ import annotations

import os
import re
from pathlib import Path

from backline.runtime.threads import bound_threads

_WORKER_BYTES = 400 << 20  # interpreter, libraries, chunks
_PER_FOLDER_BYTE = 3  # what a model takes once it is loaded, of what it takes on the disk
_DATA_HOOK = re.compile(r"^\s*(async\s+)?def\s+(read_input_data|transform|score|post_process)\b", re.MULTILINE)


def sensible_count(folder: Path, *, independent: bool) -> int:
    """Return one worker for each core that the memory has room for; one where hooks may look across rows."""
    if looks_across_rows(folder) and not independent:
        return 1
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    room = _available_bytes()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    fitting = cores if room is None else int(room // (_WORKER_BYTES + _PER_FOLDER_BYTE * size))
    return max(1, min(cores, fitting, 40))


def looks_across_rows(folder: Path) -> bool:
    """Say whether the folder seems to have hooks that get the rows; for certain the worker knows that has loaded it."""
    try:
        return _DATA_HOOK.search((folder / "custom.py").read_text("utf-8", "replace")) is not None
    except OSError:
        return False


def one_thread_each() -> None:
    """Let libraries of workers started from here on use one thread: the workers are what runs in parallel.

    It stays so where one worker is asked for: sums in other orders have other last bits, and a run that goes on must
    write what the first one would have. Who sets such a variable himself is left alone.
    """
    bound_threads(os.environ, 1)


def _available_bytes() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None
