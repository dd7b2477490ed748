from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backline.config.problems import ValueProblem
from backline.config.python import find_python


def find(text: str, folder: Path, search_path: str = "") -> str:
    return find_python(text, relative_to=folder, search_path=search_path)


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    (tmp_path / "env" / "bin").mkdir(parents=True)
    (tmp_path / "env" / "bin" / "python").symlink_to(sys.executable)
    return tmp_path / "env"


def test_current_stays_current(tmp_path: Path) -> None:
    assert find("current", tmp_path) == "current"


def test_an_environment_directory_gives_its_interpreter_without_following_the_link(environment: Path) -> None:
    assert find("env", environment.parent) == str(environment / "bin" / "python")


def test_an_interpreter_is_taken_as_it_is(environment: Path) -> None:
    assert find("env/bin/python", environment.parent) == str(environment / "bin" / "python")


def test_a_command_is_looked_up(environment: Path, tmp_path: Path) -> None:
    assert find("python", tmp_path, str(environment / "bin")) == str(environment / "bin" / "python")


def test_what_is_no_interpreter_is_told(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (environment / "bin" / "python").unlink()
    (environment / "bin" / "python").symlink_to(tmp_path / "gone")
    for text, what in [
        ("nowhere", "does not exist"),
        ("empty", "holds no interpreter"),
        ("file", "is not executable"),
        ("env", "is a link to something that is gone"),
    ]:
        with pytest.raises(ValueProblem, match=what):
            find(text, tmp_path)
