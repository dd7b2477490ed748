from __future__ import annotations

import pickle
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.exceptions import InconsistentVersionWarning
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler
from sklearn.svm import LinearSVC

from backline_worker.errors import ModelLoadError, SchemaMismatch
from tests.unit.backline_worker.artifacts.support import (
    assert_exactly,
    load,
    numbers,
    shuffled,
    three_classes,
    two_classes,
)

X = numbers()


def save(folder: Path, model: Any, name: str = "model.pkl") -> None:
    (folder / name).write_bytes(pickle.dumps(model))


@pytest.mark.parametrize("name", ["model.pkl", "model.pickle", "model.joblib", "MODEL.PKL"])
def test_classifier_by_every_extension(tmp_path: Path, name: str) -> None:
    fitted = LogisticRegression().fit(X, np.array(["no", "yes"])[two_classes(X)])
    if name.endswith("joblib"):
        joblib.dump(fitted, tmp_path / name, compress=3)
    else:
        save(tmp_path, fitted, name)
    model = load(tmp_path)
    # Of the same table: how it lies in memory can show in the last bit.
    proba = fitted.predict_proba(shuffled(X)[list(X.columns)])
    assert_exactly(model.predict_table(shuffled(X)), {"yes": proba[:, 1], "no": proba[:, 0]})
    assert model.description["artifact"] == name
    assert model.description["library"] == "scikit-learn"
    assert model.description["rows_independent"]
    assert model.warm_up() is not None


def test_pickle_that_joblib_wrote_is_opened_by_joblib(tmp_path: Path) -> None:
    fitted = RandomForestClassifier(5, random_state=0).fit(X, three_classes(X))
    for compress in (0, 3):
        joblib.dump(fitted, tmp_path / "model.pkl", compress=compress)
        proba = fitted.predict_proba(X)
        assert_exactly(load(tmp_path).predict_table(X), {str(n): proba[:, n] for n in range(3)})


def test_configured_labels_give_the_order(tmp_path: Path) -> None:
    fitted = LogisticRegression().fit(X, two_classes(X).astype(float))
    save(tmp_path, fitted)
    proba = fitted.predict_proba(X)
    model = load(tmp_path, target_type="binary", positive_class_label="0", negative_class_label="1")
    assert_exactly(model.predict_table(X), {"0": proba[:, 0], "1": proba[:, 1]})


def test_labels_that_the_model_does_not_know_are_refused_at_load(tmp_path: Path) -> None:
    save(tmp_path, LogisticRegression().fit(X, np.array(["no", "yes"])[two_classes(X)]))
    with pytest.raises(ModelLoadError, match="knows the classes 'no', 'yes', and the class labels are 'ja', 'nein'"):
        load(tmp_path, target_type="binary", positive_class_label="ja", negative_class_label="nein")
    with pytest.raises(ModelLoadError, match="the class labels are 'no', 'yes', 'maybe'"):
        load(tmp_path, target_type="multiclass", class_labels=["no", "yes", "maybe"])


def test_pipeline_with_text_and_categories_gets_the_frame_as_it_is(tmp_path: Path) -> None:
    x = X.assign(text=["good one", "bad one"] * 30, colour=pd.Series(["red", "green", "blue"] * 20))
    steps = ColumnTransformer(
        [("n", StandardScaler(), ["a", "b"]), ("t", CountVectorizer(), "text"), ("c", OneHotEncoder(), ["colour"])]
    )
    fitted = make_pipeline(steps, LogisticRegression()).fit(x, two_classes(X))
    save(tmp_path, fitted)
    model = load(tmp_path)
    proba = fitted.predict_proba(x)
    assert_exactly(model.predict_table(shuffled(x)), {"1": proba[:, 1], "0": proba[:, 0]})
    assert model.description["features"] == list(x.columns)
    assert model.description["rows_independent"]
    assert model.warm_up() is None  # a row of zeros is no row of this model


