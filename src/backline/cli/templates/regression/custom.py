"""A regression model: the tip for a restaurant bill, from a table of weights."""

import json
from pathlib import Path


def load_model(code_dir):
    """Return the weights; Backline hands them to `score` as `model`."""
    return json.loads((Path(code_dir) / "weights.json").read_text(encoding="utf-8"))


def score(data, model, **kwargs):
    """Return one column named Predictions, one number for each row of `data`."""
    tips = model["intercept"] + sum(weight * data[column] for column, weight in model["weights"].items())
    return tips.to_frame("Predictions")
