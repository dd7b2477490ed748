"""Four hooks around a classifier: what it is, what it gets, what it says, and what is made of that."""

import pickle
from pathlib import Path

import pandas as pd


def add_features(data):
    return data.assign(flavour=data["flavanoids"] / data["total_phenols"])


def load_model(code_dir):
    """Return what the other hooks get as `model`: anything will do."""
    return pickle.loads((Path(code_dir) / "wine.pkl").read_bytes())


def transform(data, model):
    """Prepare the rows; clients send them as they were measured."""
    return add_features(data)


def score(data, model, **kwargs):
    """Return one column for each class label, named like it, in any order."""
    return pd.DataFrame(model.predict_proba(data), columns=model.classes_)


def post_process(predictions, model):
    """Add a column beyond the labels: it comes back as extra model output."""
    return predictions.assign(doubtful=predictions[list(model.classes_)].max(axis=1) < 0.8)