def test_data_without_names_is_told_by_its_places(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(X, X["a"])
    save(tmp_path, fitted)
    nameless = X.set_axis(range(X.shape[1]), axis=1)
    assert_exactly(load(tmp_path).predict_table(nameless), {"Predictions": fitted.predict(X)})
    with pytest.raises(SchemaMismatch):
        load(tmp_path).predict_table(nameless.iloc[:, :-1])


def test_regression_anomaly_and_search_are_told_from_the_model(tmp_path: Path) -> None:
    regression = LinearRegression().fit(X, X["a"])
    save(tmp_path, regression)
    assert_exactly(load(tmp_path).predict_table(X), {"Predictions": regression.predict(X)})
    anomaly = IsolationForest(n_estimators=5, random_state=0).fit(X)
    save(tmp_path, anomaly)
    model = load(tmp_path)
    assert model.description["target_type"] == "anomaly"
    assert_exactly(model.predict_table(X), {"Predictions": anomaly.predict(X)})
    search = GridSearchCV(LogisticRegression(), {"C": [0.5, 1]}, cv=2).fit(X, three_classes(X))
    save(tmp_path, search)
    model = load(tmp_path)
    assert model.description["target_type"] == "multiclass"
    assert model.description["rows_independent"]


def test_model_fitted_on_an_array_takes_columns_in_order_without_noise(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(X.to_numpy(), X["a"])
    save(tmp_path, fitted)
    model = load(tmp_path, target_name="y")
    expected = {"Predictions": fitted.predict(X.to_numpy())}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_exactly(model.predict_table(X), expected)
        assert_exactly(model.predict_table(X.assign(y=1)), expected)
    with pytest.raises(SchemaMismatch, match="fitted on 4 columns without names, and the data has 3: 'a', 'b', 'c'"):
        model.predict_table(X[["a", "b", "c"]])


def test_missing_columns_are_named_with_near_ones(tmp_path: Path) -> None:
    save(tmp_path, LinearRegression().fit(X.rename(columns={"a": "age_years"}), X["a"]))
    with pytest.raises(SchemaMismatch, match=r"'age_years' \(near: 'age_year'\), 'b'\. The data has 'age_year', 'c'"):
        load(tmp_path).predict_table(X.rename(columns={"a": "age_year"}).drop(columns="b"))


def test_unknown_columns_are_refused_where_asked_for(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(X, X["a"])
    save(tmp_path, fitted)
    model = load(tmp_path, unknown_columns="refuse", target_name="y")
    with pytest.raises(SchemaMismatch, match="was not fitted on 'unknown'; leave it out"):
        model.predict_table(shuffled(X))
    assert_exactly(model.predict_table(X.assign(y=0)), {"Predictions": fitted.predict(X)})


def test_column_given_twice_is_refused(tmp_path: Path) -> None:
    save(tmp_path, LinearRegression().fit(X, X["a"]))
    with pytest.raises(SchemaMismatch, match="several columns have the same name: 'a'"):
        load(tmp_path).predict_table(pd.concat([X, X[["a"]]], axis=1))


def test_classifier_without_probabilities_is_refused_at_load(tmp_path: Path) -> None:
    save(tmp_path, LinearSVC().fit(X, two_classes(X)))
    with pytest.raises(ModelLoadError, match="LinearSVC has no predict_proba"):
        load(tmp_path)


def test_users_function_in_a_pipeline_may_look_across_rows(tmp_path: Path) -> None:
    module = types.ModuleType("functions_of_the_user")
    exec("def centre(x): return x - x.mean()", module.__dict__)
    sys.modules["functions_of_the_user"] = module
    try:
        pipeline = make_pipeline(FunctionTransformer(module.centre), LinearRegression()).fit(X, X["a"])
        save(tmp_path, pipeline)
        assert not load(tmp_path).description["rows_independent"]
        save(tmp_path, make_pipeline(FunctionTransformer(np.log1p), LinearRegression()).fit(X.abs(), X["a"]))
        assert load(tmp_path).description["rows_independent"]
    finally:
        del sys.modules["functions_of_the_user"]


class Stub:
    """An object of no library."""

    def __init__(self, output: Any) -> None:
        self.output = output

    def predict(self, data: Any) -> Any:
        return self.output


def test_object_with_predict_alone_gives_the_positive_class(tmp_path: Path) -> None:
    save(tmp_path, Stub(np.array([0.25, 1.0])))
    with pytest.raises(ModelLoadError, match="cannot be told from a Stub model; set targetType"):
        load(tmp_path)
    model = load(tmp_path, target_type="binary", positive_class_label="yes", negative_class_label="no")
    predictions = model.predict_table(X.head(2))
    assert list(predictions.columns["yes"]) == [0.25, 1.0]
    assert not model.description["rows_independent"]


# Pickles that do not fit


def load_error(folder: Path, content: bytes) -> str:
    (folder / "model.pkl").write_bytes(content)
    with pytest.raises(ModelLoadError) as caught:
        load(folder)
    assert "model.pkl" in caught.value.message
    return caught.value.message


def test_class_of_the_training_script(tmp_path: Path) -> None:
    message = load_error(tmp_path, b"c__main__\nMyModel\n.")
    assert "__main__.MyModel" in message
    assert "Move MyModel into a module in the model folder" in message


def test_missing_package(tmp_path: Path) -> None:
    message = load_error(tmp_path, b"cno_such_package_here.models\nModel\n.")
    assert "'no_such_package_here' is not installed" in message
    assert f"{sys.executable} -m pip install" in message


def test_class_that_another_version_of_the_library_had(tmp_path: Path) -> None:
    message = load_error(tmp_path, b"csklearn.linear_model._base\nNoSuchModel\n.")
    assert "has no 'NoSuchModel'" in message
    assert "sklearn 1." in message
    assert "no module 'sklearn.linear_model.stochastic_gradient'" in load_error(
        tmp_path, b"csklearn.linear_model.stochastic_gradient\nSGD\n."
    )


def test_files_that_are_no_whole_pickle(tmp_path: Path) -> None:
    assert "is no pickle, it starts with b'nonsense'" in load_error(tmp_path, b"nonsense")
    assert "the file is empty" in load_error(tmp_path, b"")
    assert "git lfs pull" in load_error(tmp_path, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    whole = pickle.dumps(LinearRegression().fit(X, X["a"]))
    assert "in the middle of the pickle, after 100 bytes" in load_error(tmp_path, whole[:100])
    assert "The file is damaged" in load_error(tmp_path, whole[:2] + b"\xff" + whole[3:])


def test_something_that_does_not_predict(tmp_path: Path) -> None:
    assert "holds builtins.dict, which has neither predict nor transform" in load_error(
        tmp_path, pickle.dumps({"model": 1})
    )


def test_pickle_of_another_version_is_a_warning_in_the_description(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(X, X["a"])
    state = fitted.__getstate__()
    assert state["_sklearn_version"]
    content = pickle.dumps(fitted)
    version = state["_sklearn_version"].encode()
    (tmp_path / "model.pkl").write_bytes(content.replace(version, b"0" * len(version)))
    with pytest.warns(InconsistentVersionWarning):
        model = load(tmp_path)
    assert any("InconsistentVersionWarning" in text for text in model.description["warnings"])


def test_class_in_a_module_of_the_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "models_of_the_user.py").write_text("class M:\n    def predict(self, x): return [1.5] * len(x)\n")
    (tmp_path / "model.pkl").write_bytes(b"cmodels_of_the_user\nM\n)\x81.")
    model = load(tmp_path, target_type="regression")
    assert list(model.predict_table(X.head(2)).columns["Predictions"]) == [1.5, 1.5]
