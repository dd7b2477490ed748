"""The contenders' environments: one virtual environment each, made from ``requirements/NAME.txt``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.errors import BenchmarkError

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent
REQUIREMENTS = HERE / "requirements"
OURS = "backline"  # the server: what requirements/server.txt of the project locks, and the project itself
NAMES = (OURS, *sorted(file.stem for file in REQUIREMENTS.glob("*.txt")))

# Whose versions the report names; what else is installed is in the requirements file.
SHOWN = {
    OURS: ("fastapi", "starlette", "uvicorn", "uvloop", "httptools"),
    "bentoml": ("bentoml", "starlette", "uvicorn", "pandas", "scikit-learn"),
    "kserve": ("kserve", "fastapi", "uvicorn", "pandas", "scikit-learn"),
    "litserve": ("litserve", "fastapi", "uvicorn", "pandas", "scikit-learn"),
    "mlflow2": ("mlflow", "flask", "gunicorn", "pandas", "scikit-learn"),
    "mlflow3": ("mlflow", "fastapi", "uvicorn", "pandas", "scikit-learn"),
    "mlserver": ("mlserver", "fastapi", "uvicorn", "uvloop", "pandas", "scikit-learn"),
    "model": ("numpy", "pandas", "scikit-learn"),
    "model-arrow": ("numpy", "pandas", "pyarrow", "scikit-learn"),
    "plain": ("fastapi", "uvicorn", "pydantic", "flask", "gunicorn", "gevent", "pandas", "scikit-learn"),
    "ray": ("ray", "starlette", "uvicorn", "pandas", "scikit-learn"),
    "report": ("matplotlib",),
}

_STAMP = ".installed"
_ASK = """
import json, platform, sys
from importlib import metadata
found = {"Python": platform.python_version()}
for name in sys.argv[1:]:
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""


class Environments:
    """Where the environments are: ``folder/NAME``, or what ``elsewhere`` says of a name."""

    def __init__(self, folder: Path, elsewhere: Mapping[str, Path]) -> None:
        self._folder = folder
        self._elsewhere = elsewhere
        self._versions: dict[str, dict[str, str]] = {}

    def commands(self, name: str) -> Path:
        """Return the ``bin`` folder of an environment. Raises ``BenchmarkError`` when there is none."""
        found = self._elsewhere.get(name, self._folder / name)
        if not (found / "bin" / "python").exists():
            raise BenchmarkError(
                f"there is no environment {name!r} in {found}: make it with `python -m benchmarks setup {name}`, "
                f"or name one with --environment {name}=FOLDER"
            )
        return found.absolute() / "bin"

    def python(self, name: str) -> Path:
        """Return the interpreter of an environment."""
        return self.commands(name) / "python"

    def has(self, name: str) -> bool:
        """Whether the environment is there."""
        return (self._elsewhere.get(name, self._folder / name) / "bin" / "python").exists()

    def versions(self, name: str) -> dict[str, str]:
        """Return the versions that the report names, Python's first."""
        if name not in self._versions:
            command: list[str | Path] = [self.python(name), "-c", _ASK, *SHOWN[name]]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found: dict[str, str] = json.loads(output)
            if name == OURS:
                found = {"backline": self._installed_commit(), **found}
            self._versions[name] = found
        return self._versions[name]

    def _installed_commit(self) -> str:
        """Return what ``setup`` has installed; where somebody else has, it is taken to be a link to the sources."""
        stamp = self.commands(OURS).parent / _STAMP
        return stamp.read_text().partition("\n")[0] if stamp.exists() else _commit()


def set_up(names: Sequence[str], folder: Path, python: str) -> None:
    """Make the environments that are not there yet, or not with what is required now."""
    for name in names or NAMES:
        _make(name, folder / name, python)


def _make(name: str, target: Path, python: str) -> None:
    stamp, wanted = target / _STAMP, _stamp(name)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"making {target}", file=sys.stderr, flush=True)
    uv = shutil.which("uv")
    install: list[str | Path]
    if uv is None:
        _run([python, "-m", "venv", "--clear", target])
        install = [target / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    else:
        _run([uv, "venv", "--quiet", "--clear", "--python", python, target])
        install = [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", target / "bin" / "python"]
    if name == OURS:
        _run([*install, "--require-hashes", "--requirement", PROJECT / "requirements" / "server.txt"])
        _run([*install, "--no-deps", PROJECT])
    else:
        # The file has everything: what a resolver would choose today is not asked for.
        _run([*install, "--no-deps", "--requirement", REQUIREMENTS / f"{name}.txt"])
    stamp.write_text(wanted)


def _stamp(name: str) -> str:
    if name == OURS:  # installed as it is now, not as a link to the sources: a new commit is a new environment
        return f"{_commit()}\n{(PROJECT / 'requirements' / 'server.txt').read_text()}"
    return (REQUIREMENTS / f"{name}.txt").read_text()


def _run(command: Sequence[str | Path]) -> None:
    # Start times are measured with compiled bytecode, as a package manager leaves it.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    if subprocess.run(command, env=environment, check=False).returncode:
        raise BenchmarkError(f"this has failed, see above: {' '.join(map(str, command))}")


def _commit() -> str:
    command = ["git", "-C", str(PROJECT), "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
