from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backline.config.problems import SettingError
from backline.runtime.environments.recipe import Recipe, read_recipe

PROJECT = '[project]\nname = "m"\nversion = "1"\ndependencies = ["idna"]\n'


def recipe(folder: Path) -> Recipe:
    found = read_recipe(folder)
    assert found is not None
    return found


def test_a_folder_that_asks_for_nothing_has_no_recipe(tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text("")
    (tmp_path / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n")
    (tmp_path / "model.tar.gz").write_bytes(b"weights")
    assert read_recipe(tmp_path) is None


def test_the_first_kind_wins_and_the_others_are_told(tmp_path: Path) -> None:
    (tmp_path / ".python-version").write_text("3.11\n")
    assert recipe(tmp_path).kind == "python"
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    assert recipe(tmp_path).kind == "project"
    (tmp_path / "requirements.txt").write_text("idna\n")
    assert recipe(tmp_path).kind == "requirements"
    (tmp_path / "uv.lock").write_text("version = 1\n")
    assert recipe(tmp_path).kind == "lock"
    (tmp_path / "environment.tar.gz").write_bytes(b"packed")
    found = recipe(tmp_path)
    assert found.kind == "conda"
    assert [each.partition(":")[0] for each in found.overlooked] == ["uv.lock", "requirements.txt", "pyproject.toml"]


@pytest.mark.parametrize(
    ("files", "python"),
    [
        ({}, f"{sys.version_info[0]}.{sys.version_info[1]}"),
        ({".python-version": "# ours\n3.8.18\n"}, "3.8.18"),
        ({"pyproject.toml": PROJECT + 'requires-python = ">=3.9,<3.12"\n'}, ">=3.9,<3.12"),
        ({"pyproject.toml": PROJECT + 'requires-python = ">=3.9"\n', ".python-version": "3.10"}, "3.10"),
    ],
    ids=["the server's", "a file", "the project", "the file before the project"],
)
def test_the_python_asked_for(tmp_path: Path, files: dict[str, str], python: str) -> None:
    (tmp_path / "requirements.txt").write_text("idna\n")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert recipe(tmp_path).python == python


def test_the_key_is_that_of_everything_which_is_asked_for_and_of_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    (folder / "wheels").mkdir(parents=True)
    (folder / "requirements.txt").write_text("-r more.txt\n-c limits.txt\n./wheels/a-1-py3-none-any.whl\nb @ ./local\n")
    (folder / "more.txt").write_text("idna\n")
    (folder / "limits.txt").write_text("idna<4\n")
    (folder / "wheels" / "a-1-py3-none-any.whl").write_bytes(b"1")
    (folder / "local").mkdir()
    (folder / "local" / "setup.py").write_text("1")
    keys = [recipe(folder).key]
    for path in ("requirements.txt", "more.txt", "limits.txt", "wheels/a-1-py3-none-any.whl", "local/setup.py"):
        (folder / path).write_bytes((folder / path).read_bytes() + b"#")
        keys.append(recipe(folder).key)
    for name, text in ((".python-version", "3.9"), ("uv.toml", "offline = false"), ("pyproject.toml", "[tool.uv]\n")):
        (folder / name).write_text(text)
        keys.append(recipe(folder).key)
    assert len(set(keys)) == len(keys)
    # Neither the code nor the place of the folder is part of what is asked for.
    (folder / "custom.py").write_text("x = 1")
    moved = folder.rename(tmp_path / "elsewhere")
    assert recipe(moved).key == keys[-1]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("pyproject.toml", "[project", "is no TOML"),
        (".python-version", "\n# 3.11\n", "names no version"),
        ("uv.lock", "version = 1", "without its pyproject.toml"),
    ],
    ids=["toml", "version", "lock"],
)
def test_files_that_cannot_be_used(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(SettingError, match=message) as caught:
        read_recipe(tmp_path)
    assert str(tmp_path / name) in caught.value.where
