"""The long form: ``python -m tests.fuzz --cases 1000000``. Exits with 1 where anything was found."""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import json
import os
import sys
import threading
import time
from pathlib import Path

from tests.fuzz.run import Report, run_target
from tests.fuzz.targets import TARGETS

_MOST_GROWTH = 48 << 20  # bytes; allocators keep what large cases have needed


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000, metavar="N", help="in all, shared out among the targets")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the same seed makes the same cases")
    parser.add_argument("--targets", default=",".join(TARGETS), metavar="A,B", help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 2) // 2), help="processes at a time")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-findings"), help="folder for the bytes of what is found"
    )
    parser.add_argument("--json", type=Path, help="file for the report")
    arguments = parser.parse_args()
    names = arguments.targets.split(",")
    if unknown := set(names) - TARGETS.keys():
        parser.error(f"unknown targets: {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    shares = sum(TARGETS[name][1] for name in names)
    started = time.monotonic()
    lock = threading.Lock()
    told: dict[str, float] = {}

    def progress(target: str, done: int) -> None:
        with lock:
            if time.monotonic() - told.get(target, started) > 30:
                told[target] = time.monotonic()
                print(f"{time.monotonic() - started:7.0f} s  {target}: {done} cases", file=sys.stderr)

    def run(name: str) -> Report:
        count = max(1, arguments.cases * TARGETS[name][1] // shares)
        report = run_target(name, seed=arguments.seed, count=count, keep=arguments.keep, progress=progress)
        with lock:
            print(describe(report), flush=True)
        return report

    with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
        reports = list(pool.map(run, names))
    cases, findings = sum(report.cases for report in reports), sum(len(report.findings) for report in reports)
    grown = [report.target for report in reports if report.growth > _MOST_GROWTH]
    print(f"{cases} cases in {time.monotonic() - started:.0f} s, seed {arguments.seed}: {findings} findings", end="")
    print(f"; memory grew in {', '.join(grown)}" if grown else "; no growth")
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([as_json(report) for report in reports], indent=1))
    return 1 if findings or grown else 0


def describe(report: Report) -> str:
    """Return the report in words."""
    lines = [
        f"{report.target}: {report.cases} cases, {report.cases / max(report.seconds, 0.01):.0f}/s, "
        f"{report.processes} processes, memory {report.growth / 2**20:+.1f} MiB, "
        + ", ".join(f"{name} {count}" for name, count in report.outcomes.most_common(8))
    ]
    marks = collections.Counter(finding.mark for finding in report.findings)
    for mark, count in marks.most_common():
        first = next(finding for finding in report.findings if finding.mark == mark)
        lines.append(f"  {count} times {mark}\n    first: case {first.number}, kept in {first.kept}")
    return "\n".join(lines)


def as_json(report: Report) -> dict[str, object]:
    """Return the report for a file."""
    return {
        "target": report.target,
        "cases": report.cases,
        "seconds": round(report.seconds, 1),
        "outcomes": dict(report.outcomes),
        "resident_bytes": report.memory,
        "findings": [
            {"number": each.number, "how": each.how, "what": each.what, "kept": each.kept and str(each.kept)}
            for each in report.findings
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
