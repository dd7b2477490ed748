from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from backline_worker.errors import ModelLoadError, SchemaMismatch
from tests.unit.backline_worker.artifacts.support import assert_exactly, load, numbers

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit.script is, and its archives live on

X = numbers()

USER_MODULE = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return torch.softmax(self.layer(x), dim=1)
"""


def own_output(module: Any, dtype: str = "float32") -> Any:
    # Row by row in memory: the last bit of a product can depend on how the matrix lies there.
    rows = np.ascontiguousarray(X.to_numpy(dtype=dtype))
    with torch.no_grad():
        return module.eval()(torch.from_numpy(rows)).numpy()


def test_pickled_module_regression_in_evaluation_mode(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 1))
    torch.save(module.train(), tmp_path / "model.pth")
    model = load(tmp_path, target_type="regression")
    assert_exactly(model.predict_table(X), {"Predictions": own_output(module)[:, 0]})
    assert model.description["library"] == "torch"
    assert model.description["rows_independent"]
    assert model.warm_up() is not None


def test_scripted_module_one_column_is_the_positive_class(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 1), torch.nn.Sigmoid())
    torch.jit.script(module).save(str(tmp_path / "model.pt"))
    model = load(tmp_path, target_type="binary", positive_class_label="yes", negative_class_label="no")
    positive = own_output(module)[:, 0]
    assert_exactly(model.predict_table(X), {"yes": positive, "no": 1 - positive})


def test_module_of_a_class_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.py").write_text(USER_MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "net", raising=False)
    import net  # type: ignore[import-not-found]

    module = net.Net()
    torch.save(module, tmp_path / "model.pth")
    model = load(tmp_path, target_type="multiclass", class_labels=["low", "mid", "high"])
    expected = own_output(module)
    names = ["low", "mid", "high"]
    assert_exactly(model.predict_table(X), {name: expected[:, n] for n, name in enumerate(names)})
    assert not model.description["rows_independent"]
    monkeypatch.delitem(sys.modules, "net")


def test_double_precision_module_gets_doubles(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(4, 1)).double()
    torch.save(module, tmp_path / "model.pth")
    expected = own_output(module, "float64")[:, 0]
    assert_exactly(load(tmp_path, target_type="regression").predict_table(X), {"Predictions": expected})


def test_file_with_weights_only_says_how_to_save(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(4, 1).state_dict(), tmp_path / "model.pth")
    with pytest.raises(ModelLoadError, match=r"state_dict.*torch\.jit\.script"):
        load(tmp_path, target_type="regression")


def test_table_without_numbers_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.ReLU(), tmp_path / "model.pth")
    model = load(tmp_path, target_type="regression")
    with pytest.raises(SchemaMismatch, match="no column of the data is numeric"):
        model.predict_table(X.astype(str))
