"""Trains the model and writes model.pkl and example.csv beside this file."""

import pickle
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import train_test_split

here = Path(__file__).resolve().parent
flowers = load_iris(as_frame=True)
species = flowers.target.map(dict(enumerate(flowers.target_names)))
train, test, train_target, test_target = train_test_split(flowers.data, species, random_state=0)

model = RandomForestClassifier(n_estimators=50, random_state=0).fit(train, train_target)
print(f"accuracy {model.score(test, test_target):.3f} on {len(test)} flowers it has not seen")

(here / "model.pkl").write_bytes(pickle.dumps(model))
test.head(5).to_csv(here / "example.csv", index=False)
