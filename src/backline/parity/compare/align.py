"""Makes what counts as the same identical, so that what is left to be told apart are differences.

deepdiff compares by equality, and does not look into what is the same object on both sides. So wherever the candidate's
value counts as the reference's, by a tolerance, an ignored field or a list that is a set, the reference's own value is
put in its place; a large answer that differs in one number costs one comparison of deepdiff.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from backline.parity.compare.rules import Rules, key_step

ROOT = "$"


class Alignment:
    """Aligns one answer; ``compared`` counts the values of each field, ``ignored`` those that did not count."""

    def __init__(self, rules: Rules) -> None:
        self.compared: Counter[str] = Counter()
        self.ignored: Counter[str] = Counter()
        self._rules = rules

    def align(self, reference: Any, candidate: Any, field: str = ROOT) -> tuple[Any, Any]:
        """Return both, with ``candidate``'s values replaced by ``reference``'s where they count as the same.

        What is returned for both is one object where all of it counts as the same. The reference is changed only in
        that ignored keys which it alone has are left out.
        """
        if field != ROOT and self._rules.ignores(field):
            self.ignored[field] += 1
            return reference, reference
        if isinstance(reference, dict) and isinstance(candidate, dict):
            return self._objects(reference, candidate, field)
        if isinstance(reference, list) and isinstance(candidate, list):
            any_order = field.endswith(".columns") and not self._rules.column_order
            if any_order or self._rules.is_unordered(field):
                reference, candidate = _paired(reference, candidate)
            return self._lists(reference, candidate, field)
        self._count(reference, field)
        return reference, (reference if self._same(reference, candidate, field) else candidate)

    def _objects(self, reference: dict[str, Any], candidate: dict[str, Any], field: str) -> tuple[Any, Any]:
        ours: dict[str, Any] = {}
        theirs: dict[str, Any] = {}
        same = True
        for key, value in reference.items():
            below = field + key_step(key)
            if key in candidate:
                ours[key], theirs[key] = self.align(value, candidate[key], below)
                same = same and ours[key] is theirs[key]
            elif self._rules.ignores(below):
                self.ignored[below] += 1
            else:
                self._count(value, below)
                ours[key] = value
                same = False
        for key, value in candidate.items():
            if key not in reference:
                below = field + key_step(key)
                if self._rules.ignores(below):
                    self.ignored[below] += 1
                else:
                    theirs[key] = value
                    same = False
        return ours, (ours if same else theirs)

    def _lists(self, reference: list[Any], candidate: list[Any], field: str) -> tuple[Any, Any]:
        below = f"{field}[*]"
        pairs = [self.align(a, b, below) for a, b in zip(reference, candidate, strict=False)]
        ours = [a for a, _ in pairs]
        same = len(reference) == len(candidate) and all(a is b for a, b in pairs)
        if same:
            return ours, ours
        theirs = [b for _, b in pairs]
        for value in reference[len(pairs) :]:
            self._count(value, below)
            ours.append(value)
        theirs += candidate[len(pairs) :]
        return ours, theirs

    def _same(self, reference: Any, candidate: Any, field: str) -> bool:
        if _is_number(reference) and _is_number(candidate):
            if self._rules.exact_types and isinstance(reference, int) is not isinstance(candidate, int):
                return False
            return self._rules.is_close(field, reference, candidate)
        return type(reference) is type(candidate) and bool(reference == candidate)

    def _count(self, value: Any, field: str) -> None:
        """Count the values below ``field``."""
        if isinstance(value, dict) and value:
            for key, each in value.items():
                self._count(each, field + key_step(key))
        elif isinstance(value, list) and value:
            for each in value:
                self._count(each, f"{field}[*]")
        else:
            self.compared[field] += 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _paired(reference: list[Any], candidate: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return both lists, reordered so that what belongs together stands at the same place.

    Equal items are paired first. The others are paired in their sorted order, which for numbers brings those together
    that lie closest; what one side has more comes last.
    """
    by_key: dict[str, list[Any]] = {}
    for item in candidate:
        by_key.setdefault(_key(item), []).append(item)
    ours, theirs, alone = [], [], []
    for item in reference:
        equals = by_key.get(_key(item))
        if equals:
            ours.append(item)
            theirs.append(equals.pop(0))
        else:
            alone.append(item)
    rest = [item for items in by_key.values() for item in items]
    return [*ours, *sorted(alone, key=_rank)], [*theirs, *sorted(rest, key=_rank)]


def _key(item: Any) -> str:
    return json.dumps(item, sort_keys=True, default=repr)


def _rank(item: Any) -> tuple[int, float, str]:
    if _is_number(item):
        return (0, float(item) if item == item else 0.0, "")
    return (1, 0.0, _key(item))
