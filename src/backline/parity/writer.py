"""Writes to a store from a thread of its own, so that an event loop never waits for a disk."""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path

from backline.errors import ParityError
from backline.parity.store import Store, WhenFull

logger = logging.getLogger("backline.parity")

_COMMIT_EVERY = 0.25  # seconds; what a crash of the machine may cost
_CLOSE_TIMEOUT = 120.0

Job = Callable[[Store], None]


class StoreWriter:
    """The thread, and the jobs that wait for it, bounded by their bytes.

    ``put`` never waits: what does not fit is dropped and counted. ``close`` writes what waits. ``failure`` says why
    nothing is written any more: a full store, a full disk.
    """

    def __init__(
        self, path: Path, *, max_bytes: int | None = None, when_full: WhenFull = "oldest", max_waiting: int = 64 << 20
    ) -> None:
        self.written = 0
        self.dropped = 0
        self.dropped_oldest = 0
        self.failure: str | None = None
        self._max_waiting = max_waiting
        self._jobs: deque[tuple[Job, int]] = deque()
        self._waiting = 0
        self._closing = False
        self._changed = threading.Condition()
        self._opened = threading.Event()
        self._open_error: BaseException | None = None
        self._thread = threading.Thread(
            target=self._work, args=(path, max_bytes, when_full), name="parity-store", daemon=True
        )
        self._thread.start()
        self._opened.wait()
        if self._open_error is not None:
            raise self._open_error

    def put(self, job: Job, size: int) -> bool:
        """Have ``job`` called with the store; ``False`` where it was dropped. ``size`` is what it holds in memory."""
        with self._changed:
            if (
                self.failure is not None
                or self._closing
                or (self._waiting and self._waiting + size > self._max_waiting)
            ):
                self.dropped += 1
                return False
            self._jobs.append((job, size))
            self._waiting += size
            self._changed.notify()
        return True

    def close(self) -> None:
        """Write what waits, and end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(_CLOSE_TIMEOUT)

    def _work(self, path: Path, max_bytes: int | None, when_full: WhenFull) -> None:
        try:
            store = Store.create(path, max_bytes=max_bytes, when_full=when_full)
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that waits for us
            self._open_error = exc
            return
        finally:
            self._opened.set()
        with store:
            while jobs := self._take():
                self._write(store, jobs)

    def _take(self) -> list[Job]:
        with self._changed:
            while not self._jobs and not self._closing:
                self._changed.wait()
            if not self._closing:
                # Some more may come meanwhile: one commit, and one wait for the disk, for all of them.
                self._changed.wait_for(lambda: self._closing, _COMMIT_EVERY)
            jobs = [job for job, _ in self._jobs]
            self._jobs.clear()
            self._waiting = 0
        return jobs

    def _write(self, store: Store, jobs: list[Job]) -> None:
        try:
            for job in jobs:
                if self.failure is None:
                    job(store)
                    self.written += 1
                else:
                    self.dropped += 1
            store.commit()
        except ParityError as exc:
            self._give_up(exc.message)
        except sqlite3.Error as exc:
            self._give_up(f"{store.path}: {exc}")
        self.dropped_oldest = store.dropped_oldest

    def _give_up(self, why: str) -> None:
        if self.failure is None:
            self.failure = why
            logger.error("recording has stopped, requests still pass: %s", why)
