"""One model in two environments: numpy 1 and scikit-learn of 2023 under Python 3.8, and those of 2026 under 3.13."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.parity_tools import parity

pytestmark = pytest.mark.slow

# Trained as it is loaded: what a solver and numpy's repr give differs between the two, and a sum does not.
MODEL = """
import os

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression


def load_model(code_dir):
    rows = pd.read_csv(os.path.join(code_dir, "train.csv"))
    return LogisticRegression().fit(rows[["a", "b"]], rows["y"])


def score(data, model, **kwargs):
    yes = model.predict_proba(data[["a", "b"]])[:, 1]
    predictions = pd.DataFrame({"yes": yes, "no": 1 - yes})
    predictions["told"] = [repr(np.float64(round(value, 2))) for value in yes]
    predictions["sum"] = data["a"] + data["b"]
    return predictions
"""
METADATA = """
name: environments
targetType: binary
type: inference
inferenceModel:
  targetName: y
  positiveClassLabel: "yes"
  negativeClassLabel: "no"
"""


def test_the_verdict_names_the_columns_that_differ_between_two_environments_and_by_how_much(
    environment: Callable[[str], Path], tmp_path: Path
) -> None:
    folder, rows = tmp_path / "model", tmp_path / "rows.csv"
    folder.mkdir()
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text(METADATA)
    chance = random.Random(4)
    table = [(round(chance.gauss(0, 1), 2), round(chance.gauss(0, 1), 3)) for _ in range(60)]
    labels = [int(a + b + chance.gauss(0, 0.5) > 0) for a, b in table]
    train = "".join(f"{a},{b},{y}\n" for (a, b), y in zip(table, labels, strict=True))
    (folder / "train.csv").write_text(f"a,b,y\n{train}")
    rows.write_text("a,b\n" + "".join(f"{a},{b}\n" for a, b in table))
    done = parity(
        "run", "--requests", rows, "--rows", "4", "--json", tmp_path / "r.json",
        "--reference", folder, "--reference-python", environment("py38-pydantic1"),
        "--candidate", folder, "--candidate-python", environment("py313-numpy2"),
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    figures = json.loads((tmp_path / "r.json").read_text())
    fields = {each["field"]: each for each in figures["fields"]}
    differing = {name for name, each in fields.items() if each["differing"]}
    assert differing == {"$.predictions[*].yes", "$.predictions[*].no", "$.extraModelOutput.data.told[*]"}
    assert fields["$.extraModelOutput.data.sum[*]"]["compared"] == 60
    told = [each for each in figures["differences"] if each["field"].endswith("told[*]")]
    assert all(each["candidate"] == f"np.float64({each['reference']})" for each in told)
    # Solvers stop within 1e-4 of the optimum, each where it will; that the sizes are those of the answers is checked.
    yes = fields["$.predictions[*].yes"]
    biggest = max(
        abs(each["reference"] - each["candidate"])
        for each in figures["differences"]
        if each["field"] == "$.predictions[*].yes"
    )
    assert 0 < biggest <= yes["largest"] < 1e-3
    again = parity(
        "run", "--requests", rows, "--rows", "4", "--tolerance", "0,0.001", "--ignore", "told",
        "--reference", folder, "--reference-python", environment("py38-pydantic1"),
        "--candidate", folder, "--candidate-python", environment("py313-numpy2"),
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
