"""Takes one measurement of a running server; what it returns is a line of the results."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.answers import check_answer
from benchmarks.environments import HERE, OURS
from benchmarks.errors import ServerFailed
from benchmarks.processes import pss_mib, rss_mib, watched_peak
from benchmarks.scenarios import Scenario
from benchmarks.server import Place, Server

_SETTLE = 1.0  # seconds from the first answer until memory is read
_LARGE_TIMEOUT = 150.0
_BROKEN_SECONDS = 2  # times as long: a p99 wants more answers than a rate does

Figure = dict[str, Any]


def measure(server: Server, scenario: Scenario, place: Place, seconds: float, *, swap: bool) -> list[Figure]:
    """Return what was measured, one or more lines. ``swap``: take the two arms of a comparison in the other order."""
    match scenario.kind:
        case "start":
            return [_start(server)]
        case "load":
            check = place.body(server.contender, scenario.model, scenario.rows).read_bytes()
            check_answer(server.post(check), place.expected(scenario.model, scenario.rows))
            return [load(server, place, scenario.clients, seconds, rows=scenario.rows)]
        case "large":
            return [_large(server, place, scenario.rows)]
        case "checked":
            return [_client(server, place, scenario, seconds)]
        case "broken":
            arms = ["good", "broken"] if scenario.group == "broken" else ["good", *_kinds(place)]
            return [_broken(server, place, scenario, seconds, arm) for arm in (arms[::-1] if swap else arms)]


def warm_up(server: Server, place: Place, seconds: float) -> None:
    """Let lazily loaded code be loaded, and averages settle."""
    load(server, place, 8, seconds)


def load(server: Server, place: Place, clients: int, seconds: float, *, rows: int = 1) -> Figure:
    """Let wrk post one body from ``clients`` connections, each waiting for its answer."""
    body = place.body(server.contender, server.model, rows)
    environment = {**os.environ, "BODY": str(body), "CONTENT_TYPE": server.contender.content_type}
    command = ["wrk", "--threads=1", f"--connections={clients}", f"--duration={max(1, round(seconds))}s"]
    command += ["--timeout=60s", f"--script={HERE / 'post.lua'}", server.url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        raise ServerFailed(f"wrk has measured nothing: {done.stdout[-300:]} {done.stderr[-300:]}")
    figure: Figure = json.loads(lines[-1])
    figure["per_second"] = round(figure["requests"] / figure["seconds"], 2)
    return figure


def _start(server: Server) -> Figure:
    time.sleep(_SETTLE)
    pids = server.pids()
    return {
        "start_seconds": round(server.start_seconds, 3),
        "pss_mib": round(pss_mib(pids), 1),
        "rss_mib": round(rss_mib(pids), 1),
        "processes": len(pids),
    }


def _large(server: Server, place: Place, rows: int) -> Figure:
    body = place.body(server.contender, server.model, rows).read_bytes()
    pids = server.pids()
    idle = pss_mib(pids)
    with watched_peak(pids) as peak:
        started = time.perf_counter()
        answer = server.post(body, timeout=_LARGE_TIMEOUT)
        took = time.perf_counter() - started
    check_answer(answer, place.expected(server.model, rows))
    return {"wall_seconds": round(took, 4), "peak_mib": round(idle + peak.growth_mib, 1), "body_bytes": len(body)}


def _kinds(place: Place) -> list[str]:
    return [request["kind"] for request in json.loads((place.data / "broken.json").read_text())]


def _broken(server: Server, place: Place, scenario: Scenario, seconds: float, arm: str) -> Figure:
    extra = ["--apart"]
    if arm != "good":
        extra += ["--broken", str(place.data / "broken.json")]
    if arm in _kinds(place):
        extra += ["--kind", arm]
    return {"arm": arm, **_client(server, place, scenario, _BROKEN_SECONDS * seconds, *extra)}


def _client(server: Server, place: Place, scenario: Scenario, seconds: float, *extra: str) -> Figure:
    """Run our own client, in the server's environment, which has the quick event loop."""
    command: list[str | Path] = [place.environments.python(OURS), HERE / "client.py"]
    command += ["--port", str(server.port), "--path", server.contender.path, "--clients", str(scenario.clients)]
    command += ["--one-row-csv"] if scenario.one_row_csv else []
    command += ["--seconds", str(seconds), "--requests", place.data / f"requests-{server.model}.json", *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerFailed(f"the client has failed: {done.stderr[-500:]}")
    figure: Figure = json.loads(done.stdout)
    return figure
