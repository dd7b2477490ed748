from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from backline_worker.errors import ModelLoadError
from tests.unit.backline_worker.artifacts.support import assert_exactly, load, numbers, three_classes, two_classes

onnxruntime = pytest.importorskip("onnxruntime")
skl2onnx = pytest.importorskip("skl2onnx")

X = numbers()


def convert(model: Any, path: Path, **options: Any) -> Any:
    from skl2onnx.common.data_types import FloatTensorType

    types = [("input", FloatTensorType([None, 4]))]
    path.write_bytes(skl2onnx.convert_sklearn(model, initial_types=types, **options).SerializeToString())
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def own_answer(session: Any, place: int) -> Any:
    return session.run(None, {"input": X.to_numpy(dtype=np.float32)})[place]


def test_probabilities_as_a_list_of_dicts(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(X, np.array(["no", "yes"])[two_classes(X)])
    session = convert(fitted, tmp_path / "model.onnx")
    model = load(tmp_path)
    assert model.description["class_labels"] == ["yes", "no"]
    rows = own_answer(session, 1)
    assert_exactly(model.predict_table(X), {name: np.array([row[name] for row in rows]) for name in ("yes", "no")})
    assert model.warm_up() is not None


def test_probabilities_as_an_array(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(X, three_classes(X))
    session = convert(fitted, tmp_path / "model.onnx", options={"zipmap": False})
    expected = own_answer(session, 1)
    model = load(tmp_path, target_type="multiclass", class_labels=["low", "mid", "high"])
    assert_exactly(model.predict_table(X), {name: expected[:, n] for n, name in enumerate(["low", "mid", "high"])})
    assert load(tmp_path).description["class_labels"] == ["0", "1", "2"]


def test_regression(tmp_path: Path) -> None:
    session = convert(LinearRegression().fit(X, X["a"]), tmp_path / "model.onnx")
    model = load(tmp_path, target_type="regression")
    assert_exactly(model.predict_table(X), {"Predictions": own_answer(session, 0)[:, 0]})
    assert model.description["rows_independent"]


def test_one_output_of_numbers_does_not_tell_what_it_is(tmp_path: Path) -> None:
    convert(LinearRegression().fit(X, X["a"]), tmp_path / "model.onnx")
    with pytest.raises(ModelLoadError, match="set targetType"):
        load(tmp_path)


def test_one_input_for_each_column(tmp_path: Path) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    fitted = LinearRegression().fit(X, X["a"])
    types = [(name, FloatTensorType([None, 1])) for name in X.columns]
    from sklearn.compose import ColumnTransformer
    from sklearn.pipeline import make_pipeline

    fitted = make_pipeline(ColumnTransformer([("all", "passthrough", list(X.columns))]), LinearRegression())
    fitted.fit(X, X["a"])
    (tmp_path / "model.onnx").write_bytes(skl2onnx.convert_sklearn(fitted, initial_types=types).SerializeToString())
    model = load(tmp_path, target_type="regression")
    assert model.description["features"] == list(X.columns)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    feed = {name: X[name].to_numpy(dtype=np.float32).reshape(-1, 1) for name in X.columns}
    expected = session.run(None, feed)[0][:, 0]
    assert_exactly(model.predict_table(X.iloc[:, ::-1]), {"Predictions": expected})


def test_model_exported_for_one_row_is_run_row_by_row(tmp_path: Path) -> None:
    from skl2onnx.common.data_types import FloatTensorType

    fitted = LinearRegression().fit(X, X["a"])
    types = [("input", FloatTensorType([1, 4]))]
    (tmp_path / "model.onnx").write_bytes(skl2onnx.convert_sklearn(fitted, initial_types=types).SerializeToString())
    predictions = load(tmp_path, target_type="regression").predict_table(X)
    np.testing.assert_allclose(predictions.columns["Predictions"], fitted.predict(X), rtol=1e-4, atol=1e-5)
