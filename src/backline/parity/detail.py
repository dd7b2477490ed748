"""What a verdict keeps about a comparison, as it stands in the store."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from backline.parity.compare import Comparison, Difference
from backline.parity.compare.verdict import short


def write_detail(found: Comparison, unsettled: set[str] | None = None) -> dict[str, Any]:
    """Return a comparison as plain values; ``unsettled`` are fields that the reference itself answers differently."""
    detail: dict[str, Any] = {"compared": dict(found.compared)}
    if found.ignored:
        detail["ignored"] = dict(found.ignored)
    if found.differing:
        detail["differing"] = dict(found.differing)
        detail["unsettled"] = sorted(unsettled & set(found.differing)) if unsettled else []
        detail["largest"] = {name: [_finite(size), _finite(share)] for name, (size, share) in found.largest.items()}
        detail["differences"] = [
            [each.field, each.path, each.kind, short(each.reference), short(each.candidate), _finite(each.size),
             _finite(each.relative)]
            for each in found.differences
        ]  # fmt: skip
    return detail


def verdict_of(found: Comparison, unsettled: set[str]) -> str:
    """Return ``same``, ``different`` or ``flaky``: where it differs, the reference differs from itself."""
    if found.is_same:
        return "same"
    return "flaky" if set(found.differing) <= unsettled else "different"


def read_differences(detail: Mapping[str, Any]) -> list[Difference]:
    """Return the differences that ``write_detail`` has kept."""
    return [
        Difference(
            field=field, path=path, kind=kind, reference=reference, candidate=candidate, size=_number(size),
            relative=_number(relative),
        )
        for field, path, kind, reference, candidate, size, relative in detail.get("differences", ())
    ]  # fmt: skip


def read_largest(detail: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return the largest absolute and relative difference by field."""
    return {
        name: (_number(size) or 0.0, _number(share) or 0.0) for name, (size, share) in detail.get("largest", {}).items()
    }


def _finite(value: float | None) -> Any:
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
