from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backline.runtime.environments.interpreter import find_interpreter

HAVE = ["2.7.18", "3.8.18", "3.9.2", "3.10.4", "3.10.13", "miniconda3-4.7"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("3.10", "3.10.13"),
        ("3.10.4", "3.10.4"),
        (">=3.8,<3.10", "3.9.2"),
        (">=3.8, <3.9.2", "3.8.18"),
        ("==3.8.*", "3.8.18"),
        ("~=3.9.1", "3.9.2"),
        ("<3.11,!=3.10.13", "3.10.4"),
        ("<3", "2.7.18"),
        ("3.7", None),
        ("pypy3.9", None),
        ("", None),
    ],
)
def test_the_newest_version_that_fits(tmp_path: Path, wanted: str, found: str | None) -> None:
    for version in HAVE:
        python = tmp_path / "versions" / version / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.touch(mode=0o755)
    answer = find_interpreter(wanted, {"PYENV_ROOT": str(tmp_path)})
    assert answer == (None if found is None else str(tmp_path / "versions" / found / "bin" / "python"))


@pytest.mark.parametrize("wanted", [f"{sys.version_info[0]}.{sys.version_info[1]}", ">=3.8"])
def test_the_server_s_own_comes_first(tmp_path: Path, wanted: str) -> None:
    assert find_interpreter(wanted, {"PYENV_ROOT": str(tmp_path)}) == sys.executable
