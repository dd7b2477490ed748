"""Train a small pipeline and write model.pkl beside this file: python train.py."""

import pickle
from pathlib import Path

from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent


def main():
    """Train on the iris data, and write the model and three rows to try it with."""
    iris = load_iris(as_frame=True)
    rows = iris.data.rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
    species = iris.target.map(lambda number: iris.target_names[number])
    pipeline = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=50, random_state=0))
    print(f"accuracy {cross_val_score(pipeline, rows, species).mean():.3f}, by cross-validation")
    pipeline.fit(rows, species)
    (HERE / "model.pkl").write_bytes(pickle.dumps(pipeline))
    rows.iloc[[0, 50, 100]].to_csv(HERE / "example.csv", index=False)
    print(f"wrote {HERE / 'model.pkl'}")


if __name__ == "__main__":
    main()
