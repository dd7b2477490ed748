"""Trains the model and writes ridge.pkl and example.csv beside this file."""

import pickle
from pathlib import Path

from sklearn.datasets import load_diabetes
from sklearn.linear_model import Ridge

here = Path(__file__).resolve().parent
patients = load_diabetes(as_frame=True, scaled=False)
columns = ["age", "bmi", "bp"]

model = Ridge().fit(patients.data[columns], patients.target)
print(f"R2 {model.score(patients.data[columns], patients.target):.3f} on the patients it was fitted on")

(here / "ridge.pkl").write_bytes(pickle.dumps(model))
patients.data[columns].head(3).to_csv(here / "example.csv", index=False)
