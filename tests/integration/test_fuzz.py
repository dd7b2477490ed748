"""The short form of the fuzzer, and what it has ever found. ``python -m tests.fuzz`` is the long one."""

from __future__ import annotations

import collections
from pathlib import Path

import pytest

from tests.fuzz.__main__ import describe
from tests.fuzz.cases import kept_cases
from tests.fuzz.run import replay, run_target
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.slow

CASES = 20  # for each share of a target


@pytest.mark.parametrize("target", TARGETS)
def test_damaged_input_is_read_or_refused_and_nothing_else(target: str, tmp_path: Path) -> None:
    report = run_target(target, seed=1, count=CASES * TARGETS[target][1], keep=tmp_path)
    assert not report.findings, describe(report) + "\n" + report.findings[0].what
    assert sum(report.outcomes.values()) == report.cases == CASES * TARGETS[target][1]


def test_what_was_found_once_stays_mended() -> None:
    paths: dict[str, list[Path]] = collections.defaultdict(list)
    for path in kept_cases():
        paths[path.name.rpartition("-")[0]].append(path)
    assert paths.keys() <= TARGETS.keys()
    for target, kept in paths.items():
        report = replay(target, kept)
        assert not report.findings, [(str(each.kept), each.what) for each in report.findings]


def test_a_case_that_ends_its_process_is_found_and_the_others_are_run() -> None:
    report = run_target("trial", seed=0, count=30, keep=None)
    assert {(each.number, each.how) for each in report.findings} == {(7, "crash"), (11, "Wrong")}
    assert report.cases == 30
    assert report.processes == 2
