"""Models of every library, rows in every format, and what each library itself predicts for them.

``python parity_models.py FOLDER``, run by the python of the environment ``artifacts``, fills FOLDER:

    models/CASE/           the model folder
    rows/SET/ROWS/         the same rows in each format
    expected/CASE/ROWS/    for each format the library's own predictions for the rows as that format gives them, Parquet

Of the server nothing is used here: rows are read as pandas, pyarrow and scipy read them. The tests import this module
for its names, so libraries are imported late.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROWS = (1, 10_000)
FORMATS = ("csv", "records", "split", "lines", "arrow", "parquet", "mtx")
LABELS = ("low", "high", "mid")  # not in the order of the classes: theirs is the alphabet's, or 0, 1, 2
NUMBER_LABELS = ("2", "0", "1")

Own = Callable[[Any], Any]  # from a frame of rows to a frame of predictions


@dataclass(frozen=True)
class Case:
    """A model folder: ``make`` fills it and returns the library's own way to predict; ``rows`` names a set of rows."""

    make: Callable[[Path, Any], Own]
    target_type: str
    rows: str = "numbers"
    formats: tuple[str, ...] = FORMATS
    labels: tuple[str, ...] = ()
    target_name: str | None = None


# --- rows


def make_rows(name: str, count: int, seed: int) -> Any:
    """Return ``count`` rows of a set: numbers, numbers with gaps, or numbers with text, truth values and gaps."""
    import numpy as np
    import pandas as pd

    random = np.random.default_rng(seed)
    x = pd.DataFrame(random.normal(size=(count, 4)) * [1, 3, 0.1, 100], columns=list("abcd"))
    x["n"] = random.integers(-5, 50, count)
    if name == "numbers":
        return x
    for place, column in enumerate("ac"):
        x.loc[x.index % 7 == place, column] = np.nan
    if name == "gaps":
        return x
    x = x.rename(columns={"a": "größe, m", "b": "two words"})
    x["city"] = np.array(["Łódź", 'Say "hi"', "a,b", "x"])[random.integers(0, 4, count)]
    x["city"] = x["city"].where(x.index % 5 != 4)
    x["member"] = random.integers(0, 2, count).astype(bool)
    return x


