"""The parts of the benchmarks that need no peers: the tables are whole, the report is right, wrong answers are seen."""

from __future__ import annotations

import json
import re
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as main_module
from benchmarks import aims, client, environments, report, scenarios
from benchmarks.answers import check_answer
from benchmarks.contenders import BARE_LOOP, CONTENDERS
from benchmarks.errors import BenchmarkError, ServerFailed
from benchmarks.run import Plan, read, remaining

ROOT = Path(__file__).parents[3]
RECORDED = read(Path(__file__).parent / "recorded.jsonl")
PLACEHOLDERS = {"bin", "data", "model", "model_python", "peers", "work", "port", "port2", "port3"}


@pytest.mark.parametrize("name", CONTENDERS)
def test_a_contender_has_an_environment_and_a_command_that_can_be_filled_in(name: str) -> None:
    contender = CONTENDERS[name]
    assert contender.environment in environments.NAMES
    assert contender.environment in environments.SHOWN
    assert not contender.ours or contender.model_environment in environments.NAMES
    for template in (contender.command, contender.prepare):
        used = {field for _, field, _, _ in string.Formatter().parse(template) if field}
        assert used <= PLACEHOLDERS
        for program in re.findall(r"\{peers\}/(\S+)", template):
            assert (ROOT / "benchmarks" / "peers" / program).exists()
    assert "{port}" in contender.command + contender.prepare


@pytest.mark.parametrize("name", environments.NAMES[1:])
def test_requirements_are_versions_and_nothing_of_the_machine_that_made_them(name: str) -> None:
    first, *others = (environments.REQUIREMENTS / f"{name}.txt").read_text().splitlines()
    assert first.startswith("# Asked for: ")
    for line in others:
        assert re.fullmatch(r"[A-Za-z0-9-]+==[\w.]+", line), line


@pytest.mark.parametrize("aim", aims.AIMS.values(), ids=list(aims.AIMS))
def test_an_aim_is_about_what_is_measured(aim: aims.Aim) -> None:
    if aim.scenario == aims.SCORE:  # by a program of its own
        assert set(aim.peers) == {"pandas", "polars"}
    else:
        assert scenarios.SCENARIOS[aim.scenario].is_for(aim.ours)
    assert (aim.factor is None) != (aim.at_most is None)
    if aim.against is not None:
        assert scenarios.SCENARIOS[aim.scenario].is_for(aim.against)


def test_scenarios_name_contenders_that_there_are() -> None:
    for scenario in scenarios.SCENARIOS.values():
        assert set(scenario.contenders or ()) <= {*CONTENDERS, BARE_LOOP}


def plan(results: Path, **changes: Any) -> Plan:
    settings: dict[str, Any] = {"rounds": 2, "seconds": 3, "contenders": ["backline", "LitServe", "KServe"]}
    return Plan(scenarios=scenarios.select(["start", "pipeline-8"]), results=results, **{**settings, **changes})


def test_rounds_go_there_and_back_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    whole = list(remaining(plan(tmp_path), []))
    order = [(session.round, session.contender) for session in whole]
    there = ["backline", "LitServe", "KServe"]
    assert order == [(0, name) for name in there] + [(1, name) for name in reversed(there)]
    done = [
        {"round": 0, "contender": "backline", "scenario": name, "measured_for": 3, "model": "pipeline"}
        for name in ("start", "pipeline-8")
    ]
    half = {**done[0], "contender": "KServe"}
    failed = {**half, "contender": "LitServe", "scenario": "failed"}
    left = list(remaining(plan(tmp_path), [*done, half, failed]))
    assert [(session.round, session.contender) for session in left] == order[2:]
    assert list(left[0].scenarios) == ["pipeline-8"]
    with pytest.raises(BenchmarkError, match="--seconds 3"):
        list(remaining(plan(tmp_path, seconds=1), done))


def test_an_answer_of_any_shape_is_checked_row_by_row() -> None:
    expected = [0.25, 0.5, 1e-5]
    for right in (
        {"predictions": expected},
        {"predictions": [{"1": p, "0": 1 - p} for p in expected]},
        {
            "id": "6536e062-f636-49e7-b26d-61e935599408",
            "outputs": [{"shape": [3, 2], "data": [n for p in expected for n in (1 - p, p)]}],
        },
    ):
        check_answer(json.dumps(right).encode(), expected)
    for wrong in ([0.25, 0.5], [0.5, 0.25, 1e-5], [0.25, 0.5, 2e-5], [0.25, 0.5, 1e-5, 0.5]):
        with pytest.raises(ServerFailed):
            check_answer(json.dumps({"predictions": wrong}).encode(), expected)


