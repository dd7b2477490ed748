"""A model whose operator sets the limits: runtime parameters, read where they are needed."""

import pickle
from pathlib import Path

import pandas as pd
from datarobot_drum import RuntimeParameters


def load_model(code_dir):
    return pickle.loads((Path(code_dir) / "ridge.pkl").read_bytes())


def score(data, model, **kwargs):
    """Predict, bound the result, and say in whose name."""
    predictions = pd.Series(model.predict(data)).clip(upper=RuntimeParameters.get("CEILING"))
    if RuntimeParameters.get("WHOLE_NUMBERS"):
        predictions = predictions.round()
    return pd.DataFrame({"Predictions": predictions, "clinic": RuntimeParameters.get("CLINIC")})
