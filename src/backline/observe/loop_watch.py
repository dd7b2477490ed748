"""Notices when the operator's code blocks the event loop, and says which line did.

The loop notes the time again and again; a thread looks whether it still does, and if not, where the loop's thread
stands. Only stacks with a frame of the watched folder count: what else holds up a loop (a busy machine, the garbage
collector) is nobody's mistake.
"""

from __future__ import annotations

import asyncio
import collections
import inspect
import logging
import os
import re
import sys
import threading
import time
import traceback
from pathlib import Path
from types import FrameType

logger = logging.getLogger("backline.loop")

_BEAT = 0.05  # seconds between two notes of the loop, and between two looks of the thread
_QUIET = 10.0  # seconds in which the same line is told once
_STILL = 5.0  # seconds after which a block that goes on is told of
_FRAMEWORK = re.compile(r"[/\\](backline|fastapi|starlette|uvicorn)[/\\]")
_MEND = (
    "all requests stood still meanwhile. Await what can be awaited, write the route with def, which runs in a thread, "
    "or give the call to await asyncio.to_thread(...)"
)


class LoopWatch:
    """Watches the running event loop from ``start`` to ``stop`` for code of ``folder``.

    ``least`` is the shortest block that is told of, in seconds.
    """

    def __init__(self, folder: Path, *, least: float = 0.25) -> None:
        self._folder = f"{folder}{os.sep}"
        self._least = least
        self._beat = time.monotonic()
        self._places: collections.Counter[str] = collections.Counter()
        self._stacks: dict[str, str] = {}
        self._told: dict[str, float] = {}
        self._untold: collections.Counter[str] = collections.Counter()
        self._told_still = False
        self._stopped = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread_id = 0
        self.times = 0
        self.longest = 0.0
        self.last_place: str | None = None

    def describe(self) -> dict[str, object]:
        """Return what was seen, as JSON."""
        return {"times": self.times, "longest_seconds": round(self.longest, 3), "last": self.last_place}

    def start(self) -> None:
        """Begin; called on the loop that is to be watched."""
        self._thread_id = threading.get_ident()
        self._beat = time.monotonic()
        self._schedule()
        threading.Thread(target=self._look, name="loop-watch", daemon=True).start()

    def stop(self) -> None:
        """End; called on the loop."""
        self._stopped.set()
        if self._timer is not None:
            self._timer.cancel()

    # --- on the loop

    def _schedule(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(_BEAT, self._note)

    def _note(self) -> None:
        now = time.monotonic()
        seconds = now - self._beat - _BEAT
        places, self._places = self._places, collections.Counter()
        self._beat = now
        self._schedule()
        if seconds >= self._least and places:
            self._tell(places.most_common(1)[0][0], seconds, now)
        self._told_still = False

    def _tell(self, place: str, seconds: float, now: float) -> None:
        self.times += 1
        self.longest = max(self.longest, seconds)
        self.last_place = place
        if now - self._told.get(place, -_QUIET) < _QUIET:
            self._untold[place] += 1
            return
        again = self._untold.pop(place, 0)
        self._told[place] = now
        logger.warning(
            "the event loop was blocked for %.1f s by %s%s; %s\n%s",
            seconds,
            place,
            f" (and {again} times since it was last told)" if again else "",
            _MEND,
            self._stacks.get(place, ""),
        )

    # --- in the thread

    def _look(self) -> None:
        while not self._stopped.wait(_BEAT):
            late = time.monotonic() - self._beat - _BEAT
            if late < self._least / 2:
                continue
            frame = sys._current_frames().get(self._thread_id)  # noqa: SLF001  (there is no other way to look)
            found = None if frame is None else self._own_line(frame)
            if frame is None or found is None:
                continue
            if found not in self._stacks and len(self._stacks) < 100:
                self._stacks[found] = self._format(frame)
            self._places[found] += 1
            if late >= _STILL and not self._told_still:
                self._told_still = True
                logger.warning("the event loop has been blocked for %.1f s by %s, and still is", late, found)

    def _own_line(self, innermost: FrameType) -> str | None:
        """Return the line of the watched folder that runs, or has called what runs."""
        frame: FrameType | None = innermost
        while frame is not None:
            path = frame.f_code.co_filename
            if path.startswith(self._folder):
                return f"{path.removeprefix(self._folder)} line {frame.f_lineno}, in {frame.f_code.co_name}"
            if frame.f_code.co_flags & inspect.CO_COROUTINE and _FRAMEWORK.search(path):
                return None  # a middleware stands above all that it lets through, and awaits it
            frame = frame.f_back
        return None

    def _format(self, innermost: FrameType) -> str:
        """Return the stack without what lies between and above the operator's frames: it is the same for all."""
        frames = traceback.extract_stack(innermost)
        own = [place for place, frame in enumerate(frames) if frame.filename.startswith(self._folder)]
        shown = [frame for place, frame in enumerate(frames) if place in own or place > own[-1]]
        return "".join(traceback.format_list(shown)).rstrip()
