from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from backline_worker.errors import ModelLoadError
from tests.unit.backline_worker.artifacts.support import (
    assert_exactly,
    load,
    numbers,
    shuffled,
    three_classes,
    two_classes,
)

xgboost = pytest.importorskip("xgboost")

X = numbers()
FAST = {"n_estimators": 8, "max_depth": 3, "n_jobs": 1}


def test_native_binary_model_gives_both_classes(tmp_path: Path) -> None:
    fitted = xgboost.XGBClassifier(**FAST).fit(X, two_classes(X))
    fitted.save_model(tmp_path / "model.ubj")
    model = load(tmp_path, positive_class_label="yes", negative_class_label="no", target_type="binary")
    booster = xgboost.Booster(model_file=tmp_path / "model.ubj")
    positive = booster.predict(xgboost.DMatrix(X))
    assert_exactly(model.predict_table(shuffled(X)), {"yes": positive, "no": 1 - positive})
    assert model.description["features"] == list(X.columns)
    assert model.warm_up() is not None


def test_native_binary_model_without_settings_has_numbers_for_labels(tmp_path: Path) -> None:
    xgboost.XGBClassifier(**FAST).fit(X, two_classes(X)).save_model(tmp_path / "model.json")
    (tmp_path / "model.json").rename(tmp_path / "model.bst")
    model = load(tmp_path)
    assert model.description["target_type"] == "binary"
    assert model.description["class_labels"] == ["1", "0"]


def test_labels_that_are_the_class_numbers_are_matched_to_them(tmp_path: Path) -> None:
    fitted = xgboost.XGBClassifier(**FAST).fit(X, two_classes(X))
    fitted.save_model(tmp_path / "model.ubj")
    model = load(tmp_path, target_type="binary", positive_class_label="0", negative_class_label="1")
    positive = fitted.predict_proba(X)[:, 1]
    assert_exactly(model.predict_table(X), {"0": 1 - positive, "1": positive})


def test_native_regression_fitted_on_an_array(tmp_path: Path) -> None:
    fitted = xgboost.XGBRegressor(**FAST).fit(X.to_numpy(), X["a"].to_numpy())
    fitted.save_model(tmp_path / "model.ubj")
    model = load(tmp_path)
    assert model.description["target_type"] == "regression"
    assert_exactly(model.predict_table(X), {"Predictions": fitted.predict(X.to_numpy())})


@pytest.mark.parametrize("objective", ["multi:softprob", "multi:softmax"])
def test_native_multiclass_gives_probabilities_for_both_objectives(tmp_path: Path, objective: str) -> None:
    matrix = xgboost.DMatrix(X, three_classes(X))
    settings = {"num_class": 3, "max_depth": 2, "nthread": 1}
    booster = xgboost.train({**settings, "objective": objective}, matrix, 5)
    expected = xgboost.train({**settings, "objective": "multi:softprob"}, matrix, 5).predict(matrix)
    booster.save_model(tmp_path / "model.ubj")
    model = load(tmp_path, class_labels=["low", "mid", "high"], target_type="multiclass")
    assert_exactly(model.predict_table(X), {name: expected[:, n] for n, name in enumerate(["low", "mid", "high"])})


def test_pickled_estimator_and_pickled_booster_give_their_own_numbers(tmp_path: Path) -> None:
    fitted = xgboost.XGBClassifier(**FAST).fit(X, three_classes(X))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    proba = fitted.predict_proba(X)
    expected = {str(n): proba[:, n] for n in range(3)}
    model = load(tmp_path)
    assert model.description["library"] == "xgboost"
    assert model.description["rows_independent"]
    assert_exactly(model.predict_table(shuffled(X)), expected)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted.get_booster()))
    assert_exactly(load(tmp_path).predict_table(shuffled(X)), expected)


def test_pickled_estimator_fitted_on_an_array_takes_frames(tmp_path: Path) -> None:
    fitted = xgboost.XGBClassifier(**FAST).fit(X.to_numpy(), two_classes(X))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    proba = fitted.predict_proba(X.to_numpy())
    assert_exactly(load(tmp_path).predict_table(X), {"1": proba[:, 1], "0": proba[:, 0]})


def test_categories_are_taken_as_the_library_takes_them(tmp_path: Path) -> None:
    x = X.assign(colour=np.array(["red", "green", "blue"])[three_classes(X)])
    x["colour"] = x["colour"].astype("category")
    fitted = xgboost.XGBRegressor(**FAST, enable_categorical=True).fit(x, X["a"])
    fitted.save_model(tmp_path / "model.ubj")
    assert_exactly(load(tmp_path).predict_table(x), {"Predictions": fitted.predict(x)})


def test_objective_that_gives_margins_is_refused_for_binary(tmp_path: Path) -> None:
    booster = xgboost.train({"objective": "binary:logitraw", "nthread": 1}, xgboost.DMatrix(X, two_classes(X)), 3)
    booster.save_model(tmp_path / "model.ubj")
    with pytest.raises(ModelLoadError, match="no predict_proba"):
        load(tmp_path)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.ubj").write_bytes(b"{nonsense")
    with pytest.raises(ModelLoadError, match=r"could not load model from artifact model\.ubj"):
        load(tmp_path)
