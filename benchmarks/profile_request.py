"""Where the time of one request goes, from its first byte to its answer, for one row of the pipeline.

The server runs under ``profiled_server.py``, which notes when a request passes a few doors; what the worker does is
timed by the worker itself, always. Beside it the same load is put on a server without clocks, to show what they cost.
A stage's time is what one request waits for: requests that share a call of the model all wait for the whole of it.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.contenders import CONTENDERS
from benchmarks.environments import HERE
from benchmarks.errors import BenchmarkError
from benchmarks.measure import load, warm_up
from benchmarks.processes import cpu_seconds
from benchmarks.run import read
from benchmarks.server import Place, running

_OURS = "backline"

# In the order of a request's way.
STAGES = {
    "parse": "front: bytes come, HTTP parsed, routed",
    "admit": "front: headers and body read, admitted",
    "queue": "queue: waiting for a worker",
    "channel": "channel: frames there and back, both ends woken",
    "decode": "worker: decode",
    "predict": "worker: predict",
    "encode": "worker: encode",
    "wake": "front: answer handed to its task",
    "send": "front: answer written",
    "outside": "kernel, and the client itself",
}


def run(place: Place, *, clients: Sequence[int], rounds: int, seconds: float, results: Path) -> None:
    """Measure, append the lines to ``results``, print the table."""
    known = {(line["round"], line["scenario"]) for line in read(results)}
    results.parent.mkdir(parents=True, exist_ok=True)
    with results.open("a") as raw:
        for number in range(rounds):
            for count in clients:
                if (number, f"profile-{count}") in known:
                    continue
                line = {
                    "date": datetime.now(UTC).isoformat(timespec="seconds"),
                    "round": number,
                    "contender": _OURS,
                    "model": "pipeline",
                    "scenario": f"profile-{count}",
                    **_profile(place, count, seconds),
                    "machine": machine.describe(),
                    "versions": place.environments.versions("backline") | place.environments.versions("model"),
                }
                raw.write(json.dumps(line) + "\n")
                raw.flush()
    print("\n".join(table(read(results))))


def _profile(place: Place, clients: int, seconds: float) -> dict[str, Any]:
    with running(_OURS, "pipeline", place) as server:
        warm_up(server, place, 1)
        plain = load(server, place, clients, seconds)
    noted = place.work / f"profile-{clients}.json"
    noted.unlink(missing_ok=True)
    command = CONTENDERS[_OURS].command.replace("{bin}/backline", f"{{bin}}/python {HERE}/profiled_server.py {noted}")
    with running(_OURS, "pipeline", place, dataclasses.replace(CONTENDERS[_OURS], command=command)) as server:
        warm_up(server, place, 1)
        front, *workers = server.pids()
        before = cpu_seconds(front), sum(map(cpu_seconds, workers))
        started = time.perf_counter()
        figure = load(server, place, clients, seconds)
        ended = time.perf_counter()
        after = cpu_seconds(front), sum(map(cpu_seconds, workers))
    if not noted.exists():
        raise BenchmarkError(f"the profiled server has written nothing; see {place.work}/backline/pipeline.log")
    times = [one for one in json.loads(noted.read_text()) if started <= one["came"] and one["done"] <= ended]
    if not times:
        raise BenchmarkError("no request went through the doors that profiled_server.py watches: they have moved")
    stages = _stages(times)
    stages["outside"] = 1e3 * clients / figure["per_second"] - sum(stages.values())  # clients only wait: Little's law
    return {
        "per_second": figure["per_second"],
        "per_second_without_clocks": plain["per_second"],
        "requests_per_call": round(1 / statistics.fmean(1 / one["batch"] for one in times), 2),
        "stages_ms": {name: round(stages[name], 4) for name in STAGES},
        "share_ms": {  # of the worker's time, what falls on one request
            name: round(1e3 * statistics.fmean(one.get(name, 0.0) / one["batch"] for one in times), 4)
            for name in ("decode", "predict", "encode")
        },
        "front_cpu_ms": round(1e3 * (after[0] - before[0]) / figure["requests"], 4),
        "worker_cpu_ms": round(1e3 * (after[1] - before[1]) / figure["requests"], 4),
    }


def _stages(times: list[dict[str, float]]) -> dict[str, float]:
    """Return the mean of each stage inside the server, in milliseconds."""

    def between(first: str, last: str) -> float:
        return 1e3 * statistics.fmean(one[last] - one[first] for one in times)

    worker = {
        name: 1e3 * statistics.fmean(one.get(name, 0.0) for one in times) for name in ("decode", "predict", "encode")
    }
    return {
        "parse": between("came", "called"),
        "admit": between("called", "submitted"),
        "queue": between("submitted", "started"),
        "channel": between("started", "answered") - sum(worker.values()),
        **worker,
        "wake": between("answered", "sending"),
        "send": between("sending", "done"),
    }


def table(lines: list[dict[str, Any]]) -> list[str]:
    """Return the medians over the rounds as lines of a Markdown table; none where nothing was profiled."""
    by_clients: dict[int, list[dict[str, Any]]] = {}
    for line in lines:
        name, _, count = line["scenario"].partition("-")
        if name == "profile":
            by_clients.setdefault(int(count), []).append(line)
    if not by_clients:
        return []
    counts = sorted(by_clients)

    def row(title: str, pick: Any, digits: int) -> str:
        cells = [f"{statistics.median(map(pick, by_clients[count])):,.{digits}f}" for count in counts]
        return f"| {title} | {' | '.join(cells)} |"

    rows = [
        f"| what one request waits for, ms | {' | '.join(f'{count} client' + 's' * (count > 1) for count in counts)} |",
        "| --- |" + " ---: |" * len(counts),
    ]
    rows += [row(title, lambda line, name=name: line["stages_ms"][name], 3) for name, title in STAGES.items()]
    rows.append(row("**all of it**", lambda line: sum(line["stages_ms"].values()), 3))
    rows.append(row("requests that share a call of the model", lambda line: line["requests_per_call"], 1))
    for name in ("decode", "predict", "encode"):
        rows.append(row(f"a request's share of {name}, ms", lambda line, name=name: line["share_ms"][name], 3))
    rows.append(row("CPU of the front for a request, ms", lambda line: line["front_cpu_ms"], 3))
    rows.append(row("CPU of the worker for a request, ms", lambda line: line["worker_cpu_ms"], 3))
    rows.append(row("requests/s with these clocks", lambda line: line["per_second"], 0))
    rows.append(row("requests/s without them", lambda line: line["per_second_without_clocks"], 0))
    return rows
