from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.unit.backline_worker.artifacts.support import (
    assert_exactly,
    load,
    numbers,
    shuffled,
    three_classes,
    two_classes,
)

catboost = pytest.importorskip("catboost")

X = numbers()
FAST: dict[str, Any] = {"iterations": 6, "depth": 3, "thread_count": 1, "verbose": False, "allow_writing_files": False}


def test_binary_with_text_labels(tmp_path: Path) -> None:
    fitted = catboost.CatBoostClassifier(**FAST).fit(X, np.array(["no", "yes"])[two_classes(X)])
    fitted.save_model(str(tmp_path / "model.cbm"))
    proba = fitted.predict_proba(X)
    model = load(tmp_path)
    assert model.description["class_labels"] == ["yes", "no"]
    assert model.description["features"] == list(X.columns)
    assert model.description["rows_independent"]
    assert_exactly(model.predict_table(shuffled(X)), {"yes": proba[:, 1], "no": proba[:, 0]})
    assert model.warm_up() is not None


def test_multiclass_in_the_order_of_the_settings(tmp_path: Path) -> None:
    fitted = catboost.CatBoostClassifier(**FAST, loss_function="MultiClass").fit(X, three_classes(X))
    fitted.save_model(str(tmp_path / "model.cbm"))
    proba = fitted.predict_proba(X)
    model = load(tmp_path, class_labels=["2", "0", "1"], target_type="multiclass")
    assert_exactly(model.predict_table(X), {name: proba[:, int(name)] for name in ("2", "0", "1")})


def test_regression_fitted_on_an_array(tmp_path: Path) -> None:
    fitted = catboost.CatBoostRegressor(**FAST).fit(X.to_numpy(), X["a"].to_numpy())
    fitted.save_model(str(tmp_path / "model.cbm"))
    model = load(tmp_path)
    assert model.description["target_type"] == "regression"
    assert model.description["features"] is None
    assert_exactly(model.predict_table(X), {"Predictions": fitted.predict(X.to_numpy())})


def test_text_categories(tmp_path: Path) -> None:
    x = X.assign(colour=np.array(["red", "green", "blue"])[three_classes(X)])
    fitted = catboost.CatBoostRegressor(**FAST, cat_features=["colour"]).fit(x, X["a"])
    fitted.save_model(str(tmp_path / "model.cbm"))
    assert_exactly(load(tmp_path).predict_table(shuffled(x)), {"Predictions": fitted.predict(x)})


def test_pickled_estimator(tmp_path: Path) -> None:
    fitted = catboost.CatBoostClassifier(**FAST).fit(X, two_classes(X))
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    proba = fitted.predict_proba(X)
    model = load(tmp_path)
    assert model.description["library"] == "catboost"
    assert_exactly(model.predict_table(shuffled(X)), {"1": proba[:, 1], "0": proba[:, 0]})
