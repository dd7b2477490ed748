"""Where environments are kept: one folder each, under the key of its recipe.

::

    KEY/                             the environment; unfinished without the file backline-environment.json in it
    KEY.lock                         held exclusively while it is built or removed, shared while it is used
    KEY.progress                     what the process that builds it does, for those that wait
    KEY.failed                       why the last build failed, for those that waited meanwhile

A build that is interrupted leaves a folder without that file, and the next one begins anew. The installer inherits the
lock, so that one which outlives its server still keeps others away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Self

from backline.errors import EnvironmentFailed
from backline.runtime.environments.recipe import Recipe

MARKER = "backline-environment.json"
_LOOK_AGAIN = 0.2  # seconds between two tries for a lock: there is no way to wait for one that can also be cancelled


class BuildCancelled(Exception):
    """Nobody wants the environment any more."""


class Watch:
    """How a build talks to who asked for it.

    ``tell`` is given what should stay in a log, ``show`` the state at the moment; both may be called from any thread.
    ``cancelled`` is asked several times a second; ``deadline`` is in ``time.monotonic``.
    """

    def __init__(
        self,
        *,
        tell: Callable[[str], None],
        show: Callable[[str], None],
        cancelled: Callable[[], bool] = lambda: False,
        timeout: float,
    ) -> None:
        self.tell = tell
        self.show = show
        self.timeout = timeout
        self.deadline = time.monotonic() + timeout
        self._cancelled = cancelled

    def check(self, what: str) -> None:
        """Raise ``BuildCancelled`` when nobody wants it any more, ``EnvironmentFailed`` past the deadline."""
        if self._cancelled():
            raise BuildCancelled
        if time.monotonic() > self.deadline:
            raise EnvironmentFailed(
                f"it took longer than {self.timeout:g} s: {what}",
                where="--env-timeout",
                mend="raise it, or build the environment ahead with backline env build",
            )


class Held:
    """An environment that is there and stays there until ``close``. ``packages`` as they were installed."""

    def __init__(self, folder: Path, marker: dict[str, Any], lock: IO[bytes]) -> None:
        self.folder = folder
        self.python = str(folder / marker["python"])
        self.packages: list[str] = marker["packages"]
        self.marker = marker
        self._lock = lock

    def close(self) -> None:
        """Let it be pruned."""
        self._lock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One environment in the cache, for lists; ``complete`` is false for what an interrupted build has left."""

    key: str
    folder: Path
    complete: bool
    in_use: bool
    used: float
    bytes: int
    marker: dict[str, Any]