def write_rows(x: Any, folder: Path) -> None:
    """Write the rows in every format that can carry them."""
    import numpy as np
    import pyarrow as pa
    import scipy.io
    import scipy.sparse
    from pyarrow import parquet

    folder.mkdir(parents=True)
    x.to_csv(folder / "csv", index=False)
    cells = [[None if value != value else value for value in row] for row in x.astype(object).to_numpy().tolist()]
    records = [dict(zip(x.columns, row, strict=True)) for row in cells]
    (folder / "records").write_text(json.dumps(records))
    (folder / "split").write_text(json.dumps({"columns": list(x.columns), "data": cells}, ensure_ascii=False))
    (folder / "lines").write_text("".join(json.dumps(record) + "\n" for record in records))
    table = pa.Table.from_pandas(x, preserve_index=False)
    with pa.ipc.new_stream(folder / "arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=3000)
    parquet.write_table(table, folder / "parquet", row_group_size=4000)
    if all(dtype.kind in "if" for dtype in x.dtypes):
        target = io.BytesIO()
        scipy.io.mmwrite(target, scipy.sparse.coo_matrix(x.to_numpy(dtype=np.float64)), precision=17)
        (folder / "mtx").write_bytes(target.getvalue())


def read_rows(folder: Path, form: str, columns: list[str]) -> Any:
    """Return the frame as the format's own library gives it."""
    import pandas as pd
    import pyarrow as pa
    import scipy.io

    path = folder / form
    if form == "csv":
        return pd.read_csv(path)
    # A null is NaN, as in a CSV: the one thing about JSON that pandas leaves open.
    if form == "records":
        return pd.DataFrame([_with_nan(record) for record in json.loads(path.read_text())])
    if form == "lines":
        return pd.DataFrame([_with_nan(json.loads(line)) for line in path.read_text().splitlines()])
    if form == "split":
        content = json.loads(path.read_text())
        names = content["columns"]
        return pd.DataFrame([_with_nan(dict(zip(names, row, strict=True))) for row in content["data"]])
    if form == "arrow":
        return pa.ipc.open_stream(path.read_bytes()).read_pandas()
    if form == "parquet":
        return pd.read_parquet(path)
    return pd.DataFrame.sparse.from_spmatrix(scipy.io.mmread(path), columns=columns)


def _with_nan(record: dict[str, Any]) -> dict[str, Any]:
    return {name: float("nan") if value is None else value for name, value in record.items()}


def two_classes(x: Any) -> Any:
    return (x["n"] > x["n"].median()).astype(int).to_numpy()


def three_classes(x: Any) -> Any:
    import numpy as np

    return np.digitize(x["b"], [-1.0, 1.5])


def one_number(x: Any) -> Any:
    return (x["b"] * 2 + x["d"] / 7 + x["n"]).to_numpy()


def values_of(array: Any) -> Any:
    import numpy as np
    import pandas as pd

    array = np.asarray(array)
    return pd.DataFrame({"Predictions": array[:, 0] if array.ndim == 2 else array})


def probabilities_of(array: Any, classes: Any, labels: Sequence[str]) -> Any:
    """Return the columns by label; one column of probabilities is the last label's, whose complement is the other's."""
    import numpy as np
    import pandas as pd

    array = np.asarray(array)
    if array.ndim == 1 or array.shape[1] == 1:
        positive = array.reshape(-1)
        return pd.DataFrame({labels[0]: positive, labels[1]: 1 - positive})
    names = [str(name) for name in classes]
    return pd.DataFrame({label: array[:, names.index(label)] for label in labels})


# --- estimators by scikit-learn's conventions: scikit-learn, XGBoost, LightGBM, CatBoost


def _estimator(library: str, target_type: str) -> Any:
    if library == "sklearn":
        from sklearn.ensemble import IsolationForest, RandomForestClassifier
        from sklearn.linear_model import LogisticRegression, Ridge

        return {
            "regression": Ridge,
            "binary": lambda: LogisticRegression(max_iter=2000),
            "multiclass": lambda: RandomForestClassifier(n_estimators=12, max_depth=4, random_state=1),
            "anomaly": lambda: IsolationForest(n_estimators=12, random_state=1),
        }[target_type]()
    classifies = target_type in ("binary", "multiclass")
    if library == "xgboost":
        import xgboost

        return (xgboost.XGBClassifier if classifies else xgboost.XGBRegressor)(n_estimators=8, max_depth=3)
    if library == "lightgbm":
        import lightgbm

        options: dict[str, Any] = {"n_estimators": 8, "min_child_samples": 5, "verbose": -1}
        return (lightgbm.LGBMClassifier if classifies else lightgbm.LGBMRegressor)(**options)
    import catboost

    options = {"iterations": 8, "depth": 3, "verbose": False, "allow_writing_files": False}
    return (catboost.CatBoostClassifier if classifies else catboost.CatBoostRegressor)(**options)


def estimator(library: str, target_type: str, file: str) -> Callable[[Path, Any], Own]:
    """Fit an estimator and write it to ``file``, by the library's own format where the extension asks for that."""

    def make(folder: Path, x: Any) -> Own:
        import numpy as np

        model = _estimator(library, target_type)
        named = library == "sklearn"  # the others keep no names of their classes, or only numbers
        y = {"binary": two_classes, "multiclass": three_classes}.get(target_type, one_number)(x)
        if named and target_type == "binary":
            y = np.array(["no", "yes"])[y]
        if named and target_type == "multiclass":
            y = np.array(["high", "low", "mid"])[y]
        model.fit(x, y)
        suffix = Path(file).suffix
        predict: Callable[[Any], Any]
        own: Any = model
        if suffix == ".pkl":
            (folder / file).write_bytes(pickle.dumps(model))
        elif suffix == ".joblib":
            import joblib

            joblib.dump(model, folder / file, compress=3)
        elif suffix == ".lgb":
            own = model.booster_
            own.save_model(folder / file)
        elif suffix == ".ubj":
            own = model.get_booster()
            own.save_model(folder / file)
        else:
            model.save_model(str(folder / file))
        labels = CASES[f"{library}-{target_type}-{suffix[1:]}"].labels
        if suffix == ".ubj":
            import xgboost

            def predict(rows: Any) -> Any:
                return own.predict(xgboost.DMatrix(rows))

        elif suffix == ".lgb":
            predict = own.predict
        elif labels:
            return lambda rows: probabilities_of(model.predict_proba(rows), model.classes_, labels)
        else:
            predict = model.predict
        if labels:
            return lambda rows: probabilities_of(predict(rows), range(len(labels)), labels)
        return lambda rows: values_of(predict(rows))

    return make


def pipeline(folder: Path, x: Any) -> Own:
    """A pipeline that takes numbers, text, truth values and gaps apart."""
    import numpy as np
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = ["größe, m", "two words", "c", "d", "n"]
    model = make_pipeline(
        make_column_transformer(
            (make_pipeline(SimpleImputer(), StandardScaler()), numbers),
            (OneHotEncoder(handle_unknown="ignore"), ["city"]),
            ("passthrough", ["member"]),
        ),
        LogisticRegression(),
    )
    model.fit(x, np.array(["no", "yes"])[two_classes(x)])
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    return lambda rows: probabilities_of(model.predict_proba(rows), model.classes_, ["yes", "no"])


# --- networks


def torch_module(target_type: str, *, script: bool) -> Callable[[Path, Any], Own]:
    """A module with weights by chance, saved whole or as TorchScript."""

    def make(folder: Path, x: Any) -> Own:
        import numpy as np
        import torch

        torch.manual_seed(5)
        outputs = 3 if target_type == "multiclass" else 1
        last = {"binary": [torch.nn.Sigmoid()], "multiclass": [torch.nn.Softmax(dim=1)]}.get(target_type, [])
        module = torch.nn.Sequential(
            torch.nn.Linear(len(x.columns), 16), torch.nn.Tanh(), torch.nn.Linear(16, outputs), *last
        ).eval()
        if script:
            torch.jit.script(module).save(str(folder / "model.pth"))
        else:
            torch.save(module, folder / "model.pth")

        def own(rows: Any) -> Any:
            with torch.no_grad():
                return module(torch.from_numpy(np.ascontiguousarray(rows.to_numpy(dtype="float32")))).numpy()

        return _network(target_type, own)

    return make


def keras_model(target_type: str, file: str) -> Callable[[Path, Any], Own]:
    """A Keras model with weights by chance."""

    def make(folder: Path, x: Any) -> Own:
        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras

        keras.utils.set_random_seed(6)
        outputs = 3 if target_type == "multiclass" else 1
        last = {"binary": "sigmoid", "multiclass": "softmax"}.get(target_type)
        model = keras.Sequential(
            [
                keras.layers.Input((len(x.columns),)),
                keras.layers.Dense(16, "tanh"),
                keras.layers.Dense(outputs, last),
            ]
        )
        model.save(folder / file)
        return _network(target_type, lambda rows: model.predict(rows.to_numpy(), verbose=0))

    return make


def onnx_model(target_type: str) -> Callable[[Path, Any], Own]:
    """A converted scikit-learn model, run by onnxruntime on single precision."""

    def make(folder: Path, x: Any) -> Own:
        import numpy as np
        import onnxruntime
        import skl2onnx
        from skl2onnx.common.data_types import FloatTensorType

        model = _estimator("sklearn", target_type)
        y = {"binary": two_classes, "multiclass": three_classes}.get(target_type, one_number)(x)
        if target_type == "binary":  # by a list of dicts: names of classes are in the file; multiclass: an array
            y = np.array(["no", "yes"])[y]
        model.fit(x, y)
        converted = skl2onnx.convert_sklearn(
            model,
            initial_types=[("input", FloatTensorType([None, len(x.columns)]))],
            options={"zipmap": False} if target_type == "multiclass" else None,
            target_opset={"": 18, "ai.onnx.ml": 3},
        )
        (folder / "model.onnx").write_bytes(converted.SerializeToString())
        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

        def own(rows: Any) -> Any:
            return session.run(None, {"input": rows.to_numpy(dtype="float32")})

        if target_type == "binary":
            return lambda rows: _dicts_to_frame(own(rows)[1], ["yes", "no"])
        if target_type == "multiclass":
            return lambda rows: probabilities_of(own(rows)[1], range(3), NUMBER_LABELS)
        return lambda rows: values_of(own(rows)[0])

    return make


def _dicts_to_frame(rows: Any, labels: list[str]) -> Any:
    import pandas as pd

    return pd.DataFrame({label: [row[label] for row in rows] for label in labels})


def _network(target_type: str, own: Callable[[Any], Any]) -> Own:
    if target_type == "binary":
        return lambda rows: probabilities_of(own(rows), None, ["yes", "no"])
    if target_type == "multiclass":
        # Without names of their own the outputs are the labels, in their order.
        return lambda rows: probabilities_of(own(rows), LABELS, LABELS)
    return lambda rows: values_of(own(rows))


# --- hooks


def hooks(code: str) -> Callable[[Path, Any], Own]:
    """A folder with hooks only: its own predictions are what its ``score`` (or ``transform``) returns."""

    def make(folder: Path, x: Any) -> Own:
        (folder / "custom.py").write_text(code)
        spec = importlib.util.spec_from_file_location(f"custom_{folder.name}", folder / "custom.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return lambda rows: (module.transform if hasattr(module, "transform") else module.score)(rows, None)

    return make


_START = """
import pandas as pd


def load_model(code_dir):
    return None


"""
TEXT = (
    _START
    + """
def score(data, model, **kwargs):
    rows = zip(data["größe, m"].tolist(), data["city"].tolist(), data["member"].tolist())
    return pd.DataFrame({"reply": ['%r "%s"\\n\\t%s, 🦙' % row for row in rows]})
"""
)
GEO = (
    _START
    + """
def score(data, model, **kwargs):
    return pd.DataFrame({"longitude": data["a"] / 3, "latitude": data["b"] / 7})
"""
)
VECTORS = (
    _START
    + """
def score(data, model, **kwargs):
    return pd.DataFrame({"document": ["text %d" % n for n in data["n"]], "distance": data["a"] / 3})
"""
)
AGENT = (
    _START
    + """
def score(data, model, **kwargs):
    return pd.DataFrame({"answer": ["saw %r" % value for value in data["a"].tolist()]})


def chat(completion_create_params, model):
    content = completion_create_params["messages"][-1]["content"]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "agent",
        "choices": [
            {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content[::-1]}}
        ],
        "seen": completion_create_params,
    }
"""
)
TRANSFORM = (
    _START
    + """
def transform(data, model):
    return pd.DataFrame({"third": data["a"] / 3, "n": data["n"], "text": ["<%d>" % n for n in data["n"]]})
"""
)
UNSTRUCTURED = """
import hashlib
import json


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    if query.get("as") == "digest":
        raw = data.encode(kwargs["charset"]) if isinstance(data, str) else data
        return json.dumps({"type": type(data).__name__, "digest": hashlib.sha256(raw).hexdigest()})
    return data if isinstance(data, bytes) else (data, {"mimetype": "text/x-echo"})
"""


def scaler(folder: Path, x: Any) -> Own:
    """A transformer as an artifact."""
    import pandas as pd
    from sklearn.preprocessing import RobustScaler

    model = RobustScaler(with_centering=False).set_output(transform="pandas").fit(x)
    (folder / "model.pkl").write_bytes(pickle.dumps(model))

    def own(rows: Any) -> Any:
        transformed = model.transform(rows)
        return transformed if isinstance(transformed, pd.DataFrame) else None

    return own


# Each form of each library, each target type of each library, and where a form has code of its own all of them.
_ESTIMATORS: dict[str, dict[str, tuple[str, ...]]] = {
    "sklearn": {"pkl": ("regression", "binary"), "joblib": ("multiclass", "anomaly")},
    "xgboost": {"pkl": ("regression", "binary"), "ubj": ("anomaly", "binary", "multiclass")},
    "lightgbm": {"pkl": ("regression", "binary"), "lgb": ("anomaly", "binary", "multiclass")},
    "catboost": {"pkl": ("regression", "binary"), "cbm": ("anomaly", "multiclass")},
}
_NETWORKS: dict[str, dict[str, tuple[str, ...]]] = {
    "torch": {"whole": ("regression", "multiclass"), "script": ("anomaly", "binary")},
    "keras": {"keras": ("regression", "binary"), "h5": ("anomaly", "multiclass")},
}


def _all_cases() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    labels: dict[str, tuple[str, ...]]
    for library, forms in _ESTIMATORS.items():
        named = library == "sklearn"  # the others know no classes by name, or are given numbers here
        labels = {"binary": ("yes", "no") if named else ("1", "0"), "multiclass": LABELS if named else NUMBER_LABELS}
        for suffix, target_types in forms.items():
            if suffix in ("ubj", "lgb"):  # classes are known by their numbers only, so they can have any names
                labels["binary"] = ("yes", "no")
            for target_type in target_types:
                cases[f"{library}-{target_type}-{suffix}"] = Case(
                    estimator(library, target_type, f"model.{suffix}"),
                    target_type,
                    rows="numbers" if named else "gaps",
                    labels=labels.get(target_type, ()),
                )
    labels = {"binary": ("yes", "no"), "multiclass": LABELS}
    for library, forms in _NETWORKS.items():
        for form, target_types in forms.items():
            for target_type in target_types:
                is_torch = library == "torch"
                cases[f"{library}-{target_type}-{form}"] = Case(
                    torch_module(target_type, script=form == "script")
                    if is_torch
                    else keras_model(target_type, f"model.{form}"),
                    target_type,
                    labels=labels.get(target_type, ()),
                    # Keras takes half a second for what others do in 5 ms: one of its folders gets every format.
                    formats=FORMATS if is_torch or target_type == "regression" else ("csv", "arrow"),
                )
    labels["multiclass"] = NUMBER_LABELS
    for target_type in ("regression", "binary", "multiclass", "anomaly"):
        cases[f"onnx-{target_type}"] = Case(onnx_model(target_type), target_type, labels=labels.get(target_type, ()))
    no_sparse = FORMATS[:-1]
    cases["sklearn-mixed-pkl"] = Case(pipeline, "binary", rows="mixed", formats=no_sparse, labels=("yes", "no"))
    cases["sklearn-transform-pkl"] = Case(scaler, "transform", formats=no_sparse)
    cases["hooks-textgeneration"] = Case(
        hooks(TEXT), "textgeneration", rows="mixed", formats=no_sparse, target_name="reply"
    )
    cases["hooks-geopoint"] = Case(hooks(GEO), "geopoint")
    cases["hooks-vectordatabase"] = Case(hooks(VECTORS), "vectordatabase", formats=no_sparse)
    cases["hooks-agenticworkflow"] = Case(hooks(AGENT), "agenticworkflow", target_name="answer")
    cases["hooks-transform"] = Case(hooks(TRANSFORM), "transform", formats=no_sparse)
    return cases


CASES = _all_cases()


def metadata(name: str, case: Case) -> str:
    """Return the model's metadata file."""
    inference: dict[str, Any] = {}
    if case.target_type == "binary":
        inference = {"positiveClassLabel": case.labels[0], "negativeClassLabel": case.labels[1]}
    elif case.labels:
        inference = {"classLabels": list(case.labels)}
    if case.target_name:
        inference["targetName"] = case.target_name
    content = {"name": name, "type": "inference", "targetType": case.target_type, "inferenceModel": inference}
    return json.dumps(content)  # which is YAML too


def main(root: Path) -> None:
    """Make everything."""
    import warnings

    import pandas as pd

    warnings.simplefilter("ignore")
    for name in {case.rows for case in CASES.values()}:
        for count in ROWS:
            write_rows(make_rows(name, count, seed=count), root / "rows" / name / str(count))
    for name, case in CASES.items():
        folder = root / "models" / name
        folder.mkdir(parents=True)
        (folder / "model-metadata.yaml").write_text(metadata(name, case))
        training = make_rows(case.rows, 400, seed=3)
        own = case.make(folder, training)
        for count in ROWS:
            target = root / "expected" / name / str(count)
            target.mkdir(parents=True)
            for form in case.formats:
                rows = read_rows(root / "rows" / case.rows / str(count), form, list(training.columns))
                predictions = own(rows)
                if case.target_type == "geopoint":  # the hook's columns are in another order than the contract's
                    predictions = predictions[["latitude", "longitude"]]
                if any(isinstance(dtype, pd.SparseDtype) for dtype in predictions.dtypes):
                    predictions = predictions.sparse.to_dense()
                predictions.to_parquet(target / form, index=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
