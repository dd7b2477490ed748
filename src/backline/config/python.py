"""Finds the interpreter of the model's environment."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from backline.config.problems import ValueProblem

CURRENT = "current"
AUTO = "auto"
ARCHIVES = (".tar.gz", ".tgz")
"""How the name of a packed conda environment ends."""

_INSIDE = ("bin/python", "bin/python3", "Scripts/python.exe", "python.exe")


def find_python(text: str, *, relative_to: Path, search_path: str | None) -> str:
    """Return ``current``, ``auto``, or the absolute path of the interpreter or packed environment that ``text`` names.

    Else ``text`` is a path to an interpreter, to an environment directory that has one inside, or a command such as
    ``python3.8`` that is looked up in ``search_path``. Links are kept: the interpreter of a virtual environment is one,
    and what it points at is not in the environment. Its version is checked by the worker. Raises ``ValueProblem``.
    """
    if text.strip() in (CURRENT, AUTO):
        return text.strip()
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
    if path.name.endswith(ARCHIVES) and path.is_file():
        return str(path)
    return _executable(path)


def is_to_be_built(python: str) -> bool:
    """Whether the setting names no interpreter, but what one is to be made from: ``auto``, or a packed environment."""
    return python == AUTO or python.endswith(ARCHIVES)


def default_cache() -> Path:
    """Return where environments are kept if nobody says: in the user's cache, where the XDG specification has it."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The specification has a relative path ignored.
    return (base if base.is_absolute() else Path("~/.cache").expanduser()) / "backline" / "environments"


def _executable(path: Path) -> str:
    if path.is_symlink() and not path.exists():
        raise ValueProblem(f"{path} is a link to something that is gone", "make the environment anew")
    if not path.exists():
        raise ValueProblem(
            f"{path} does not exist",
            'name a python, an environment directory, "current" for the environment of the server, or "auto" for one '
            "that is built from what the model's folder asks for",
        )
    if not path.is_file():
        raise ValueProblem(f"{path} is no file", "name the interpreter itself, such as env/bin/python")
    if not os.access(path, os.X_OK):
        raise ValueProblem(f"{path} is not executable", f"name an interpreter, or run chmod +x {path}")
    return str(path)
