"""One hook: without it the artifact's own `predict` answers, which says 1 or -1 and not how strange a row is."""

import pandas as pd


def score(data, model, **kwargs):
    """Return how strange each wine is: around 0.4 is ordinary, above 0.5 stands out, 1 is the most there is."""
    return pd.DataFrame({"Predictions": -model.score_samples(data)})
