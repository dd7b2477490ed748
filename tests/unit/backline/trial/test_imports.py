"""What a folder imports is read from its source, from custom.py on."""

from __future__ import annotations

from pathlib import Path

from backline.trial.imports import imports_of


def modules(folder: Path) -> dict[str, tuple[str, bool]]:
    return {each.module: (each.place, each.optional) for each in imports_of(folder)[0]}


def test_imports_are_found_with_their_place_also_late_and_optional_ones(tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(
        "import pandas as pd\ntry:\n    import orjson\nexcept ImportError:\n    orjson = None\n\n"
        "def score(data, model):\n    from sklearn.base import clone\n"
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import never\n"
    )
    found = modules(tmp_path)
    assert found["pandas"] == ("custom.py:1", False)
    assert found["orjson"] == ("custom.py:3", True)
    assert found["sklearn"] == ("custom.py:8", False)
    assert "never" not in found


def test_modules_of_the_folder_are_followed_and_those_that_nothing_imports_are_not(tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text("import helpers.text\nfrom features import scale\n")
    (tmp_path / "features.py").write_text("import scipy\n")
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("from . import text\nimport requests\n")
    (tmp_path / "helpers" / "text.py").write_text("import regex\n")
    (tmp_path / "train.py").write_text("import mlflow\n")
    assert set(modules(tmp_path)) == {"scipy", "requests", "regex"}


def test_a_file_that_is_no_python_is_told_by_line(tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text("import os\ndef score(:\n")
    found, problems = imports_of(tmp_path)
    assert not found
    assert problems == ["custom.py:2: invalid syntax"]
