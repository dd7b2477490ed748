"""The verdict about two answers: the same or different, and where."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from backline.parity.compare.align import ROOT, Alignment
from backline.parity.compare.columnar import NoPyarrow
from backline.parity.compare.meaning import Meaning, Unreadable, meaning_of
from backline.parity.compare.rules import Rules, key_step
from backline.parity.exchange import Answer, media_type

Kind = Literal[
    "value", "type", "missing", "extra", "status", "content type", "column order", "no answer", "unreadable"
]  # fmt: skip

MOST_KEPT = 200
"""How many differences of one answer are kept in full; all are counted."""
_MOST_TEXT = 300

# In this order they are shown; a difference of numbers counts by its size.
_WEIGHTS: dict[str, float] = {
    "no answer": 1e9, "status": 1e8, "unreadable": 1e7, "content type": 1e6, "missing": 1e5, "extra": 1e5,
    "column order": 1e4, "type": 1e3,
}  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A place where two answers differ. ``size``: how far two numbers lie apart; ``relative``: that by the larger."""

    field: str
    path: str
    kind: Kind
    reference: Any
    candidate: Any
    size: float | None = None
    relative: float | None = None

    @property
    def weight(self) -> float:
        """How much it matters, for showing the biggest first."""
        if self.kind == "value":
            return 1.0 if self.relative is None else self.relative
        return _WEIGHTS[self.kind]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What was found about two answers. ``differing`` counts all differences by field, ``differences`` holds the
    biggest; ``compared`` counts the reference's values by field, ``ignored`` those that the rules leave out.
    """

    differences: list[Difference] = dataclasses.field(default_factory=list)
    differing: Mapping[str, int] = dataclasses.field(default_factory=dict)
    compared: Mapping[str, int] = dataclasses.field(default_factory=dict)
    ignored: Mapping[str, int] = dataclasses.field(default_factory=dict)
    largest: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    """The largest absolute and relative difference of each field with numbers."""

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not self.differing


def compare_answers(reference: Answer, candidate: Answer, rules: Rules) -> Comparison:
    """Compare two answers to one request."""
    if reference.error is not None or candidate.error is not None:
        return _without_answer(reference, candidate)
    compared = {"status": 1}
    if not rules.same_status(reference.status, candidate.status):
        found = Difference(
            field="status", path="status", kind="status", reference=reference.status, candidate=candidate.status
        )
        return Comparison(differences=[found], differing={"status": 1}, compared=compared)
    if reference.status >= 400 and rules.errors != "body":
        return Comparison(compared=compared)
    return _compare_bodies(reference, candidate, rules)


def unsettled_fields(reference: Answer, again: Answer, rules: Rules) -> set[str]:
    """Return the fields in which the reference does not answer the same twice."""
    return set(compare_answers(reference, again, rules).differing)


def _without_answer(reference: Answer, candidate: Answer) -> Comparison:
    if reference.error is not None and candidate.error is not None:
        return Comparison(compared={"answer": 1})
    found = Difference(
        field="answer", path="answer", kind="no answer",
        reference=reference.error or f"status {reference.status}",
        candidate=candidate.error or f"status {candidate.status}",
    )  # fmt: skip
    return Comparison(differences=[found], differing={"answer": 1}, compared={"answer": 1})


def _compare_bodies(reference: Answer, candidate: Answer, rules: Rules) -> Comparison:
    compared: Counter[str] = Counter(status=1)
    found: list[Difference] = []
    if rules.content_types:
        compared["content type"] += 1
        ours, theirs = (media_type(answer.header("content-type")) for answer in (reference, candidate))
        if ours != theirs:
            found.append(_difference("content type", "content type", ours, theirs))
    if reference.body == candidate.body and _codings(reference) == _codings(candidate):
        return _same_bytes(reference, rules, compared, found)
    try:
        ours_meaning, theirs_meaning = meaning_of(reference), meaning_of(candidate)
    except (Unreadable, NoPyarrow) as exc:
        compared["body"] += 1
        found.append(_unreadable(reference, candidate, exc))
        return _total(found, compared, Counter())
    alignment = Alignment(rules)
    aligned = alignment.align(ours_meaning.document, theirs_meaning.document)
    compared += alignment.compared
    if aligned[0] is not aligned[1]:
        found += _told_apart(*aligned)
    found += _of_tables(ours_meaning, theirs_meaning, rules, compared)
    return _total(found, compared, alignment.ignored)


def _codings(answer: Answer) -> str:
    return answer.header("content-encoding").strip().lower()


def _same_bytes(reference: Answer, rules: Rules, compared: Counter[str], found: list[Difference]) -> Comparison:
    """Count what there is: that it is the same needs no looking."""
    try:
        meaning = meaning_of(reference)
    except (Unreadable, NoPyarrow):
        compared["body"] += 1
        return _total(found, compared, Counter())
    alignment = Alignment(rules)
    alignment.align(meaning.document, meaning.document)
    compared += alignment.compared
    if meaning.columns is not None and rules.column_order:
        compared["column order"] += 1
    return _total(found, compared, alignment.ignored)


def _unreadable(reference: Answer, candidate: Answer, problem: Exception) -> Difference:
    return Difference(
        field="body", path="body", kind="unreadable",
        reference=_readability(reference, problem), candidate=_readability(candidate, problem),
    )  # fmt: skip


def _readability(answer: Answer, problem: Exception) -> str:
    if isinstance(problem, NoPyarrow):
        return f"{len(answer.body):,} bytes; {problem}"
    try:
        return f"{len(answer.body):,} bytes of {meaning_of(answer).kind}"
    except Unreadable as exc:
        return f"{len(answer.body):,} bytes; {exc}"


def _of_tables(ours: Meaning, theirs: Meaning, rules: Rules, compared: Counter[str]) -> Iterator[Difference]:
    if ours.columns is None or theirs.columns is None:
        return
    if rules.column_order:
        compared["column order"] += 1
        if ours.columns != theirs.columns and sorted(ours.columns) == sorted(theirs.columns):
            yield _difference("column order", "column order", list(ours.columns), list(theirs.columns))
    if ours.types is None or theirs.types is None:
        return
    for name, type_ in ours.types.items():
        if name in theirs.types:
            place = f"type of {name}"
            compared[place] += 1
            if _type_name(type_, rules) != _type_name(theirs.types[name], rules):
                yield Difference(field=place, path=place, kind="type", reference=type_, candidate=theirs.types[name])


def _type_name(type_: str, rules: Rules) -> str:
    """Return the type as far as it matters: unless types are exact, text is text and a number a number."""
    if rules.exact_types:
        return type_
    if type_ in ("string", "large_string", "string_view") or type_.startswith("dictionary<values=string"):
        return "text"
    return "number" if type_.startswith(("int", "uint", "float", "double", "half")) else type_


def _told_apart(reference: Any, candidate: Any) -> list[Difference]:
    # Late: it takes a tenth of a second to import, and a run without differences never needs it.
    from deepdiff import DeepDiff

    if not isinstance(reference, dict | list) or type(reference) is not type(candidate):
        return [_difference(ROOT, ROOT, reference, candidate)]
    found = DeepDiff(
        reference,
        candidate,
        view="tree",
        zip_ordered_iterables=True,  # by position; what may stand anywhere has been put in its place by the alignment
        threshold_to_diff_deeper=0,
    )
    differences = []
    for group, levels in found.items():
        kind: Kind | None = {"item_added": "extra", "item_removed": "missing"}.get(group.partition("_")[2])  # type: ignore[assignment]
        for level in levels:
            field_, path = _places(level.path(output_format="list"))
            ours = None if kind == "extra" else level.t1
            theirs = None if kind == "missing" else level.t2
            differences.append(_difference(field_, path, ours, theirs, kind))
    # What the alignment found to differ is never passed over, whatever equality says of it.
    return differences or [_difference(ROOT, ROOT, repr(reference), repr(candidate))]


def _places(steps: list[Any]) -> tuple[str, str]:
    field_ = path = ROOT
    for step in steps:
        if isinstance(step, int):
            field_ += "[*]"
            path += f"[{step}]"
        else:
            field_ += key_step(str(step))
            path += key_step(str(step))
    return field_, path


def _difference(field_: str, path: str, reference: Any, candidate: Any, kind: Kind | None = None) -> Difference:
    size = relative = None
    if kind is None:
        if field_ in ("content type", "column order"):
            kind = field_  # type: ignore[assignment]
        elif _is_number(reference) and _is_number(candidate):
            kind = "type" if reference == candidate else "value"
            size, relative = _distance(reference, candidate)
        else:
            kind = "value" if type(reference) is type(candidate) else "type"
    assert kind is not None
    return Difference(
        field=field_, path=path, kind=kind, reference=reference, candidate=candidate, size=size, relative=relative
    )


def _distance(reference: float, candidate: float) -> tuple[float, float]:
    try:
        size = float(abs(reference - candidate))
        larger = float(max(abs(reference), abs(candidate)))
    except OverflowError:
        return math.inf, 1.0
    if size != size or math.isinf(size):
        return math.inf, math.inf
    return size, (size / larger if larger else 0.0)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _total(found: list[Difference], compared: Counter[str], ignored: Counter[str]) -> Comparison:
    largest: dict[str, tuple[float, float]] = {}
    for each in found:
        if each.size is not None and each.relative is not None:
            size, relative = largest.get(each.field, (0.0, 0.0))
            largest[each.field] = (max(size, each.size), max(relative, each.relative))
    differing = Counter(each.field for each in found)
    for name in differing:
        if name not in compared:
            compared[name] = 0
    # For each field some, so that none is lost behind another's many; the biggest first.
    kept: list[Difference] = []
    by_field: Counter[str] = Counter()
    for each in sorted(found, key=lambda each: -each.weight):
        by_field[each.field] += 1
        if by_field[each.field] <= max(5, MOST_KEPT // len(differing)):
            kept.append(each)
    return Comparison(
        differences=kept[:MOST_KEPT], differing=dict(differing), compared=dict(compared), ignored=dict(ignored),
        largest=largest,
    )  # fmt: skip


def short(value: Any) -> Any:
    """Return a value as it is kept with a verdict: JSON, and not longer than some lines."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if isinstance(value, int | float):
        return value if abs(value) < 10**15 or isinstance(value, float) else repr(value)[:_MOST_TEXT]
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= _MOST_TEXT else text[:_MOST_TEXT] + "…"
