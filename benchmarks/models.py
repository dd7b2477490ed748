"""The models that the benchmarks serve; run by the model's interpreter: ``python models.py DIRECTORY``."""

import json
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

METADATA = """name: {name}
type: inference
targetType: binary
inferenceModel:
  targetName: y
  positiveClassLabel: "1"
  negativeClassLabel: "0"
"""
NOOP = """import pandas as pd


def load_model(code_dir):
    return object()


def score(data, model, **kwargs):
    return pd.DataFrame({"1": [0.5] * len(data), "0": [0.5] * len(data)})
"""


def main(directory: Path) -> None:
    """Write the folders ``pipeline`` and ``noop``, a one-row and a hundred-row body, and the expected probabilities."""
    numeric, categorical = [f"n{i}" for i in range(20)], [f"c{i}" for i in range(4)]
    values, labels = make_classification(n_samples=20_000, n_features=20, n_informative=10, random_state=0)
    frame = pd.DataFrame(values.round(6), columns=numeric)
    random = np.random.default_rng(0)
    for place, name in enumerate(categorical):
        frame[name] = random.choice([f"{name}_v{k}" for k in range(5 + 5 * place)], len(frame))
    encode = ColumnTransformer(
        [("numeric", StandardScaler(), numeric), ("categorical", OneHotEncoder(handle_unknown="ignore"), categorical)]
    )
    # Trained on what the servers will read, so that string types are those of a parsed CSV.
    model = make_pipeline(encode, LogisticRegression(max_iter=200)).fit(frame, labels)
    for name in ("pipeline", "noop"):
        folder = directory / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model-metadata.yaml").write_text(METADATA.format(name=name))
    joblib.dump(model, directory / "pipeline" / "model.pkl")
    (directory / "noop" / "custom.py").write_text(NOOP)
    expected = {"noop": 0.5}
    for rows in (1, 100):
        body = frame.iloc[:rows].to_csv(index=False)
        (directory / f"rows-{rows}.csv").write_text(body)
    expected["pipeline"] = float(model.predict_proba(pd.read_csv(directory / "rows-1.csv"))[0, 1])
    (directory / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
