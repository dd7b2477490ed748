"""What counts as the same: tolerances, paths that do not count, lists whose order does not.

A *field* is a place in an answer with all list positions written ``[*]``: ``$.predictions[*].yes``. A *pattern* names
fields: ``*`` stands for anything, and one that does not begin with ``$`` is the end of a field, so that ``yes`` names
every field of that name.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Sequence
from typing import Any, Literal

Errors = Literal["class", "status", "body"]

IGNORED = (
    "$.id",
    "$.created",
    "$.system_fingerprint",
    "$.choices[*].message.tool_calls[*].id",
    "request_id",
    "requestId",
    "trace_id",
    "traceId",
    "timestamp",
)
"""Fields that differ between any two answers: names of requests and times."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far numbers of the fields that ``pattern`` names may lie apart: ``math.isclose``'s two bounds."""

    pattern: str
    relative: float = 0.0
    absolute: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Everything that can be set about comparing.

    ``relative`` and ``absolute`` are for numbers that no tolerance names. ``exact_types``: 1 and 1.0 differ.
    ``errors``: two refusals are the same when their class (4xx, 5xx) is, when their status is, or when status and body
    are. ``same_statuses`` are pairs that count as one status.
    """

    relative: float = 1e-9
    absolute: float = 1e-12
    tolerances: tuple[Tolerance, ...] = ()
    ignored: tuple[str, ...] = IGNORED
    unordered: tuple[str, ...] = ()
    exact_types: bool = False
    column_order: bool = True
    content_types: bool = True
    errors: Errors = "class"
    same_statuses: tuple[tuple[int, int], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the rules as plain values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Rules:
        """Return the rules that ``to_json`` has written."""
        given = dict(values)
        given["tolerances"] = tuple(Tolerance(**each) for each in given.get("tolerances", ()))
        given["same_statuses"] = tuple((a, b) for a, b in given.get("same_statuses", ()))
        for name in ("ignored", "unordered"):
            given[name] = tuple(given.get(name, ()))
        return cls(**given)

    def ignores(self, field: str) -> bool:
        """Whether the field does not count."""
        return _matches(self.ignored, field)

    def is_unordered(self, field: str) -> bool:
        """Whether the list at the field is a set."""
        return _matches(self.unordered, field)

    def is_close(self, field: str, reference: float, candidate: float) -> bool:
        """Whether two numbers of a field count as the same; NaN is the same as NaN."""
        named = next((each for each in self.tolerances if _matches((each.pattern,), field)), None)
        if isinstance(reference, int) and isinstance(candidate, int) and named is None:
            return reference == candidate
        if reference != reference or candidate != candidate:
            return reference != reference and candidate != candidate
        relative, absolute = (self.relative, self.absolute) if named is None else (named.relative, named.absolute)
        try:
            return math.isclose(reference, candidate, rel_tol=relative, abs_tol=absolute)
        except OverflowError:  # an integer beyond the floats
            return reference == candidate

    def same_status(self, reference: int, candidate: int) -> bool:
        """Whether two statuses count as the same."""
        if reference == candidate or (reference, candidate) in self.same_statuses:
            return True
        return self.errors == "class" and reference >= 400 and reference // 100 == candidate // 100


def key_step(name: str) -> str:
    """Return the step of a field into an object's key."""
    return f".{name}" if _PLAIN.fullmatch(name) else f"[{name!r}]"


_PLAIN = re.compile(r"[^\W\d][\w ()%/-]*")


@functools.lru_cache(maxsize=4096)
def _matches(patterns: Sequence[str], field: str) -> bool:
    compiled = _compiled(tuple(patterns))
    return compiled is not None and compiled.fullmatch(field) is not None


@functools.lru_cache(maxsize=256)
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str] | None:
    if not patterns:
        return None
    parts = []
    for pattern in patterns:
        body = ".*".join(map(re.escape, pattern.split("*")))
        parts.append(body if pattern.startswith("$") else rf"\$(?:.*\.)?{body}")
    # A pattern that names a list names its items as well.
    return re.compile(rf"(?:{'|'.join(parts)})(?:\[\*\])*", re.DOTALL)
