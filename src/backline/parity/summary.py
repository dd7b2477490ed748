"""A run in figures: read from the store, shown by the terminal's table, the reports and the exit code alike."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from backline.errors import ParityError
from backline.parity.compare import Difference
from backline.parity.detail import read_differences, read_largest
from backline.parity.store import Run, Side, Store
from backline.report.statistics import Quantile, quantile_with_interval

QUANTILES = (0.5, 0.95, 0.99)
_BIGGEST_BY_FIELD = 5


@dataclass(slots=True, kw_only=True)
class FieldSummary:
    """How often a field was compared, differed, and differed only where the reference is flaky itself."""

    name: str
    compared: int = 0
    differing: int = 0
    unsettled: int = 0
    requests: int = 0
    """Requests in whose answers it differs for sure."""
    largest: float | None = None
    largest_relative: float | None = None

    @property
    def agreement(self) -> float:
        """The share of its values that are the same, 0 to 1."""
        total = max(self.compared, self.differing + self.unsettled)
        return 1.0 if total == 0 else 1 - (self.differing + self.unsettled) / total


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A difference and the call that it was found in."""

    call: int
    round: int
    difference: Difference
    is_flaky: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long a side took: ``quantiles`` in the order of ``QUANTILES``, in seconds."""

    count: int
    quantiles: tuple[Quantile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A run in figures. ``verdicts`` counts requests by verdict; ``biggest`` are some differences of every field."""

    run: Run
    verdicts: Mapping[str, int]
    fields: list[FieldSummary]
    ignored: Mapping[str, int]
    statuses: list[tuple[int, int, int]]
    biggest: list[Found]
    latency: Mapping[Side, Latency | None] = field(default_factory=dict)

    @property
    def requests(self) -> int:
        """How many requests were compared."""
        return sum(self.verdicts.values())

    @property
    def is_same(self) -> bool:
        """Whether nothing differs, flaky answers aside."""
        return self.verdicts.get("different", 0) == 0

    @property
    def differing_fields(self) -> list[FieldSummary]:
        """The fields that differ for sure."""
        return [each for each in self.fields if each.differing]

    def sentence(self) -> str:
        """Return the verdict in words."""
        different, flaky = self.verdicts.get("different", 0), self.verdicts.get("flaky", 0)
        of = f"{self.requests:,} request{'' if self.requests == 1 else 's'}"
        aside = f"; {flaky:,} are flaky: the reference does not answer the same twice" if flaky else ""
        if self.run.ended is None and self.run.kind == "run":
            aside += "; the run was cut short"
        if self.requests == 0:
            return f"Nothing was compared{aside}"
        if different == 0:
            return f"The same: no difference in {of}{aside}"
        return f"Different: {different:,} of {of} {'is' if different == 1 else 'are'} answered differently{aside}"


def find_run(store: Store, number: int | None) -> Run:
    """Return a run, the last one without a number. Raises ``ParityError``."""
    runs = store.runs()
    if number is None:
        if not runs:
            raise ParityError(f"{store.path}: holds no run yet; backline parity run --store makes one")
        return runs[-1]
    found = next((run for run in runs if run.id == number), None)
    if found is None:
        known = ", ".join(str(run.id) for run in runs) or "none"
        raise ParityError(f"{store.path}: holds no run {number}; there are: {known}")
    return found


