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

lightgbm = pytest.importorskip("lightgbm")

X = numbers()
FAST: dict[str, Any] = {"n_estimators": 6, "min_child_samples": 5, "n_jobs": 1, "verbose": -1}


def test_text_model_binary(tmp_path: Path) -> None:
    fitted = lightgbm.LGBMClassifier(**FAST).fit(X, two_classes(X))
    fitted.booster_.save_model(tmp_path / "model.lgb")
    positive = lightgbm.Booster(model_file=tmp_path / "model.lgb").predict(X)
    model = load(tmp_path)
    assert model.description["class_labels"] == ["1", "0"]
    assert_exactly(model.predict_table(shuffled(X)), {"1": positive, "0": 1 - positive})
    assert model.warm_up() is not None


def test_text_model_multiclass(tmp_path: Path) -> None:
    fitted = lightgbm.LGBMClassifier(**FAST).fit(X, three_classes(X))
    fitted.booster_.save_model(tmp_path / "model.lgbm")
    expected = lightgbm.Booster(model_file=tmp_path / "model.lgbm").predict(X)
    assert_exactly(load(tmp_path).predict_table(X), {str(n): expected[:, n] for n in range(3)})


def test_text_model_regression_fitted_on_an_array(tmp_path: Path) -> None:
    fitted = lightgbm.LGBMRegressor(**FAST).fit(X.to_numpy(), X["a"].to_numpy())
    fitted.booster_.save_model(tmp_path / "model.lgb")
    model = load(tmp_path)
    assert model.description["target_type"] == "regression"
    assert model.description["features"] is None
    assert_exactly(model.predict_table(X), {"Predictions": fitted.predict(X)})


def test_column_names_with_spaces_are_found_as_the_library_spells_them(tmp_path: Path) -> None:
    x = X.rename(columns={"a": "first one", "b": "second one"})
    fitted = lightgbm.LGBMClassifier(**FAST).fit(x, two_classes(X))
    proba = fitted.predict_proba(x)
    expected = {"1": proba[:, 1], "0": proba[:, 0]}
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    assert_exactly(load(tmp_path).predict_table(shuffled(x)), expected)
    (tmp_path / "model.pkl").unlink()
    fitted.booster_.save_model(tmp_path / "model.lgb")
    assert_exactly(load(tmp_path).predict_table(shuffled(x)), expected)


def test_pickled_estimator_and_pickled_booster(tmp_path: Path) -> None:
    labels = np.array(["no", "yes"])[two_classes(X)]
    fitted = lightgbm.LGBMClassifier(**FAST).fit(X, labels)
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted))
    proba = fitted.predict_proba(X)
    model = load(tmp_path)
    assert model.description["library"] == "lightgbm"
    assert model.description["rows_independent"]
    assert_exactly(model.predict_table(shuffled(X)), {"yes": proba[:, 1], "no": proba[:, 0]})
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(fitted.booster_))
    model = load(tmp_path, target_type="binary", positive_class_label="yes", negative_class_label="no")
    assert_exactly(model.predict_table(shuffled(X)), {"yes": proba[:, 1], "no": proba[:, 0]})


def test_categories_are_taken_as_the_library_takes_them(tmp_path: Path) -> None:
    x = X.assign(colour=np.array(["red", "green", "blue"])[three_classes(X)])
    x["colour"] = x["colour"].astype("category")
    fitted = lightgbm.LGBMRegressor(**FAST).fit(x, X["a"])
    fitted.booster_.save_model(tmp_path / "model.lgb")
    assert_exactly(load(tmp_path).predict_table(x), {"Predictions": fitted.predict(x)})
