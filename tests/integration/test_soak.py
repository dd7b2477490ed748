"""The short form of the soak in ``benchmarks/soak.py``: its answers, counters, descriptors and threads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_good_and_bad_traffic_is_answered_counted_and_leaves_nothing_open(tmp_path: Path) -> None:
    report, samples = tmp_path / "report.json", tmp_path / "samples.jsonl"
    short = ["--seconds", "8", "--warm-up", "3", "--settle", "12", "--rate", "60", "--mechanism"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *short, "--json", str(report), "--samples", str(samples)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    told = json.loads(report.read_text())
    judged = {name for name, held in told["verdicts"].items() if held}
    assert judged >= {"answers", "counters", "same processes", "file descriptors", "threads"}
    assert told["predictions_answered"] > 50
    assert set(told["right"]) >= {"csv", "json", "multipart", "proxy stream", "chat stream"}
    assert len(told["bad"]) > 20
    roles = {json.loads(line)["role"] for line in samples.read_text().splitlines()}
    assert roles == {"pipeline, front", "pipeline, worker", "chat, front", "chat, worker"}
