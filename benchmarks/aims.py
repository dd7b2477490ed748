"""What Backline is to reach, each a ratio to the best peer of the same run, since machines drift."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.contenders import BARE_LOOP, CONTENDERS

Lines = Iterable[dict[str, Any]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """One line of the table.

    ``factor``: of ours to the best peer, at least where ``more`` is better and at most where less is. ``against``: the
    one that counts in place of the best peer. ``peers``: who they are, where that is not every server. ``at_most``: a
    bound that is no ratio.
    """

    work: str
    scenario: str
    field: str = "per_second"
    unit: str = "/s"
    more: bool = True
    factor: float | None = None
    against: str | None = None
    peers: tuple[str, ...] = ()
    at_most: float | None = None
    ours: str = "backline"

    @property
    def text(self) -> str:
        """The aim in words."""
        if self.at_most is not None:
            return f"at most {self.at_most:g}{self.unit}"
        whom = self.against or (f"the best of {' and '.join(self.peers)}" if self.peers else "the best peer")
        return f"{'at least' if self.more else 'at most'} {self.factor:g} times {whom}"


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an aim: medians, and who the peer was; ``met`` is ``None`` where there is nothing to compare."""

    aim: Aim
    ours: float
    peer: str
    theirs: float | None
    met: bool | None

    @property
    def ratio(self) -> float | None:
        """Ours to theirs."""
        return self.ours / self.theirs if self.theirs else None


SCORE = "score"
"""The scenario of the aims of ``score.py``: its comparison on the largest file."""

_TWO_PROCESSES = "plain FastAPI, 2 processes"

AIMS: dict[str, Aim] = {
    "pipeline-1": Aim(work="pipeline, 1 row, 1 client", scenario="pipeline-1", factor=0.9, against=BARE_LOOP),
    "pipeline-8": Aim(work="pipeline, 1 row, 8 clients", scenario="pipeline-8", factor=2),
    "pipeline-32": Aim(work="pipeline, 1 row, 32 clients", scenario="pipeline-32", factor=4),
    "pipeline-128": Aim(work="pipeline, 1 row, 128 clients", scenario="pipeline-128", factor=8),
    "pipeline-128-p99": Aim(
        work="the same, p99", scenario="pipeline-128", field="p99_ms", unit=" ms", more=False, at_most=40
    ),
    "rows-100": Aim(work="pipeline, 100 rows, 8 clients", scenario="rows-100", factor=2.5),
    "forest": Aim(work="random forest, 1 row, 8 clients", scenario="forest", factor=2),
    "noop": Aim(
        work="no-op hook, 1 row, 32 clients, batching on",
        scenario="noop",
        factor=1.54,  # 12,000/s where that one does 7,801
        against=_TWO_PROCESSES,
        ours="backline, batch on",
    ),
    "large": Aim(
        work="one request of 100,000 rows, CSV of 21 MB",
        scenario="large",
        field="wall_seconds",
        unit=" s",
        more=False,
        factor=0.38,  # 0.20 s where the best takes 0.53
    ),
    "large-memory": Aim(
        work="the same, peak memory of all processes",
        scenario="large",
        field="peak_mib",
        unit=" MiB",
        more=False,
        factor=0.92,  # 300 MiB where the best takes 325
    ),
    "start": Aim(
        work="start to first answer", scenario="start", field="start_seconds", unit=" s", more=False, factor=0.99
    ),
    "idle-memory": Aim(
        work="idle memory, PSS of all processes",
        scenario="start",
        field="pss_mib",
        unit=" MiB",
        more=False,
        factor=1.17,  # 190 MiB in two processes where the best has 163 in one
    ),
    "score": Aim(
        work="score: a CSV file",
        scenario=SCORE,
        field="rows_per_second",
        unit=" rows/s",
        factor=2,
        peers=("pandas", "polars"),
    ),
    "score-memory": Aim(
        work="the same, resident memory of all processes",
        scenario=SCORE,
        field="peak_mib",
        unit=" MiB",
        more=False,
        at_most=1024,
        peers=("pandas", "polars"),
    ),
}


def median(lines: Lines, contender: str, scenario: str, field: str) -> float | None:
    """Return the median of a figure over the rounds; ``None`` where it was not measured."""
    values = [
        line[field]
        for line in lines
        if line["contender"] == contender and line["scenario"] == scenario and field in line
    ]
    return statistics.median(values) if values else None


def outcome(aim: Aim, lines: list[dict[str, Any]]) -> Outcome | None:
    """Hold the results against an aim; ``None`` where ours was not measured."""
    ours = median(lines, aim.ours, aim.scenario, aim.field)
    if ours is None:
        return None
    servers = [name for name, peer in CONTENDERS.items() if not peer.ours]
    peers = [aim.against] if aim.against else aim.peers or servers
    found = [(value, name) for name in peers if (value := median(lines, name, aim.scenario, aim.field)) is not None]
    if not found:
        met = None if aim.at_most is None else ours <= aim.at_most
        return Outcome(aim, ours, "", None, met)
    theirs, peer = max(found) if aim.more else min(found)
    bound = aim.at_most if aim.factor is None else aim.factor * theirs
    assert bound is not None
    return Outcome(aim, ours, peer, theirs, ours >= bound if aim.more else ours <= bound)
