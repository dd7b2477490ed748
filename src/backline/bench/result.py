"""The result of a run: steps with their figures, memory over time; as JSON, and held against an earlier one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from backline.bench.load import Measured
from backline.errors import ConfigError
from backline.report.statistics import quantile, quantile_with_interval

VERSION = 1
SHARES = (0.5, 0.9, 0.95, 0.99, 0.999)
_CURVE = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995, 0.9999, 1.0)
_NOISE = 0.05  # relative: what two runs of the same differ by, on a quiet machine

Kind = Literal["closed", "open", "size"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One load and what was measured. ``amount`` is clients, requests a second or bytes of a body, by ``kind``."""

    kind: Kind
    amount: float
    seconds: float
    rate: float
    good: int
    bad: int
    statuses: dict[str, int]
    quantiles: dict[str, tuple[float, float, float]]
    """By share as text: value and the ends of its 95 % interval, in seconds."""
    largest: float
    mean: float
    curve: list[tuple[float, float]]
    over_time: list[tuple[float, float]]
    """Answers a second, by second."""
    generator_cpu: float
    unsent: int = 0

    @property
    def name(self) -> str:
        """The load in words."""
        if self.kind == "closed":
            return f"{self.amount:g} client{'' if self.amount == 1 else 's'}"
        if self.kind == "open":
            return f"{self.amount:,.0f} requests/s"
        return "1 row" if self.amount == 0 else f"{self.amount / 1e6:g} MB"

    def value(self, share: float) -> float:
        """Return a quantile in seconds."""
        found = self.quantiles.get(str(share))
        return found[0] if found is not None else 0.0


def step_of(kind: Kind, amount: float, measured: Measured) -> Step:
    """Return the figures of a load."""
    ordered = sorted(measured.latencies)
    quantiles, curve = {}, []
    if ordered:
        for share in SHARES:
            found = quantile_with_interval(ordered, share)
            quantiles[str(share)] = (found.value, found.low, found.high)
        curve = [(share, quantile(ordered, share) if share else ordered[0]) for share in _CURVE]
    buckets: dict[int, int] = {}
    for second in measured.finished:
        buckets[int(second)] = buckets.get(int(second), 0) + 1
    whole = int(measured.seconds)
    return Step(
        kind=kind,
        amount=amount,
        seconds=measured.seconds,
        rate=measured.rate,
        good=measured.good,
        bad=measured.bad,
        statuses={str(status): count for status, count in sorted(measured.statuses.items())},
        quantiles=quantiles,
        largest=ordered[-1] if ordered else 0.0,
        mean=sum(ordered) / len(ordered) if ordered else 0.0,
        curve=curve,
        over_time=[(second + 0.5, float(buckets.get(second, 0))) for second in range(whole)],
        generator_cpu=measured.generator_cpu,
        unsent=measured.unsent,
    )


@dataclasses.dataclass(slots=True, kw_only=True)
class Result:
    """A whole run. ``memory`` has seconds since the start, bytes of the server and bytes of its workers."""

    target: str
    requests: str
    started: str
    machine: str
    steps: list[Step] = dataclasses.field(default_factory=list)
    memory: list[tuple[float, int, int]] = dataclasses.field(default_factory=list)
    knee: float | None = None
    """Clients from which on more of them bring no more answers."""

    @property
    def bytes_per_minute(self) -> float | None:
        """How fast memory has grown, by least squares; ``None`` without enough to say it."""
        points = [(second, server + workers) for second, server, workers in self.memory]
        if len(points) < 5 or points[-1][0] - points[0][0] < 5:
            return None
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        below = sum((x - mean_x) ** 2 for x, _ in points)
        return 60 * sum((x - mean_x) * (y - mean_y) for x, y in points) / below if below else None

    @property
    def failed_share(self) -> float:
        """The share of requests that got no good answer."""
        good, bad = sum(step.good for step in self.steps), sum(step.bad for step in self.steps)
        return bad / (good + bad) if good + bad else 1.0

    def to_json(self) -> str:
        """Return it as JSON."""
        growth = self.bytes_per_minute
        return json.dumps({"version": VERSION, "growth_bytes_per_minute": growth, **dataclasses.asdict(self)}, indent=1)


def read_result(path: Path) -> Result:
    """Read a result that was written as JSON. Raises ``ConfigError``."""
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if document.pop("version") != VERSION:
            raise ConfigError(f"--compare {path}: it was written by another version of Backline; measure it anew")
        document.pop("growth_bytes_per_minute")
        steps = [Step(**step) for step in document.pop("steps")]
        return Result(**document, steps=steps)
    except OSError as exc:
        raise ConfigError(f"--compare {path}: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        raise ConfigError(f"--compare {path}: is no result of backline bench: {exc}") from exc


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A figure of a step then and now. ``verdict``: ``same`` also where it cannot be told from chance."""

    step: str
    figure: str
    before: float
    after: float
    verdict: Literal["better", "worse", "same"]

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after / self.before if self.before else 1.0


def compare(before: Result, after: Result) -> list[Change]:
    """Return what changed in the steps that both runs have.

    A latency has changed where the intervals of its quantile do not overlap and it differs by more than 5 %; a rate by
    more than 5 %: one run says no more of it.
    """
    earlier = {(step.kind, step.amount): step for step in before.steps}
    changes = []
    for step in after.steps:
        old = earlier.get((step.kind, step.amount))
        if old is None:
            continue
        if step.kind == "closed":
            ratio = step.rate / old.rate if old.rate else 1.0
            verdict: Any = "same" if abs(ratio - 1) <= _NOISE else "better" if ratio > 1 else "worse"
            changes.append(
                Change(step=step.name, figure="answers/s", before=old.rate, after=step.rate, verdict=verdict)
            )
        changes += [
            _compare_quantile(step.name, share, old.quantiles[share], step.quantiles[share])
            for share in ("0.5", "0.99")
            if share in old.quantiles and share in step.quantiles
        ]
    return changes


def _compare_quantile(name: str, share: str, before: Sequence[float], after: Sequence[float]) -> Change:
    verdict: Literal["better", "worse", "same"] = "same"
    if abs(after[0] - before[0]) > _NOISE * before[0]:
        if after[1] > before[2]:
            verdict = "worse"
        elif after[2] < before[1]:
            verdict = "better"
    return Change(step=name, figure=f"p{float(share) * 100:g}", before=before[0], after=after[0], verdict=verdict)
