"""What uv 0.9 to 0.13 says, and what is made of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from backline.runtime.environments.failure import explain
from backline.runtime.environments.recipe import read_recipe

CONFLICT = """\
Using Python 3.12.1 environment at: v
error: No solution found when resolving dependencies
  cause: Because fastapi>=0.130.0,<=0.135.1 depends on pydantic>=2.7.0 and fastapi>=0.135.2 depends on \
pydantic>=2.9.0, we can conclude that fastapi>=0.130.0 depends on pydantic>=2.7.0.
         And because you require pydantic<2 and fastapi>=0.130, we can conclude that your requirements are \
unsatisfiable.
"""
OLDER_CONFLICT = """\
  × No solution found when resolving dependencies:
  ╰─▶ Because fastapi>=0.130.0 depends on pydantic>=2.7.0 and you require pydantic<2, we can conclude that you cannot \
use fastapi>=0.130.0.
"""
MISSING = """\
error: No solution found when resolving dependencies
  cause: Because nosuch was not found in the package registry and you require nosuch==3, we can conclude that your \
requirements are unsatisfiable.
"""
NO_VERSION = """\
error: No solution found when resolving dependencies
  cause: Because there is no version of numpy==99 and you require numpy==99, we can conclude that your requirements \
are unsatisfiable.
"""
PYTHON = """\
error: No solution found when resolving dependencies
  cause: Because the current Python version (3.8.18) does not satisfy Python>=3.9 and pandas==2.3.3 depends on \
Python>=3.9, we can conclude that pandas==2.3.3 cannot be used.
"""
BUILD = """\
Resolved 1 package in 306ms
   Building numpy==1.24.4
error: Failed to build `numpy==1.24.4`
  cause: The build backend returned an error
         ModuleNotFoundError: No module named 'distutils'
"""
OFFLINE = """\
error: No solution found when resolving dependencies
  cause: Because idna was not found in the cache and you require idna==2.8, we can conclude that ...

hint: Packages were unavailable because the network was disabled.
"""
NETWORK = """\
error: Request failed after 3 retries in 1.2s
  cause: Failed to fetch: `http://127.0.0.1:1/idna/`
  cause: error sending request for url (http://127.0.0.1:1/idna/)
"""
INTERPRETER = """\
error: Request failed after 3 retries in 8.1s
  cause: Failed to download `https://example.org/python-build-standalone/releases/cpython-3.10.22.tar.gz`
  cause: dns error
"""
SYNTAX = """\
error: Couldn't parse requirement in `requirements.txt` at position 0
"""


@pytest.mark.parametrize(
    ("text", "what", "mend", "lines"),
    [
        (CONFLICT, "requirements.txt asks for do not go together", "change one of the lines", [2, 3]),
        (OLDER_CONFLICT, "requirements.txt asks for do not go together", "change one of the lines", [2, 3]),
        (MISSING, "there is no package nosuch in the index", "mend its name", [4]),
        (NO_VERSION, "there is no numpy==99 in the index", "ask for a version", [5]),
        (PYTHON, "a package does not take Python", ".python-version", [6]),
        (BUILD, "numpy==1.24.4 has no wheel for Python", "ask for a version that has one", [5]),
        (OFFLINE, "not in uv's cache, and the network is switched off", "with the network", [7]),
        (NETWORK, "the package index cannot be reached", "UV_DEFAULT_INDEX", [7]),
        (INTERPRETER, "there is no Python", "install it", []),
        (SYNTAX, "requirements.txt cannot be read", "one requirement a line", []),
        ("something else\n", "uv could not build it", "by hand", []),
    ],
    ids=[
        "conflict", "older uv", "missing", "no version", "python", "build", "offline", "network", "interpreter",
        "syntax", "other",
    ],
)  # fmt: skip
def test_a_failed_build_names_the_package_the_line_and_the_mend(
    tmp_path: Path, text: str, what: str, mend: str, lines: list[int]
) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("# ours\npydantic<2\nfastapi>=0.130\nnosuch==3\nnumpy==99\npandas==2.3.3\nidna==2.8\n")
    recipe = read_recipe(tmp_path)
    assert recipe is not None
    error = explain(recipe, text)
    assert what in error.what
    assert mend in error.mend
    assert [int(each.partition(" ")[0]) for each in error.where.split(f"{file}:")[1:]] == lines
    assert "Using Python" not in error.message  # uv's chatter is left out, what it says of the failure is not
    assert text.strip().splitlines()[-1].strip() in error.message


def test_long_output_is_trimmed(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("idna\n")
    recipe = read_recipe(tmp_path)
    assert recipe is not None
    error = explain(recipe, "error: Failed to build `idna`\n" + "noise " * 40 + "\n" * 3 + "a line\n" * 5000)
    assert len(error.message) < 3500
