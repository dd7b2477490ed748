"""Request bodies on their way to a worker: in memory while small, else one private file in shared memory each.

::

    HTTP body ──write──▶ PayloadSink ──finish──▶ Payload ──▶ frame (data) or frame header (path)
                              │ LARGE_PAYLOAD_BYTES reached
                              ▼
                  PayloadDirectory: /dev/shm/backline-<pid>-<random>/<number>

Everything here is called on the event loop. A write to ``/dev/shm`` is a memory copy, so that is fine. Where there is
no ``/dev/shm`` the directory lies in the temporary directory, usually on a disk: then each write may block the loop for
as long as the disk takes (``PayloadDirectory.in_memory`` says which it is, so that the start-up log can tell).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import os
import secrets
import shutil
import stat
import tempfile
from typing import TYPE_CHECKING, Final

from backline.errors import BacklineError, BodyTooLarge, QueueFull
from backline.runtime.confinement import UNCONFINED, Confinement
from backline_worker.channel import LARGE_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHARED_MEMORY: Final = "/dev/shm"
NAME_PREFIX: Final = "backline-"
DIGEST_BYTES: Final = 16
RETRY_AFTER_FULL_SECONDS: Final = 1.0
_DIGEST_ENDS_BYTES: Final = 1 << 20
_NEARLY_ALL: Final = 0.95  # of a file system in one body: waiting for the others to finish will not help it
# What "no room now, perhaps room in a second" looks like: bytes, quota, memory of the control group, descriptors.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE})


class Payload:
    """The content of one request body: either ``data`` or ``path`` is set, never both.

    Whoever got it from ``PayloadSink.finish`` owns it and calls ``close`` once the request is answered; a retry on
    another worker reads it again before that.
    """

    __slots__ = ("_digest", "data", "path", "size")

    def __init__(self, *, size: int, data: bytes | None = None, path: str | None = None) -> None:
        assert (data is None) != (path is None)
        self.size = size
        self.data = data
        self.path = path
        self._digest: bytes | None = None

    def digest(self) -> bytes:
        """Return a 16-byte BLAKE2b digest of the size and of the first and the last mebibyte; computed once.

        Not of everything, as this runs on the event loop: two bodies that agree in size and in both ends are the same
        request for all that the poison list is for. Raises ``OSError`` when it is first asked for after ``close`` of a
        payload in a file.
        """
        if self._digest is None:
            digest = hashlib.blake2b(b"%d\n" % self.size, digest_size=DIGEST_BYTES)
            if self.path is None:
                digest.update(self.data or b"")
            else:
                with open(self.path, "rb", buffering=0) as file:
                    digest.update(file.read(_DIGEST_ENDS_BYTES))
                    file.seek(max(_DIGEST_ENDS_BYTES, self.size - _DIGEST_ENDS_BYTES))
                    digest.update(file.read(_DIGEST_ENDS_BYTES))
            self._digest = digest.digest()
        return self._digest

    def close(self) -> None:
        """Unlink the file, if there is one; who has it mapped keeps it. Safe to call twice."""
        if self.path is not None:
            _unlink(self.path)


class PayloadSink:
    """Takes one body as it arrives: in memory below ``LARGE_PAYLOAD_BYTES``, from there on in a private file.

    Ends with exactly one ``finish`` (the payload then owns the file) or with ``abort``.
    """

    __slots__ = ("_buffer", "_descriptor", "_directory", "_first", "_path", "_reserved", "size")

    def __init__(self, directory: PayloadDirectory) -> None:
        self.size = 0
        self._reserved = 0  # bytes, of what all bodies together may hold
        self._directory = directory
        self._first: bytes | None = None  # a body that comes as one piece of bytes is never copied
        self._buffer = bytearray()
        self._descriptor: int | None = None
        self._path: str | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data``; the caller may reuse its buffer afterwards.

        Raises ``QueueFull`` when all bodies together hold as much as they may, or the directory's file system is full
        now, and ``BodyTooLarge`` when this body alone is
        more than it can ever hold; the sink is aborted then.
        """
        length = len(data)
        if not length:
            return
        try:
            self._directory.reserve(length)
        except QueueFull:
            self.abort()
            raise
        self._reserved += length
        if self._descriptor is None:
            if self.size + length < LARGE_PAYLOAD_BYTES:
                self._keep(data)
                self.size += length
                return
            self._move_to_file()
        self._write_file(data)

    def finish(self) -> Payload:
        """Return the payload, which the caller now owns."""
        self._release()
        if self._descriptor is not None:
            os.close(self._descriptor)
            path, self._descriptor, self._path = self._path, None, None
            return Payload(size=self.size, path=path)
        data = self._first if self._first is not None else bytes(self._buffer)
        self._first, self._buffer = None, bytearray()
        return Payload(size=self.size, data=data)

    def abort(self) -> None:
        """Drop what came: close and unlink. Safe twice, and without effect after ``finish``."""
        self._release()
        self._first, self._buffer = None, bytearray()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._path is not None:
            _unlink(self._path)
            self._path = None

    def _release(self) -> None:
        self._directory.unfinished_bytes -= self._reserved
        self._reserved = 0

    def _keep(self, data: bytes | bytearray | memoryview) -> None:
        if self.size == 0 and isinstance(data, bytes):
            self._first = data
            return
        if self._first is not None:
            self._buffer += self._first
            self._first = None
        self._buffer += data

    def _move_to_file(self) -> None:
        try:
            self._path = self._directory.new_path()
            self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            self._directory.confinement.give(self._path)
        except OSError as exc:
            raise self._refusal(exc, self.size) from exc
        kept = self._first if self._first is not None else self._buffer
        self._first, self._buffer, self.size = None, bytearray(), 0
        self._write_file(kept)

    def _write_file(self, data: bytes | bytearray | memoryview) -> None:
        assert self._descriptor is not None
        done, length = 0, len(data)
        try:
            while done < length:  # once, save where the file system is about to be full
                done += os.write(self._descriptor, memoryview(data)[done:] if done else data)
        except OSError as exc:
            raise self._refusal(exc, self.size + done) from exc
        self.size += length

    def _refusal(self, exc: OSError, stored: int) -> BacklineError:
        """Abort, and return the error that tells the client whether to come back."""
        self.abort()
        where = self._directory.path
        if exc.errno not in _NO_ROOM:
            return BacklineError(
                f"the request body could not be stored in {where}: {exc.strerror or exc}; "
                "is the directory still there and writable? A restart of the server makes a new one"
            )
        capacity = self._directory.capacity_bytes()
        if exc.errno == errno.ENOSPC and capacity is not None and stored >= capacity * _NEARLY_ALL:
            return BodyTooLarge(
                f"the request body is over {stored} bytes, and the file system of {where} holds {capacity} in all: "
                "send fewer rows in a request, or give the server more shared memory "
                "(docker run --shm-size, a memory volume at /dev/shm)"
            )
        return QueueFull(
            f"no room to store the request body in {where} now ({exc.strerror}): other requests fill it; try again, or "
            "give the server more shared memory (docker run --shm-size, a memory volume at /dev/shm)",
            retry_after=RETRY_AFTER_FULL_SECONDS,
        )


