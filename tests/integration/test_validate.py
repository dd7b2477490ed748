"""Every check of ``backline validate`` fails on a model made to fail it, and passes on one that does not."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

GOOD = """
import pandas as pd

def load_model(code_dir):
    return 2.0

def score(data, model, **kwargs):
    return pd.DataFrame({"Predictions": data["a"].fillna(0) * model + data["b"].fillna(0)})
"""
SCHEMA = """
typeSchema:
  input_requirements:
    - field: data_types
      condition: IN
      value: [NUM]
"""
SAMPLE = "a,b\n" + "".join(f"{number},{number * number % 17}\n" for number in range(1, 21))
# Looks at the other rows, at the places of columns, and at values as if none were missing or of another type.
CARELESS = """
import pandas as pd

def load_model(code_dir):
    return None

def score(data, model, **kwargs):
    return pd.DataFrame({"Predictions": [int(value) * 1.0 for value in data.iloc[:, 0]] - data.iloc[:, 0].mean()})
"""


def make_folder(folder: Path, custom: str = GOOD, metadata: str = SCHEMA, toml: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "custom.py").write_text(custom)
    (folder / "model-metadata.yaml").write_text(f"name: tried\ntype: inference\ntargetType: regression\n{metadata}")
    (folder / "backline.toml").write_text(toml)
    (folder / "sample.csv").write_text(SAMPLE)
    return folder


def run(folder: Path, *flags: str, command: str = "validate") -> tuple[int, dict[str, dict[str, Any]], str]:
    """Return exit code, findings by check, and standard error."""
    sample = [] if "--input" in flags else ["--input", str(folder / "sample.csv")]
    words = [sys.executable, "-m", "backline", command, str(folder), "--json", "-", *sample, *flags]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    findings = json.loads(done.stdout)["findings"] if done.stdout.startswith("{") else []
    return done.returncode, {finding["check"]: finding for finding in findings}, done.stderr


def failed(findings: dict[str, dict[str, Any]]) -> set[str]:
    return {check for check, finding in findings.items() if finding["status"] == "failed"}


def test_a_good_model_passes_every_check(tmp_path: Path) -> None:
    code, findings, _ = run(make_folder(tmp_path), command="validation")
    assert {check: finding["status"] for check, finding in findings.items()} == dict.fromkeys(
        (
            "packages pickles loads answers,target type,same twice,subsets,order,batched,missing values,wrong types,"
            "columns,type schema"
        )
        .replace(" p", ",p")
        .replace(" l", ",l")
        .replace(" a", ",a")
        .split(","),
        "passed",
    )
    assert code == 0
    calls = re.match(r"16 requests in (\d+) calls of the model", findings["batched"]["seen"])
    assert calls is not None
    assert int(calls[1]) <= 10  # the first ones may be answered before the last ones are there
    assert 'mode = "on"' in findings["subsets"]["seen"]


def test_a_careless_model_fails_what_it_does_not_care_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, CARELESS, metadata="", toml='[batch]\nmode = "on"\n')
    code, findings, _ = run(folder)
    assert code == 1
    assert failed(findings) == {"subsets", "order", "batched", "missing values", "wrong types", "columns"} - {"order"}
    assert findings["order"]["status"] == "passed"  # a mean does not care for the order
    assert findings["type schema"]["status"] == "warning"
    assert [case["status"] for case in findings["missing values"]["cases"]] == ["FAILED", "PASSED"]
    assert any(
        case["sent"] == "columns in another order" and case["status"] == "FAILED"
        for case in findings["columns"]["cases"]
    )


def test_rows_that_depend_on_their_order_are_told_and_only_a_warning_where_nothing_is_batched(tmp_path: Path) -> None:
    custom = GOOD.replace('data["a"].fillna(0)', 'data["a"].fillna(0).cumsum()')
    _, findings, _ = run(make_folder(tmp_path, custom))
    assert [findings[check]["status"] for check in ("subsets", "order", "batched")] == ["warning"] * 3
    _, findings, _ = run(make_folder(tmp_path, custom), "--batch", "on")
    assert {"subsets", "order", "batched"} <= failed(findings)


def test_chance_is_found(tmp_path: Path) -> None:
    custom = GOOD.replace("* model", "* model + __import__('random').random()")
    code, findings, _ = run(make_folder(tmp_path, custom))
    assert code == 1
    assert "same twice" in failed(findings)


@pytest.mark.parametrize(
    ("custom", "flags", "expected", "told"),
    [
        ("import nothing_of_that_name\n" + GOOD, (), {"packages", "loads"}, "nothing_of_that_name cannot be imported"),
        (GOOD.replace("return 2.0", "raise OSError('no weights')"), (), {"loads"}, "no weights"),
        (GOOD.replace("return pd", "raise LookupError('lost'); pd"), (), {"answers"}, "lost"),
        (GOOD.replace('"Predictions"', '"Wrong"'), (), {"target type"}, "Predictions"),
        (GOOD.replace("* model", "* float('inf')"), ("--disable-strict-validation",), {"target type"}, "finite number"),
    ],
    ids=["packages", "loads", "answers", "columns-of-the-result", "values-of-the-result"],
)
def test_a_model_that_cannot_be_tried_further_is_told(
    tmp_path: Path, custom: str, flags: tuple[str, ...], expected: set[str], told: str
) -> None:
    code, findings, _ = run(make_folder(tmp_path, custom), *flags)
    assert code == 1
    assert failed(findings) >= expected
    assert any(told in findings[check]["seen"] for check in expected)


def test_a_pickle_that_names_what_it_should_not_is_found_and_what_is_trusted_can_be_allowed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "extra.pkl").write_bytes(b"csomewhere.models\nForeign\n.")
    _, findings, _ = run(folder)
    assert findings["pickles"]["status"] == "failed"
    assert findings["pickles"]["seen"] == "extra.pkl names somewhere.models.Foreign, which is not on the list"
    assert "packages" in failed(findings)  # nor is there such a module
    _, findings, _ = run(folder, "--allow", "somewhere.models")
    assert findings["pickles"]["status"] == "passed"
    (folder / "extra.pkl").write_bytes(pickle.dumps(os.system))
    _, findings, _ = run(folder, "--allow", "somewhere.models")
    assert findings["pickles"]["seen"] == "extra.pkl names posix.system, which can run anything"


def test_a_worker_that_dies_of_a_value_costs_that_case_only(tmp_path: Path) -> None:
    custom = GOOD.replace("    return pd", '    if data["b"].isna().all(): __import__("os")._exit(3)\n    return pd')
    code, findings, _ = run(make_folder(tmp_path, custom))
    assert code == 1
    assert [case["status"] for case in findings["missing values"]["cases"]] == ["PASSED", "FAILED"]
    assert findings["columns"]["status"] == "passed"


def test_the_offered_schema_can_be_written_and_is_kept_by_the_sample(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, metadata="")
    code, findings, told = run(folder, "--write-schema")
    assert (code, findings["type schema"]["status"]) == (1, "warning")
    assert "Added the type schema" in told
    _, findings, _ = run(folder)
    assert failed(findings) == set()
    assert findings["missing values"]["seen"].endswith("refused, as the type schema says")


def test_a_model_that_takes_no_rows_gets_the_file_as_it_is(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "custom.py").write_text("def score_unstructured(model, data, query, **kwargs):\n    return data[::-1]\n")
    code, findings, _ = run(folder, "--target-type", "unstructured")
    assert code == 0
    assert findings["same twice"]["status"] == "passed"
    assert findings["subsets"]["status"] == "skipped"


def test_table_page_and_messages(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    page = tmp_path / "page.html"
    words = [sys.executable, "-m", "backline", "validate", str(folder), "--html", str(page)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "there is no sample to try the model on" in done.stderr
    words += ["-i", str(folder / "sample.csv")]
    wide = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, env=wide)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^batched +passed +16 requests in \d+ calls", done.stdout, re.MULTILINE)
    assert done.stdout.endswith("13 passed\n")
    text = page.read_text()
    assert "13 passed" in text and "http://" not in text and "https://" not in text and "<script" not in text
    done = subprocess.run([*words[:-1], str(tmp_path / "none.csv")], capture_output=True, text=True, check=False)
    assert "there is no such file" in done.stderr
