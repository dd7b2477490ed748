"""What a requirements file says, as far as we have to know: its lines with their places, and which files it reads.

``uv`` reads the file; this is for the hash of everything that an environment is made from, and for messages that name
the line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

_NAME = re.compile(r"\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)")
_INCLUDE = re.compile(r"\s*(?:-r|--requirement|-c|--constraint)[\s=]*(\S+)")
_LOCAL = re.compile(
    r"\s*(?:(?:-e|--editable)[\s=]*)?(?:[A-Za-z0-9._-]+(?:\[[^\]]*\])?\s*@\s*)?(?:file:(?://)?)?([^\s;#]+)"
)
_COMMENT = re.compile(r"(^|\s)#.*$")
_LEFT_OUT = {".git", ".hg", "__pycache__", ".venv", "node_modules", "build", "dist"}


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """A requirement and where it stands; ``name`` is the package's, normalized, and empty for options and paths."""

    file: Path
    number: int
    text: str
    name: str


def normalized(name: str) -> str:
    """Return a package's name as comparisons need it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_lines(path: Path, *, seen: set[Path] | None = None) -> list[Line]:
    """Return the lines of a requirements file and of those that it includes.

    Raises ``OSError`` for the file itself; an included one that cannot be read is left to ``uv`` to tell.
    """
    seen = set() if seen is None else seen
    seen.add(path)
    lines: list[Line] = []
    for number, text in _logical_lines(path.read_bytes().decode("utf-8-sig", "replace")):
        name = _NAME.match(text)
        lines.append(Line(path, number, text, normalized(name[1]) if name and not _is_path(text) else ""))
        included = _INCLUDE.match(text)
        if included:
            other = path.parent / included[1]
            if other.is_file() and other not in seen:
                lines += read_lines(other, seen=seen)
    return lines


def inputs(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield a name and the content, or its hash, of all that a requirements file is made of: local packages too."""
    lines = read_lines(path)
    for file in dict.fromkeys([path, *(line.file for line in lines)]):
        yield os.path.relpath(file, path.parent), file.read_bytes()
    for line in lines:
        local = _LOCAL.match(line.text)
        if local and not line.text.lstrip().startswith(("-r", "-c", "--requirement", "--constraint")):
            target = line.file.parent / local[1]
            if _is_path(local[1]) and target.exists():
                yield local[1], _digest(target)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    joined, first = "", 0
    for number, line in enumerate(text.splitlines(), 1):
        first = first or number
        if line.endswith("\\"):
            joined += line[:-1] + " "
            continue
        whole = _COMMENT.sub("", joined + line).strip()
        if whole:
            yield first, whole
        joined, first = "", 0


def _is_path(text: str) -> bool:
    return text.startswith((".", "/", "-e", "--editable", "file:")) or text.endswith((".whl", ".tar.gz", ".zip"))


def _digest(target: Path) -> bytes:
    digest = hashlib.blake2b()
    files = [target] if target.is_file() else sorted(_files_below(target))
    for file in files:
        digest.update(os.path.relpath(file, target).encode() + b"\0")
        digest.update(file.read_bytes())
    return digest.digest()


def _files_below(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name not in _LEFT_OUT and not name.endswith(".egg-info")]
        yield from (Path(path, name) for name in files)
