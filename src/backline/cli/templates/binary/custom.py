"""A binary model: will a customer leave? A logistic score from a table of weights."""

import json
from math import exp
from pathlib import Path


def load_model(code_dir):
    """Return the weights; Backline hands them to `score` as `model`."""
    return json.loads((Path(code_dir) / "weights.json").read_text(encoding="utf-8"))


def score(data, model, positive_class_label, negative_class_label, **kwargs):
    """Return one column of probabilities for each label; the two sum to one in every row."""
    total = model["intercept"] + sum(weight * data[column] for column, weight in model["weights"].items())
    leaves = total.map(lambda value: 1 / (1 + exp(-value)))
    return leaves.to_frame(positive_class_label).assign(**{negative_class_label: 1 - leaves})
