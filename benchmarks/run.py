"""The rounds: every contender in turn, every figure kept as a line of JSON as soon as it is there."""

from __future__ import annotations

import dataclasses
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.contenders import BARE_LOOP, CONTENDERS, Contender
from benchmarks.environments import HERE
from benchmarks.errors import BenchmarkError, ServerFailed
from benchmarks.measure import measure, warm_up
from benchmarks.scenarios import Scenario
from benchmarks.server import Place, running

_SESSION_OVERHEAD = 8.0  # seconds: starting, warming up, stopping; Ray Serve takes three times that


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure, how often and how long."""

    scenarios: dict[str, Scenario]
    contenders: Sequence[str]
    rounds: int
    seconds: float
    results: Path
    stop_after: float | None = None  # seconds; None: when all is measured


@dataclasses.dataclass(frozen=True, slots=True)
class Session:
    """One start of one contender with one model, and what is measured before it is stopped."""

    round: int
    contender: str
    model: str
    scenarios: dict[str, Scenario]

    def estimate(self, seconds: float) -> float:
        """Return about how long it takes."""
        factors = {"start": 0.5, "large": 0.5, "broken": 6.0, "checked": 2.0, "load": 1.1}
        return _SESSION_OVERHEAD + sum(seconds * factors[scenario.kind] for scenario in self.scenarios.values())


def run(plan: Plan, place: Place) -> bool:
    """Measure what the results do not have yet; return whether all of it is there now."""
    sessions = list(remaining(plan, read(plan.results)))
    started = time.monotonic()
    noise = machine.Noise()
    where = machine.describe()
    plan.results.parent.mkdir(parents=True, exist_ok=True)
    with plan.results.open("a") as raw:
        for done, session in enumerate(sessions):
            spent = time.monotonic() - started
            if plan.stop_after is not None and done and spent + session.estimate(plan.seconds) > plan.stop_after:
                left = sum(later.estimate(plan.seconds) for later in sessions[done:])
                print(f"stopped after {spent:.0f} s; about {left / 60:.0f} minutes are left", file=sys.stderr)
                return False
            versions = _versions(session.contender, place)
            for figure in _hold(session, plan, place):
                line = {
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "round": session.round,
                    "contender": session.contender,
                    "model": session.model,
                    **figure,
                    **noise.since_last(),
                    "measured_for": plan.seconds,
                    "machine": where,
                    "versions": versions,
                }
                raw.write(json.dumps(line) + "\n")
                raw.flush()
                print(_summary(line), file=sys.stderr, flush=True)
    return True


def read(results: Path) -> list[dict[str, Any]]:
    """Return the lines of a results file, none where there is no file."""
    if not results.exists():
        return []
    return [json.loads(line) for line in results.read_text().splitlines() if line]


def remaining(plan: Plan, lines: list[dict[str, Any]]) -> Iterator[Session]:
    """Give the sessions whose lines are not there, in order: every contender in each round, and back in the next one.

    A drift of the machine then falls on everyone. Raises ``BenchmarkError`` for lines that were measured otherwise.
    """
    for line in lines:
        if line.get("measured_for", plan.seconds) != plan.seconds:
            raise BenchmarkError(
                f"{plan.results} was measured with --seconds {line['measured_for']:g}: go on with that, "
                "or name another file with --results"
            )
    known = {(line["round"], line["contender"], line["scenario"]) for line in lines if "scenario" in line}
    failed = {(line["round"], line["contender"], line["model"]) for line in lines if line.get("scenario") == "failed"}
    for number in range(plan.rounds):
        for contender in plan.contenders if number % 2 == 0 else plan.contenders[::-1]:
            todo = [
                (name, scenario)
                for name, scenario in plan.scenarios.items()
                if scenario.is_for(contender)
                and (number, contender, name) not in known
                and (number, contender, scenario.model) not in failed
            ]
            for model, group in itertools.groupby(todo, key=lambda item: item[1].model):
                yield Session(number, contender, model, dict(group))


def _hold(session: Session, plan: Plan, place: Place) -> Iterator[dict[str, Any]]:
    if session.contender == BARE_LOOP:
        command: list[str | Path] = [
            place.environments.python("model"),
            HERE / "loop.py",
            place.data,
            str(plan.seconds),
        ]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        yield {"scenario": "pipeline-1", **json.loads(output)}
        return
    try:
        with running(session.contender, session.model, place) as server:
            warm = False
            for name, scenario in session.scenarios.items():
                if scenario.kind != "start" and not warm:
                    warm_up(server, place, 1)
                    warm = True
                try:
                    for figure in measure(server, scenario, place, plan.seconds, swap=session.round % 2 == 1):
                        yield {"scenario": name, **figure}
                except ServerFailed as exc:
                    yield {"scenario": name, "problem": str(exc)}
    except ServerFailed as exc:
        yield {"scenario": "failed", "problem": str(exc)}


def _versions(name: str, place: Place) -> dict[str, str]:
    contender: Contender | None = CONTENDERS.get(name)
    if contender is None:
        return place.environments.versions("model")
    versions = place.environments.versions(contender.environment)
    if contender.ours:
        versions = {**versions, **place.environments.versions(contender.model_environment)}
    return versions


def _summary(line: dict[str, Any]) -> str:
    words = [f"round {line['round']}", line["contender"], line["scenario"]]
    if "arm" in line:
        words.append(line["arm"])
    named = {
        "per_second": "/s",
        "p50_ms": " ms p50",
        "p99_ms": " ms p99",
        "wall_seconds": " s",
        "peak_mib": " MiB peak",
    }
    named |= {"start_seconds": " s to start", "pss_mib": " MiB idle", "wrong": " wrong", "bad": " bad"}
    words += [f"{line[field]:,.4g}{unit}" for field, unit in named.items() if field in line]
    words += [line["problem"]] if "problem" in line else []
    return "  ".join(words)
