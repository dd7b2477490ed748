"""Trains the model and writes model.pkl and example.csv beside this file."""

import pickle
from pathlib import Path

from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

here = Path(__file__).resolve().parent
patients = load_diabetes(as_frame=True, scaled=False)
train, test, train_target, test_target = train_test_split(patients.data, patients.target, random_state=0)

model = make_pipeline(StandardScaler(), RidgeCV()).fit(train, train_target)
print(f"R2 {model.score(test, test_target):.3f} on {len(test)} patients it has not seen")

(here / "model.pkl").write_bytes(pickle.dumps(model))
test.head(5).to_csv(here / "example.csv", index=False)
