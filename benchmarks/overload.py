"""More requests than the server can answer: what is still answered in time, and how soon the rest is refused."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.streams import free_port, get, percentile, process, wait_ready

WORKERS = 2
SERVICE = 0.005  # seconds of the hook's answer
TIMES = (1.0, 2.0, 3.0, 10.0)
HOOK = f"""
import time


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    time.sleep({SERVICE})
    return data
"""
HOOK_METADATA = "name: m\ntype: inference\ntargetType: unstructured\n"
PIPELINE = """
import sys

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

random = np.random.default_rng(0)
numeric = [f"n{i}" for i in range(20)]
frame = pd.DataFrame(random.normal(size=(2000, 20)), columns=numeric)
frame["c"] = random.choice(["a", "b", "c"], 2000).astype(object)
encode = ColumnTransformer([("n", StandardScaler(), numeric), ("c", OneHotEncoder(handle_unknown="ignore"), ["c"])])
model = make_pipeline(encode, LogisticRegression()).fit(frame, (frame["n0"] > 0).astype(int))
joblib.dump(model, sys.argv[1] + "/model.pkl")
frame.iloc[:1].to_csv(sys.argv[1] + "/row.csv", index=False)
"""
PIPELINE_METADATA = (
    'name: p\ntype: inference\ntargetType: binary\ninferenceModel:\n  targetName: y\n  positiveClassLabel: "1"\n'
    '  negativeClassLabel: "0"\n'
)
MODEST = [f"127.0.0.{place}" for place in range(10, 19)]
CLIENTS = ("open", "many", "retrying", "greedy")
KINDS: dict[str, list[str]] = {"hook": [], "pipeline": ["--batch", "off"], "batched": []}


def main() -> int:
    """Measure what the command line asks for; print a table."""
    arguments = parse_arguments()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}; phases of {arguments.seconds:g} s, medians of {arguments.rounds} rounds."
    )
    print(
        "\n| model | clients | offered/s | goodput/s | of the peak | accepted p50 / p99 ms | refused/s "
        "| refusal p50 / p99 ms | answered too late, lost | refusals say |\n| " + "--- | " * 10
    )
    for kind in arguments.kinds:
        with serving(kind, arguments) as (port, load):
            measure(kind, port, load, arguments)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--clients", nargs="+", choices=CLIENTS, default=CLIENTS)
    parser.add_argument("--times", nargs="+", type=float, default=TIMES, help="how many times the capacity is offered")
    parser.add_argument("--deadlines", nargs="+", type=float, default=[0, 0.25], help="seconds; 0 sends no header")
    parser.add_argument("--late", type=float, default=6.0, help="seconds after which an answer is no use, without one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one phase")
    parser.add_argument("--server", nargs="+", default=[sys.executable, "-m", "backline"], help="the program")
    parser.add_argument("--options", nargs="*", default=[], help="of the server, written with + for -")
    return parser.parse_args()


@contextlib.contextmanager
def serving(kind: str, arguments: argparse.Namespace) -> Iterator[tuple[int, dict[str, Any]]]:
    """Run a server for the block; yields its port and what is the same for all loads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind == "hook":
            (folder / "custom.py").write_text(HOOK)
            (folder / "model-metadata.yaml").write_text(HOOK_METADATA)
            load = {"paths": ["/predictUnstructured/"], "body": "hello", "headers": {"Content-Type": "text/plain"}}
        else:
            subprocess.run([sys.executable, "-c", PIPELINE, name], check=True)
            body = (folder / "row.csv").read_text()
            (folder / "row.csv").unlink()
            (folder / "model-metadata.yaml").write_text(PIPELINE_METADATA)
            load = {"paths": ["/predict/"], "body": body, "headers": {"Content-Type": "text/csv"}}
        port = free_port()
        workers = WORKERS if kind == "hook" else 1
        command = [*arguments.server, "serve", name, "--address", f"127.0.0.1:{port}", "--workers", str(workers)]
        command += [*KINDS[kind], *(option.replace("+", "-") for option in arguments.options)]
        with process(command, port):
            wait_ready(port)
            yield port, {"port": port, "connections": 8000, **load}


