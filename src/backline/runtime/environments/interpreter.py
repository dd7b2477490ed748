"""Finds a Python of the version that a folder asks for, where ``uv`` would not look or would stumble."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_CLAUSE = re.compile(r"(===?|~=|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?")
_VERSION = re.compile(r"\d+(\.\d+)*")


def find_interpreter(wanted: str, environ: Mapping[str, str]) -> str | None:
    """Return an interpreter for ``wanted``, a version such as ``3.11`` or a range such as ``>=3.9,<3.12``.

    The server's own comes first, then those of pyenv, the newest first. pyenv's shims on ``PATH`` exist for versions
    that are not chosen, and only say so when they are run. ``None``: ask ``uv``.
    """
    for version, python in _candidates(environ):
        if _is_wanted(version, wanted):
            return python
    return None


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[tuple[int, ...], str]]:
    yield tuple(sys.version_info[:3]), sys.executable
    root = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = {
        tuple(int(part) for part in python.parents[1].name.split(".")): str(python)
        for python in root.glob("versions/*/bin/python")
        if _VERSION.fullmatch(python.parents[1].name) and os.access(python, os.X_OK)
    }
    yield from sorted(found.items(), reverse=True)


def _is_wanted(version: tuple[int, ...], wanted: str) -> bool:
    wanted = wanted.strip()
    if _VERSION.fullmatch(wanted):
        parts = _numbers(wanted)
        return version[: len(parts)] == parts
    clauses = [each.strip() for each in wanted.split(",") if each.strip()]
    matches = [_CLAUSE.fullmatch(clause) for clause in clauses]
    return bool(clauses) and all(match is not None and _holds(version, *match.groups()) for match in matches)


def _holds(version: tuple[int, ...], operator: str, text: str, star: str | None) -> bool:
    """Say whether a clause of a version specifier holds, as packaging has it, for plain releases."""
    parts = _numbers(text)
    prefix = version[: len(parts)] == parts
    padded = (*parts, 0, 0)[:3]
    match operator:
        case "==" | "===":
            return prefix if star else version == padded
        case "!=":
            return not prefix if star else version != padded
        case "~=":
            return version >= padded and version[: len(parts) - 1] == parts[:-1]
        case ">=":
            return version >= padded
        case "<=":
            return version <= padded
        case ">":
            return version > padded
        case _:
            return version < padded


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))
