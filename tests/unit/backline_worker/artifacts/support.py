"""Model folders and data for the tests of the loaders: numbers have to be exactly the library's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from backline_worker.model import Model
from backline_worker.types import ModelSpec

if TYPE_CHECKING:
    from backline_worker.contract.target_types import Predictions

ROWS = 60


def load(folder: Path, **spec: Any) -> Model:
    """Load the folder as the worker would."""
    return Model.load(ModelSpec(code_dir=str(folder), **spec))


def numbers(columns: int = 4, *, seed: int = 7) -> pd.DataFrame:
    """Return a table of floats with columns a, b, c, ..."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(random.normal(size=(ROWS, columns)), columns=list("abcdefgh"[:columns]))


def two_classes(x: pd.DataFrame) -> Any:
    """Return 0 and 1, told by the first two columns."""
    return (x["a"] + x["b"] > 0).astype(int).to_numpy()


def three_classes(x: pd.DataFrame) -> Any:
    """Return 0, 1 and 2, told by the first column."""
    return np.digitize(x["a"], [-0.5, 0.5])


def shuffled(x: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its columns the other way round and one that no model knows."""
    return x.iloc[:, ::-1].assign(unknown="x")


def assert_exactly(predictions: Predictions, expected: dict[str, Any]) -> None:
    """Check names, their order and every bit of the values."""
    assert list(predictions.columns) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(np.asarray(predictions.columns[name]), np.asarray(values), strict=True)