def summarize(store: Store, run: Run) -> Summary:
    """Return a run in figures."""
    verdicts: Counter[str] = Counter()
    ignored: Counter[str] = Counter()
    fields: dict[str, FieldSummary] = {}
    heaps: dict[str, list[tuple[float, int, Found]]] = {}
    number = 0
    for stored in store.verdicts(run.id):
        verdicts[stored.verdict] += 1
        detail = stored.detail
        ignored.update(detail.get("ignored", {}))
        unsettled = set(detail.get("unsettled", ()))
        for name, count in detail["compared"].items():
            fields.setdefault(name, FieldSummary(name=name)).compared += count
        for name, count in detail.get("differing", {}).items():
            seen = fields.setdefault(name, FieldSummary(name=name))
            if name in unsettled:
                seen.unsettled += count
            else:
                seen.differing += count
                seen.requests += 1
        for name, (size, share) in read_largest(detail).items():
            if name not in unsettled:
                seen = fields[name]
                seen.largest = max(seen.largest or 0.0, size)
                seen.largest_relative = max(seen.largest_relative or 0.0, share)
        for each in read_differences(detail):
            number += 1
            found = Found(call=stored.call, round=stored.round, difference=each, is_flaky=each.field in unsettled)
            heap = heaps.setdefault(each.field, [])
            item = (each.weight if not found.is_flaky else each.weight * 1e-12, -number, found)
            if len(heap) < _BIGGEST_BY_FIELD:
                heapq.heappush(heap, item)
            else:
                heapq.heappushpop(heap, item)
    biggest = sorted((item for heap in heaps.values() for item in heap), key=lambda item: item[:2], reverse=True)
    sides: tuple[Side, ...] = ("reference", "candidate")
    return Summary(
        run=run,
        verdicts=dict(verdicts),
        fields=sorted(fields.values(), key=lambda each: (-each.differing, -each.unsettled, each.name)),
        ignored=dict(ignored),
        statuses=store.statuses(run.id),
        biggest=[found for _, _, found in biggest],
        latency={side: _latency(store.seconds(run.id, side)) for side in sides},
    )


def _latency(ordered: list[float]) -> Latency | None:
    if not ordered:
        return None
    return Latency(count=len(ordered), quantiles=tuple(quantile_with_interval(ordered, share) for share in QUANTILES))


def some_of_each(biggest: Sequence[Found]) -> list[Found]:
    """Return the biggest difference of every field first, then the next of each; flaky ones last."""
    ranks: Counter[str] = Counter()
    ranked = []
    for place, each in enumerate(biggest):
        ranked.append((each.is_flaky, ranks[each.difference.field], place))
        ranks[each.difference.field] += 1
    return [biggest[place] for _, _, place in sorted(ranked)]


def to_json(summary: Summary) -> dict[str, Any]:
    """Return a summary as plain values."""
    run = summary.run
    return {
        "verdict": "same" if summary.is_same else "different",
        "sentence": summary.sentence(),
        "run": {"id": run.id, "kind": run.kind, "at": run.at, "ended": run.ended, "settings": dict(run.settings)},
        "requests": summary.requests,
        "verdicts": dict(summary.verdicts),
        "fields": [
            {
                "field": each.name,
                "compared": each.compared,
                "differing": each.differing,
                "flaky": each.unsettled,
                "requests": each.requests,
                "agreement": each.agreement,
                "largest": _plain(each.largest),
                "largest_relative": _plain(each.largest_relative),
            }
            for each in summary.fields
        ],
        "ignored": dict(summary.ignored),
        "statuses": [{"reference": a, "candidate": b, "requests": count} for a, b, count in summary.statuses],
        "differences": [
            {
                "call": each.call,
                "round": each.round,
                "field": each.difference.field,
                "path": each.difference.path,
                "kind": each.difference.kind,
                "reference": each.difference.reference,
                "candidate": each.difference.candidate,
                "flaky": each.is_flaky,
            }
            for each in summary.biggest
        ],
        "latency": {
            side: None
            if latency is None
            else {
                "count": latency.count,
                **{
                    f"p{100 * each.share:g}": {"seconds": each.value, "low": each.low, "high": each.high}
                    for each in latency.quantiles
                },
            }
            for side, latency in summary.latency.items()
        },
    }


def _plain(value: float | None) -> float | str | None:
    """Return a number as strict JSON can hold it."""
    return repr(value) if value is not None and value in (float("inf"), float("-inf")) else value
