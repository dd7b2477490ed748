"""What every peer's program calls: rows (a list of dicts) or a DataFrame in, P(class 1) of each out."""

import os

NAME = os.environ["BENCH_MODEL"]

if NAME == "noop":

    def predict(rows):
        """Answer a constant."""
        return [0.5] * len(rows)

    predict_frame = predict
else:
    import joblib
    import pandas as pd

    model = joblib.load(f"{os.environ['BENCH_DATA']}/{NAME}/model.pkl")

    def predict_frame(frame):
        """Predict the rows of a DataFrame."""
        return model.predict_proba(frame)[:, 1].tolist()

    def predict(rows):
        """Predict a list of records."""
        return predict_frame(pd.DataFrame(rows))
