"""The tests of the artifact loaders, run where every library is: here, most of them are skipped."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.environments import environment

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SUITE = "tests/unit/backline_worker/artifacts"


def test_loaders_under_their_libraries(tmp_path: Path) -> None:
    done = subprocess.run(
        [environment("artifacts"), "-m", "pytest", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'inner'}", SUITE],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert "could not import" not in done.stdout, done.stdout