class PayloadDirectory:
    """The server's private directory for large payloads; made at once, gone after ``close``.

    ``parent`` is ``/dev/shm`` unless told otherwise, and the temporary directory where that is missing or read-only
    (the module says what this costs). Directories that dead servers left in ``parent`` are removed first. Who is dead
    is told by a lock that each server holds on its directory, not by the process id in the name: several containers
    can share one ``/dev/shm`` and know nothing of each other's process ids.

    Raises ``OSError`` when no directory can be made.
    """

    def __init__(self, parent: str | None = None) -> None:
        if parent is None:
            parent = SHARED_MEMORY if _is_usable(SHARED_MEMORY) else tempfile.gettempdir()
        self.in_memory = os.path.realpath(parent).startswith(SHARED_MEMORY)
        self.removed = tuple(_remove_dead(parent))
        self.path, self._lock = _make_locked(parent)
        self._numbers = itertools.count(1)
        self.confinement = UNCONFINED
        self.unfinished_bytes = 0  # of bodies that are still being received
        self._most_bytes: int | None = None
        self._held_elsewhere: Callable[[], int] = int

    def belong_to(self, confinement: Confinement) -> None:
        """Let the user as whom the model runs read and write in here."""
        self.confinement = confinement
        confinement.give(self.path)

    def bound(self, most_bytes: int, held_elsewhere: Callable[[], int]) -> None:
        """Refuse more than ``most_bytes`` of bodies: those being received and what ``held_elsewhere`` returns."""
        self._most_bytes = most_bytes
        self._held_elsewhere = held_elsewhere

    def reserve(self, length: int) -> None:
        """Count these bytes of a body that is being received. Raises ``QueueFull`` when they are over the bound."""
        if self._most_bytes is not None:
            held = self.unfinished_bytes + self._held_elsewhere()
            if held + length > self._most_bytes:
                raise QueueFull(
                    f"request bodies of {held} bytes are held already; with more of this one they would be over "
                    f"limits.max_bytes_in_flight ({self._most_bytes}); come back later",
                    retry_after=RETRY_AFTER_FULL_SECONDS,
                )
        self.unfinished_bytes += length

    def sink(self) -> PayloadSink:
        """Return a sink for one body."""
        return PayloadSink(self)

    def new_path(self) -> str:
        """Return the path of a payload file yet to be made; no path is given out twice."""
        return f"{self.path}/{next(self._numbers)}"

    def capacity_bytes(self) -> int | None:
        """Return the size of the file system in bytes, used or not; ``None`` when it cannot be told."""
        try:
            status = os.statvfs(self.path)
        except OSError:
            return None
        return status.f_blocks * status.f_frsize or None

    def close(self) -> None:
        """Remove the directory and all in it. Safe to call twice."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _is_usable(parent: str) -> bool:
    return os.path.isdir(parent) and os.access(parent, os.W_OK | os.X_OK)


def _make_locked(parent: str) -> tuple[str, int]:
    """Make a directory and take its lock; returns its path and the descriptor that holds the lock."""
    while True:
        path = os.path.join(parent, f"{NAME_PREFIX}{os.getpid()}-{secrets.token_hex(6)}")
        os.mkdir(path, 0o700)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue  # another server that starts right now took it for a dead one's between these two lines
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)  # the same race, one line later
            continue
        except OSError:
            pass  # no locks on this file system: then nobody can take ours for dead either
        if os.path.exists(path):
            return path, descriptor
        os.close(descriptor)


def _remove_dead(parent: str) -> Iterator[str]:
    """Remove the directories in ``parent`` whose lock nobody holds; yields the paths of those removed."""
    try:
        candidates = [entry.path for entry in os.scandir(parent) if entry.name.startswith(NAME_PREFIX)]
    except OSError:
        return
    for path in candidates:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # another user's, not a directory, or gone already
        try:
            status = os.fstat(descriptor)
            if os.geteuid() not in {0, status.st_uid} or stat.S_IMODE(status.st_mode) & 0o077:
                continue  # not one that we would have made
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            yield path
        except OSError:
            continue  # the lock is held: its server lives
        finally:
            os.close(descriptor)


def _unlink(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
