"""Makes models, bodies and the library's own answers: ``python prepare.py FOLDER``, run in the model's environment.

::

    FOLDER/pipeline/  forest/  noop/        model folders: metadata, and an artifact or a hook
    FOLDER/bodies/MODEL-FORMAT-ROWS         what wrk posts, in the format of each peer
    FOLDER/answers/MODEL-ROWS.json          P(class 1) of each row of those bodies
    FOLDER/requests-MODEL.json              different requests with their answers, for the client that checks
    FOLDER/broken.json                      requests that must be refused, one of each kind
"""

import io
import json
import shutil
import sys
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROWS = 100_000
TRAINED_ON = 20_000
DIFFERENT_REQUESTS = 600
NUMERIC = [f"n{i}" for i in range(20)]
CATEGORICAL = [f"c{i}" for i in range(4)]
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


def main(folder: Path) -> None:
    """Write everything."""
    values, labels = make_classification(n_samples=ROWS, n_features=len(NUMERIC), n_informative=10, random_state=0)
    frame = pd.DataFrame(values.round(6), columns=NUMERIC)
    random = np.random.default_rng(0)
    for place, name in enumerate(CATEGORICAL):
        frame[name] = random.choice([f"{name}_v{k}" for k in range(5 + 5 * place)], len(frame))
    # Plain objects, so that environments with pandas 2 and 3 open the same artifact.
    frame = frame.astype(dict.fromkeys(CATEGORICAL, object))
    encode = ColumnTransformer(
        [("numeric", StandardScaler(), NUMERIC), ("categorical", OneHotEncoder(handle_unknown="ignore"), CATEGORICAL)]
    )
    trained_on, known = frame.iloc[:TRAINED_ON], labels[:TRAINED_ON]
    pipeline = make_pipeline(encode, LogisticRegression(max_iter=200)).fit(trained_on, known)
    forest = RandomForestClassifier(100, random_state=0).fit(trained_on[NUMERIC], known)

    for part in ("bodies", "answers"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    write_model(folder, "pipeline", pipeline)
    write_model(folder, "forest", forest)
    write_model(folder, "noop", None)
    for rows in (1, 100, ROWS):
        write_bodies(folder, "pipeline", frame.iloc[:rows], pipeline)
    write_bodies(folder, "forest", frame[NUMERIC].iloc[:1], forest)
    write_bodies(folder, "noop", frame.iloc[:1], None)
    write_requests(folder, "pipeline", frame, pipeline)
    write_requests(folder, "forest", frame[NUMERIC], forest)
    write_broken(folder, frame)
    # Last: its being there says that all is.
    (folder / "prepared.json").write_text(json.dumps({"pandas": pd.__version__, "rows": ROWS}))


def write_model(folder: Path, name: str, model: object | None) -> None:
    """Write a model folder that follows the custom-model contract."""
    target = folder / name
    target.mkdir(exist_ok=True)
    (target / "model-metadata.yaml").write_text(METADATA.format(name=name))
    if model is None:
        (target / "custom.py").write_text(NOOP)
        return
    joblib.dump(model, target / "model.pkl")
    shutil.copy(target / "model.pkl", folder / f"{name}.joblib")


def write_bodies(folder: Path, name: str, frame: pd.DataFrame, model: object | None) -> None:
    """Write the same rows in every format that a contender reads, and what the library answers."""
    records = frame.to_dict("records")
    inputs = []
    for column in frame.columns:
        field = {"name": column, "shape": [len(frame), 1], "data": frame[column].tolist()}
        if column in NUMERIC:
            inputs.append({**field, "datatype": "FP64"})
        else:
            inputs.append({**field, "datatype": "BYTES", "parameters": {"content_type": "str"}})
    bodies = {
        "csv": frame.to_csv(index=False),
        "records": json.dumps({"rows": records}),
        "instances": json.dumps({"instances": records}),
        "df": json.dumps({"df": records}),
        "split": json.dumps({"dataframe_split": {"columns": list(frame.columns), "data": frame.to_numpy().tolist()}}),
        "v2": json.dumps(
            {"parameters": {"content_type": "pd"}, "outputs": [{"name": "predict_proba"}], "inputs": inputs}
        ),
    }
    for body_format, body in bodies.items():
        (folder / "bodies" / f"{name}-{body_format}-{len(frame)}").write_text(body)
    if model is None:
        answers = [0.5] * len(frame)
    else:
        answers = model.predict_proba(pd.read_csv(io.StringIO(bodies["csv"])))[:, 1].tolist()
    (folder / "answers" / f"{name}-{len(frame)}.json").write_text(json.dumps(answers))


def write_requests(folder: Path, name: str, frame: pd.DataFrame, model: object) -> None:
    """Write different requests, CSV and JSON by turns, most of one row, with what the library gives for each alone."""
    random = np.random.default_rng(1)
    requests = []
    start = 0
    for number in range(DIFFERENT_REQUESTS):
        rows = 1 if random.random() < 0.9 else int(random.integers(2, 30))
        part = frame.iloc[start : start + rows]
        start += rows
        if number % 2:
            content_type, body = "application/json", json.dumps(part.to_dict("records"))
            read = pd.DataFrame(json.loads(body))
        else:
            content_type, body = "text/csv", part.to_csv(index=False)
            read = pd.read_csv(io.StringIO(body))
        expected = model.predict_proba(read)[:, ::-1].tolist()  # "1" before "0"
        requests.append({"content_type": content_type, "body": body, "expected": expected})
    (folder / f"requests-{name}.json").write_text(json.dumps(requests))


def write_broken(folder: Path, frame: pd.DataFrame) -> None:
    """Write requests that no server may answer with a prediction, alike enough to get into a batch with good ones."""
    good = frame.iloc[:1].to_csv(index=False)
    header, row = good.splitlines()
    rest = row.split(",", 1)[1]
    kinds = {
        "a column is missing": ("text/csv", frame.iloc[:1].drop(columns="n3").to_csv(index=False)),
        "text in a column of numbers": ("text/csv", f"{header}\nabc,{rest}\n"),
        "a number is missing": ("text/csv", f"{header}\n,{rest}\n"),
        "a row longer than the header": ("text/csv", f"{header}\n{row},1,2\n"),
        "an open quote": ("text/csv", f'{header}\n"{row}\n'),
        "no rows": ("text/csv", f"{header}\n"),
        "no body": ("text/csv", ""),
        "not JSON": ("application/json", '[{"n0": 1.5,'),
    }
    requests = [{"kind": kind, "content_type": given, "body": body} for kind, (given, body) in kinds.items()]
    (folder / "broken.json").write_text(json.dumps(requests))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
