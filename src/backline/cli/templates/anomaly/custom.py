"""An anomaly model: how far a machine's readings are from normal, in standard deviations."""

import json
from pathlib import Path


def load_model(code_dir):
    """Return mean and deviation of each reading; Backline hands them to `score` as `model`."""
    return json.loads((Path(code_dir) / "normal.json").read_text(encoding="utf-8"))


def score(data, model, **kwargs):
    """Return one column named Predictions: the largest deviation of any reading in the row."""
    deviations = {
        column: (data[column] - normal["mean"]).abs() / normal["deviation"] for column, normal in model.items()
    }
    return data.assign(**deviations)[list(model)].max(axis=1).to_frame("Predictions")
