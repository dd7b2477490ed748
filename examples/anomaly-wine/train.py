"""Trains the model and writes model.pkl and example.csv beside this file."""

import pickle
from pathlib import Path

import pandas as pd
from sklearn.datasets import load_wine
from sklearn.ensemble import IsolationForest

here = Path(__file__).resolve().parent
wines = load_wine(as_frame=True).data

model = IsolationForest(random_state=0).fit(wines)
print(f"{(model.predict(wines) < 0).sum()} of {len(wines)} wines stand out")

(here / "model.pkl").write_bytes(pickle.dumps(model))
freak = wines.max().to_frame().T  # no wine has the most of everything
pd.concat([wines.iloc[[0, 10, 140]], freak]).to_csv(here / "example.csv", index=False)