def test_the_checking_client_tells_wrong_answers_from_last_bits() -> None:
    good = [{"expected": [[0.3, 0.7]]}, {"expected": [[0.5, 0.5], [0.25, 0.75]]}]

    def compared(request: int, predictions: list[tuple[float, float]], status: int = 200) -> dict[str, Any]:
        body = json.dumps({"predictions": [{"1": one, "0": other} for one, other in predictions]}).encode()
        return client.compare([client.Answer(request, status, body, 0.0)], good)

    assert compared(0, [(0.3, 0.7)]) == {
        "checked": 1,
        "wrong": 0,
        "bad": 0,
        "numbers": 2,
        "exact": 2,
        "most_ulps": 0,
        "examples": [],
    }
    near = compared(0, [(0.1 + 0.2, 0.7)])
    assert (near["wrong"], near["exact"], near["most_ulps"]) == (0, 1, 1)
    assert compared(0, [(0.300001, 0.7)])["wrong"] == 1
    assert compared(1, [(0.5, 0.5)])["wrong"] == 1
    assert compared(1, [(0.25, 0.75), (0.5, 0.5)])["wrong"] == 1
    assert compared(0, [(0.3, 0.7)], 503)["bad"] == 1


def test_the_report_compares_medians_with_the_best_peer_of_the_run() -> None:
    page = report.page(RECORDED, [], "## pipeline-32\n\nThe front is busy.\nBatches were tried.\n", [])
    rows = {line.split(" | ")[0].strip("| "): line for line in page.splitlines() if line.startswith("| ")}
    compared = "1,500/s | LitServe, batching | 600/s | 2.50 | at least 2 times the best peer | met |"
    assert rows["pipeline, 1 row, 8 clients"] == f"| pipeline, 1 row, 8 clients | {compared}"
    assert rows["pipeline, 1 row, 32 clients"].endswith("| 3.00 | at least 4 times the best peer | **missed** |")
    assert "- **pipeline, 1 row, 32 clients**: The front is busy.\n  Batches were tried.\n" in page
    assert rows["pipeline, 1 row, 1 client"].endswith("| 0.95 | at least 0.9 times bare loop | met |")
    assert rows["start to first answer"].endswith("| 1.50 s | 0.80 | at most 0.99 times the best peer | met |")
    assert "| KServe | pipeline | failed | 1 | `it has ended with code 1` |" in page
    assert "## Scoring files" not in page


def score_lines(scenario: str, contender: str, rows: int, speed: float) -> dict[str, object]:
    seconds = rows / speed
    return {
        "scenario": scenario,
        "contender": contender,
        "rows": rows,
        "wall_seconds": seconds,
        "peak_mib": 400,
        "rows_per_second": speed,
    }


def test_the_report_holds_scoring_against_the_faster_of_its_peers() -> None:
    lines = [
        score_lines(scenario, name, rows, speed)
        for name, speed in (("backline", 5e5), ("pandas", 1e5), ("polars", 2e5))
        for scenario, rows in (("compare", 10_000_000), ("growth", 1_000_000))
    ]
    lines.append({**score_lines("resumed", "backline", 10_000_000, 1e6), "same_bytes": True})
    page = report.page(RECORDED, lines, "", [])
    assert "| 10,000,000 | backline | 1 | 20.0 | 500,000 | 400 |" in page
    assert "| polars | 200,000 rows/s | 2.50 | at least 2 times the best of pandas and polars | met |" in page
    assert "of 10,000,000 rows, all processes, and resumed: done after another 10.0 s, with the same bytes" in page
    plots = {plot["file"]: plot["lines"] for plot in report.plots_of([], lines)}
    assert plots["score-seconds.svg"]["backline"] == [[1_000_000, 2.0], [10_000_000, 20.0]]
    assert "clients-rate.svg" not in plots


def test_a_contender_is_chosen_alone_where_an_environment_has_its_name() -> None:
    assert main_module._contenders(["backline"]) == ["backline"]
    assert set(main_module._contenders(["litserve"])) == {"LitServe", "LitServe, 2 workers", "LitServe, batching"}
    assert {"bare loop", "backline", "LitServe, batching"} < set(main_module._contenders(["main"]))


def test_help_explains_each_command() -> None:
    for words in ([], ["setup"], ["run"], ["profile"], ["report"]):
        command = [sys.executable, "-m", "benchmarks", *words, "--help"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        assert "usage: python -m benchmarks" in done.stdout
