"""Finds the interpreter of the model's environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from backline.config.problems import ValueProblem

CURRENT = "current"
_INSIDE = ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe")


def find_python(text: str, *, relative_to: Path, search_path: str | None) -> str:
    """Return ``current``, or the absolute path of the interpreter that ``text`` names.

    ``text`` is a path to an interpreter, to an environment directory that has one inside, or a command such as
    ``python3.8`` that is looked up in ``search_path``. Links are kept: the interpreter of a virtual environment is one,
    and what it points at is not in the environment. Its version is checked by the worker. Raises ``ValueProblem``.
    """
    if text.strip() == CURRENT:
        return CURRENT
    path = Path(os.path.abspath(relative_to / Path(text.strip()).expanduser()))
    if os.sep not in text and not path.exists():
        command = shutil.which(text.strip(), path=search_path)
        if command is not None:
            return os.path.abspath(command)
    if path.is_dir():
        for inside in _INSIDE:
            if os.path.lexists(path / inside):
                return _executable(path / inside)
        raise ValueProblem(
            f"{path} holds no interpreter ({_INSIDE[0]})", "name an environment directory, or its bin/python itself"
        )
    return _executable(path)


def _executable(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        raise ValueProblem(f"{path} is a link to something that is gone", "make the environment anew")
    if not path.exists():
        raise ValueProblem(
            f"{path} does not exist",
            'name a python, an environment directory, or "current" for the environment of the server',
        )
    if not path.is_file():
        raise ValueProblem(f"{path} is no file", "name the interpreter itself, such as env/bin/python")
    if not os.access(path, os.X_OK):
        raise ValueProblem(f"{path} is not executable", f"name an interpreter, or run chmod +x {path}")
    return str(path)
