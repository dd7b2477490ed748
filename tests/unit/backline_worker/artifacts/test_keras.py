from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import pytest

from tests.unit.backline_worker.artifacts.support import assert_exactly, load, numbers

if importlib.util.find_spec("tensorflow") is None:
    # As the loader itself does: with torch there and no TensorFlow, Keras runs on torch.
    os.environ.setdefault("KERAS_BACKEND", "torch")

keras = pytest.importorskip("keras")

pytestmark = pytest.mark.filterwarnings("ignore")  # of HDF5 being legacy, and deprecations within Keras

X = numbers()


def classifier() -> Any:
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(5, "relu"), keras.layers.Dense(1, "sigmoid")])


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_one_column_is_the_positive_class(tmp_path: Path, name: str) -> None:
    pytest.importorskip("h5py")
    built = classifier()
    built.save(tmp_path / name)
    model = load(tmp_path, target_type="binary", positive_class_label="1", negative_class_label="0")
    positive = built.predict(X.to_numpy(), verbose=0)[:, 0]
    assert_exactly(model.predict_table(X), {"1": positive, "0": 1 - positive})
    assert model.description["library"] == "keras"
    assert model.description["rows_independent"]
    assert model.warm_up() is not None


def test_inputs_by_column_are_found_by_name(tmp_path: Path) -> None:
    inputs = [keras.layers.Input((1,), name=name) for name in ("a", "b")]
    built = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Concatenate()(inputs)))
    built.save(tmp_path / "model.keras")
    model = load(tmp_path, target_type="regression")
    assert model.description["features"] == ["a", "b"]
    given = {name: X[name].to_numpy().reshape(-1, 1) for name in ("a", "b")}
    expected = built.predict(given, verbose=0)[:, 0]
    assert_exactly(model.predict_table(X.iloc[:, ::-1]), {"Predictions": expected})
