"""The short form of the long proofs in ``benchmarks/chaos.py``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.mark.parametrize(
    "proof",
    [
        ["kills", "--kills", "40", "--workers", "2"],
        ["stops", "--times", "4"],
        ["reloads", "--times", "4", "--workers", "2"],
    ],
    ids=["kills", "stops", "reloads"],
)
def test_no_request_is_lost_in_chaos(tmp_path: Path, proof: list[str]) -> None:
    report = tmp_path / "report.json"
    done = subprocess.run(
        [sys.executable, str(CHAOS), *proof, "--json", str(report)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    told = json.loads(report.read_text())
    assert not told["failed"]
    assert told.get("requests", 100) > 20