class EnvironmentCache:
    """The environments under one folder; several processes may use it at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, key: str) -> Path:
        """Return where the environment with this key is, or would be."""
        return self.root / key

    def find(self, recipe: Recipe) -> Held | None:
        """Return the environment if it is there, held."""
        if not (self.folder(recipe.key) / MARKER).exists():
            return None
        try:
            lock = self._open_lock(recipe.key)
        except OSError:
            lock = open(os.devnull, "rb")  # noqa: PTH123, SIM115  (a cache on a read-only disk: nobody prunes it)
        else:
            if not _try_lock(lock, exclusive=False):
                lock.close()
                return None
        return self._hold(recipe.key, lock)

    def obtain(self, recipe: Recipe, watch: Watch, build: Callable[[Path, IO[bytes]], dict[str, Any]]) -> Held:
        """Return the environment, held; where it is not there, ``build`` makes it in the folder that it is given.

        ``build`` returns what is to be noted of it: ``python``, its interpreter within the folder, and ``packages``.
        One process at a time builds; the others wait for it, and fail with it.

        Raises ``EnvironmentFailed`` or ``BuildCancelled``, also past the deadline of ``watch``.
        """
        held = self.find(recipe)
        if held is not None:
            return held
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = self._open_lock(recipe.key)
        except OSError as exc:
            raise EnvironmentFailed(
                f"cannot be written to: {exc.strerror or exc}",
                where=f"the cache {self.root}",
                mend="make it writable, or name another directory with --env-cache",
            ) from exc
        try:
            asked = time.time()
            self._wait_for_lock(recipe, lock, watch)
            if not self._is_complete(recipe.key):
                self._raise_failure_since(recipe, asked)
                self._build(recipe, lock, build)
            _downgrade(lock)
            held = self._hold(recipe.key, lock)
            if held is None:  # pruned between two locks, which takes a user who wants it
                raise EnvironmentFailed(
                    "it was removed as soon as it was built", where=str(self.root), mend="try again"
                )
        except BaseException:
            lock.close()
            raise
        return held

    def note_progress(self, recipe: Recipe, text: str) -> None:
        """Let those who wait for the build know how far it is."""
        with contextlib.suppress(OSError):
            self._beside(recipe.key, "progress").write_text(text)

    def entries(self) -> Iterator[Entry]:
        """Yield every environment, the one used last first."""
        folders = [each for each in self.root.iterdir() if each.is_dir()] if self.root.is_dir() else []
        found = [self._entry(folder) for folder in folders]
        yield from sorted(found, key=lambda entry: -entry.used)

    def remove(self, key: str) -> bool:
        """Remove an environment; return ``False`` where it is in use or being built."""
        with self._open_lock(key) as lock:
            if not _try_lock(lock, exclusive=True):
                return False
            # The marker first: what is half removed must not look complete.
            (self.folder(key) / MARKER).unlink(missing_ok=True)
            shutil.rmtree(self.folder(key))
            # The lock stays: somebody may have it open, and would then hold a lock on nothing.
            for suffix in ("progress", "failed"):
                self._beside(key, suffix).unlink(missing_ok=True)
        return True

    # --- locks and files

    def _beside(self, key: str, suffix: str) -> Path:
        return self.root / f"{key}.{suffix}"

    def _open_lock(self, key: str) -> IO[bytes]:
        return self._beside(key, "lock").open("ab")

    def _wait_for_lock(self, recipe: Recipe, lock: IO[bytes], watch: Watch) -> None:
        told = False
        while not _try_lock(lock, exclusive=True):
            # Whoever uses it holds a shared lock: then it is there, and nobody will let go of it soon.
            if self._is_complete(recipe.key) and _try_lock(lock, exclusive=False):
                return
            if not told:
                told = True
                watch.tell("waiting for another process that builds the model's environment")
            progress = ""
            with contextlib.suppress(OSError):
                progress = self._beside(recipe.key, "progress").read_text()
            watch.show(progress or "another process builds it")
            watch.check("another process builds it" + (f" ({progress})" if progress else ""))
            time.sleep(_LOOK_AGAIN)

    def _is_complete(self, key: str) -> bool:
        return self._read_marker(self.folder(key)) is not None

    def _read_marker(self, folder: Path) -> dict[str, Any] | None:
        try:
            marker: dict[str, Any] = json.loads((folder / MARKER).read_bytes())
        except (OSError, ValueError):
            return None
        # A link to a Python that is gone, as after an upgrade of the system's: to be built anew.
        return marker if (folder / marker["python"]).exists() else None

    def _hold(self, key: str, lock: IO[bytes]) -> Held | None:
        folder = self.folder(key)
        marker = self._read_marker(folder)
        if marker is None:
            lock.close()
            return None
        with contextlib.suppress(OSError):
            os.utime(folder / MARKER)  # for prune: it is used
        return Held(folder, marker, lock)

    def _build(self, recipe: Recipe, lock: IO[bytes], build: Callable[[Path, IO[bytes]], dict[str, Any]]) -> None:
        folder = self.folder(recipe.key)
        if folder.exists():  # a build was interrupted here
            shutil.rmtree(folder)
        started = time.time()
        try:
            noted = build(folder, lock)
        except EnvironmentFailed as exc:
            failed = {"what": exc.what, "where": exc.where, "mend": exc.mend}
            with contextlib.suppress(OSError):
                self._beside(recipe.key, "failed").write_text(json.dumps(failed))
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self._beside(recipe.key, "progress").unlink(missing_ok=True)
        marker = {
            **noted,
            "kind": recipe.kind,
            "source": str(recipe.source),
            "built": started,
            "seconds": round(time.time() - started, 2),
            "bytes": _size(folder),
        }
        # Renamed into place: it is there whole, or it is not there.
        new = folder / f"{MARKER}.new"
        new.write_text(json.dumps(marker, indent=2))
        new.replace(folder / MARKER)
        self._beside(recipe.key, "failed").unlink(missing_ok=True)

    def _raise_failure_since(self, recipe: Recipe, asked: float) -> None:
        """Fail like the build that we have waited for: the same again would fail again."""
        try:
            path = self._beside(recipe.key, "failed")
            if path.stat().st_mtime < asked:
                return
            failed = json.loads(path.read_bytes())
        except (OSError, ValueError):
            return
        raise EnvironmentFailed(failed["what"], where=failed["where"], mend=failed["mend"])

    def _entry(self, folder: Path) -> Entry:
        marker = self._read_marker(folder)
        in_use = False
        with contextlib.suppress(OSError), self._open_lock(folder.name) as lock:
            in_use = not _try_lock(lock, exclusive=True)
        return Entry(
            key=folder.name,
            folder=folder,
            complete=marker is not None,
            in_use=in_use,
            used=(folder if marker is None else folder / MARKER).stat().st_mtime,
            bytes=_size(folder) if marker is None else marker["bytes"],
            marker=marker or {},
        )


def _size(folder: Path) -> int:
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(OSError):
                total += Path(path, name).lstat().st_size
    return total


if sys.platform == "win32":
    import msvcrt

    def _try_lock(file: IO[bytes], *, exclusive: bool) -> bool:
        """Windows has no shared lock on a byte: whoever uses an environment holds none, and cannot be seen to."""
        if not exclusive:
            return True
        try:
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _downgrade(file: IO[bytes]) -> None:
        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(file: IO[bytes], *, exclusive: bool) -> bool:
        """Take the lock, or turn the one that is held into this kind; return whether that could be done at once."""
        try:
            fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _downgrade(file: IO[bytes]) -> None:
        fcntl.flock(file, fcntl.LOCK_SH)
