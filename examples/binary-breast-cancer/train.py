"""Trains the model and writes model.pkl and example.csv beside this file."""

import pickle
from pathlib import Path

from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

here = Path(__file__).resolve().parent
tumours = load_breast_cancer(as_frame=True)
diagnosis = tumours.target.map(dict(enumerate(tumours.target_names)))
train, test, train_target, test_target = train_test_split(tumours.data, diagnosis, random_state=0)

model = make_pipeline(StandardScaler(), LogisticRegression()).fit(train, train_target)
print(f"accuracy {model.score(test, test_target):.3f} on {len(test)} tumours it has not seen")

(here / "model.pkl").write_bytes(pickle.dumps(model))
test.head(5).to_csv(here / "example.csv", index=False)