def measure(kind: str, port: int, load: dict[str, Any], arguments: argparse.Namespace) -> None:
    """Find the capacity, then offer multiples of it; print a line for each."""
    run({**load, "rate": 0, "seconds": 2, "connections": 8})  # warm-up
    closed = run({**load, "rate": 0, "seconds": 2, "connections": 64})
    capacity = figures(closed, arguments.late, 2)["goodput"]
    ramp = [
        figures(run({**load, "rate": capacity * share, "seconds": 2}), arguments.late, 2)["goodput"]
        for share in (0.7, 0.8, 0.9, 1.0)
    ]
    peak = max(capacity, *ramp)
    print(f"{kind}: {capacity:.0f}/s closed, peak {peak:.0f}/s, ramp {[round(r) for r in ramp]}", file=sys.stderr)
    plans: list[tuple[str, dict[str, Any], float]] = []
    for client in arguments.clients:
        for deadline in arguments.deadlines:
            headers = load["headers"] | ({"X-Request-Timeout": str(deadline)} if deadline else {})
            late = deadline or arguments.late
            told = f", {deadline * 1000:g} ms to answer" if deadline else ""
            if client == "open":
                for times in arguments.times:
                    spec = {"rate": capacity * times, "headers": headers}
                    plans.append((f"open loop, {times:g} times{told}", spec, late))
            elif client == "many":
                spec = {"rate": capacity * 3, "headers": headers, "connections": 2000}
                plans.append((f"3 times, up to 2,000 connections{told}", spec, late))
            elif client == "greedy":
                spec = {"rate": capacity * 0.45, "headers": headers, "greedy": capacity * 3, "sources": MODEST}
                plans.append(
                    (f"nine modest ones (45 % of the capacity) beside a greedy one (3 times){told}", spec, late)
                )
            elif client == "retrying":
                plans.append((f"2,000 that retry at once{told}", {"headers": headers, "connections": 2000}, late))
    taken: dict[str, list[dict[str, Any]]] = {}
    for _ in range(arguments.rounds):
        for name, spec, late in plans:
            outcome = run({**load, "rate": 0, "seconds": arguments.seconds, **spec})
            found = figures(outcome, late, arguments.seconds)
            print(json.dumps({"kind": kind, "clients": name, **found}), file=sys.stderr)
            taken.setdefault(name, []).append(found)
            wait_idle(port)
    peak = max(peak, *(statistics.median(found["goodput"] for found in phases) for phases in taken.values()))
    for name, _, _ in plans:
        print(line(kind, name, taken[name], peak), flush=True)


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """Have a process send a load; return what came of it. ``greedy`` is the rate of another one, from elsewhere."""
    greedy = spec.get("greedy")
    if greedy is not None:
        spec = {key: value for key, value in spec.items() if key != "greedy"}
        other = {**spec, "rate": greedy, "sources": ["127.0.0.2"], "seconds": spec["seconds"] + 1}
        command = [sys.executable, "-m", "benchmarks.open_loop", json.dumps(other)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as greedy_one:
            time.sleep(1)
            outcome = run(spec)
            greedy_one.wait()
        return outcome
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.open_loop", json.dumps(spec)], stdout=subprocess.PIPE, check=True
    )
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def figures(outcome: dict[str, Any], late: float, seconds: float) -> dict[str, Any]:
    """Return rates and latencies; an answer is good within ``late`` seconds from when its request was due.

    What is counted are latencies of what was due after the settling, and answers that came after it and before the end:
    while the queue fills, more is taken on than is answered.
    """
    settle = seconds / 3
    counted_seconds = seconds - settle
    counted = [(status, took) for _, status, due, took in outcome["requests"] if settle <= due]
    came = [(status, took) for _, status, due, took in outcome["requests"] if settle <= due + took < seconds]
    accepted = [took for status, took in counted if status == 200]
    refused = [took for status, took in counted if status in {429, 503}]
    others = [status for status, _ in counted if status not in {200, 429, 503}]

    def spread(values: list[float]) -> list[float] | None:
        return [1000 * percentile(values, share) for share in (0.5, 0.99)] if values else None

    return {
        "offered": len(counted) / counted_seconds,
        "goodput": sum(status == 200 and took <= late for status, took in came) / counted_seconds,
        "accepted": spread(accepted),
        "refused": len(refused) / counted_seconds,
        "refusal": spread(refused),
        "late": sum(status == 200 and took > late for status, took in came) / counted_seconds,
        "statuses": {str(status): others.count(status) for status in sorted(set(others))},
        "codes": outcome["codes"],
        "retry_after": outcome["retry_after"],
    }


def line(kind: str, name: str, taken: list[dict[str, Any]], peak: float) -> str:
    """Return the table's line."""

    def median(key: str) -> float:
        return statistics.median(found[key] for found in taken)

    def spread(key: str) -> str:
        known = [found[key] for found in taken if found[key]]
        return " / ".join(f"{statistics.median(pair[i] for pair in known):.1f}" for i in (0, 1)) if known else ""

    statuses: dict[str, int] = {}
    for found in taken:
        for status, count in found["statuses"].items():
            statuses[status] = statuses.get(status, 0) + count
    late = [f"{median('late'):.0f}/s late"] if median("late") else []
    late += [f"{count} of {status}" if status != "0" else f"{count} lost" for status, count in statuses.items()]
    says = {code for found in taken for code in found["codes"]}
    seconds = [int(wait) for found in taken for wait in found["retry_after"]]
    told = f"{', '.join(sorted(says))}; Retry-After {min(seconds)} to {max(seconds)}" if seconds else ""
    cells = [
        kind, name, f"{median('offered'):,.0f}", f"{median('goodput'):,.0f}", f"{median('goodput') / peak:.0%}",
        spread("accepted"), f"{median('refused'):,.0f}", spread("refusal"), ", ".join(late), told,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def wait_idle(port: int) -> None:
    """Wait until nothing is left of a load."""
    wait_ready(port)
    while json.loads(get(port, "/stats")[1])["queue"]["waiting"]:
        pass


if __name__ == "__main__":
    sys.exit(main())
