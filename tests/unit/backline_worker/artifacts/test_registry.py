from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from backline_worker import artifacts
from backline_worker.artifacts import Registry, registry
from backline_worker.errors import ModelLoadError
from tests.unit.backline_worker.artifacts.support import load, numbers

THIRD_PARTY = """
from pathlib import Path

class Predictor:
    library = "thirdparty"
    library_version = "3"
    kind = classes = class_count = features = feature_count = None
    rows_independent = gives_probabilities = True

    def __init__(self, text):
        self.model = text

    def predict(self, data):
        return [float(self.model)] * len(data)

class Loader:
    name = "Third"
    extensions = (".third",)

    def load(self, path):
        return Predictor(Path(path).read_text())
"""


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a distribution with a loader, as pip would lay it down."""
    site = tmp_path / "site"
    info = site / "thirdparty-3.dist-info"
    info.mkdir(parents=True)
    (site / "thirdparty_loader.py").write_text(THIRD_PARTY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thirdparty\nVersion: 3\n")
    (info / "entry_points.txt").write_text("[backline.artifacts]\nthird = thirdparty_loader:Loader\n")
    monkeypatch.syspath_prepend(str(site))
    registry.cache_clear()
    yield info
    registry.cache_clear()


def test_loader_of_another_distribution_comes_through_the_same_door(third_party: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.third").write_text("2.5")
    model = load(folder, target_type="regression")
    assert model.description["library"] == "thirdparty"
    assert list(model.predict_table(numbers().head(2)).columns["Predictions"]) == [2.5, 2.5]


def test_loader_that_cannot_be_imported_is_named_with_its_distribution(third_party: Path) -> None:
    (third_party / "entry_points.txt").write_text("[backline.artifacts]\nthird = no_such_module:Loader\n")
    with pytest.raises(
        ModelLoadError, match=r"'third' of (thirdparty|another distribution) .*no_such_module.*mend or uninstall it"
    ):
        registry()


def test_loader_without_the_attributes_is_refused() -> None:
    with pytest.raises(ModelLoadError, match=r"has to have extensions, a tuple, and load\(path\)"):
        Registry().register("dict", "builtins:dict")


def test_every_documented_extension_is_taken() -> None:
    assert set(artifacts.extensions()) >= {
        ".bst", ".cbm", ".h5", ".joblib", ".keras", ".lgb", ".lgbm",
        ".onnx", ".pickle", ".pkl", ".pt", ".pth", ".ubj", ".xgb",
    }  # fmt: skip


def test_only_files_of_the_folder_itself_are_artifacts(tmp_path: Path) -> None:
    (tmp_path / "dir.pkl").mkdir()
    (tmp_path / ".hidden.pkl").touch()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "model.pkl").touch()
    (tmp_path / "model.PKL").touch()
    (tmp_path / "model.pmml").touch()
    assert artifacts.find(str(tmp_path)) == (["model.PKL"], ["model.pmml"])
