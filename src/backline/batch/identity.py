"""What tells that an input or a model is still the same, without reading all of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_ENDS_BYTES = 1 << 20
_WHOLE_BYTES = 16 << 20


def file_identity(path: Path) -> dict[str, Any]:
    """Return size, time of change and a digest of both ends of a file."""
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "digest": _digest(path, 2 * _ENDS_BYTES)}


def folder_identity(folder: Path, *, without: Iterable[Path]) -> str:
    """Return a digest of names and contents in a model folder.

    Of files above 16 MiB the ends stand for all, with size and time. Left out are caches, hidden files, and
    ``without``: what the run itself reads and writes may lie in the folder.
    """
    left_out = {path.absolute() for path in without}
    total = hashlib.blake2b(digest_size=16)
    for directory, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if name != "__pycache__" and not name.startswith("."))
        for name in sorted(files):
            path = Path(directory, name)
            if name.startswith(".") or path.absolute() in left_out or not path.is_file():
                continue
            status = path.stat()
            size = status.st_size
            time = status.st_mtime_ns if size > _WHOLE_BYTES else 0
            total.update(f"{path.relative_to(folder)}\0{size}\0{time}\0{_digest(path, _WHOLE_BYTES)}\0".encode())
    return total.hexdigest()


def _digest(path: Path, whole_bytes: int) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= whole_bytes:
            digest.update(file.read())
        else:
            digest.update(file.read(_ENDS_BYTES))
            file.seek(size - _ENDS_BYTES)
            digest.update(file.read())
    return digest.hexdigest()
