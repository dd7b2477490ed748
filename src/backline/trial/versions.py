"""Versions as packages write them, and what a ``requirements.txt`` asks of them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

_LINE = re.compile(r"^\s*([A-Za-z0-9][\w.-]*)\s*(?:\[[^]]*\])?\s*([<>=!~][^;#]*)?\s*(;.*?)?(?:\s#.*)?$")
_CLAUSE = re.compile(r"\s*(===?|!=|~=|<=|>=|<|>)\s*v?(\d+(?:\.\d+)*)((?:\.\*)|[a-z0-9.+!-]*)\s*")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A line of a requirements file. ``conditional``: it has a marker, so it need not apply."""

    name: str
    wanted: str
    line: int
    conditional: bool


def requirements_of(path: Path) -> tuple[list[Requirement], list[str]]:
    """Return the requirements of a file, and its lines that say something else (options, addresses, other files)."""
    found, others = [], []
    for number, text in enumerate(path.read_text("utf-8-sig", "replace").splitlines(), 1):
        line = text.split(" --hash")[0].rstrip("\\ ").strip()
        if not line or line.startswith(("#", "--hash")):
            continue
        match = _LINE.match(line)
        if match is None or line.startswith("-"):
            others.append(f"{path.name}:{number}: {line}")
            continue
        wanted = (match[2] or "").strip()
        found.append(Requirement(name=match[1], wanted=wanted, line=number, conditional=match[3] is not None))
    return found, others


def normalised(name: str) -> str:
    """Return a distribution's name as it is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def numbers(version: str) -> tuple[int, ...]:
    """Return the release of a version: ``1.4.2`` for ``1.4.2rc1+cpu``."""
    match = re.match(r"v?(?:\d+!)?(\d+(?:\.\d+)*)", version)
    return () if match is None else tuple(int(part) for part in match[1].split("."))


def meets(version: str, wanted: str) -> bool | None:
    """Say whether a version is what a specifier asks for, by its release; ``None`` where it cannot be told."""
    answers = list(_clauses(version, wanted))
    return None if None in answers else all(answers)


def _clauses(version: str, wanted: str) -> Iterator[bool | None]:
    have = numbers(version)
    for clause in wanted.split(","):
        if not clause.strip():
            continue
        match = _CLAUSE.fullmatch(clause)
        if match is None or not have:
            yield None
            continue
        operator, text, rest = match[1], match[2], match[3]
        parts = numbers(text)
        prefix = have[: len(parts)] == parts
        width = max(len(have), len(parts))
        left, right = (*have, *[0] * (width - len(have))), (*parts, *[0] * (width - len(parts)))
        if operator in ("==", "==="):
            # A label after the release (rc1, +cpu) has to be there as well, but not that of a local build.
            same = left == right and (not rest or rest.startswith("+") or version.startswith(text + rest))
            yield prefix if rest == ".*" else same
        elif operator == "!=":
            yield not prefix if rest == ".*" else left != right
        elif operator == "~=":
            yield left >= right and have[: len(parts) - 1] == parts[:-1]
        else:
            yield {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}[operator]
