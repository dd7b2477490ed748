"""Builds an environment: interpreter found, packages installed, safe under several pytest processes at a time."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_HERE = Path(__file__).parent
_CACHE = _HERE.parents[1] / ".cache" / "environments"
_INSTALL_TIMEOUT = 1800.0  # seconds
_UNUSED_AFTER = (
    24 * 3600.0
)  # seconds; an outdated environment may still serve a test run that started before the change
_ASK = "import sys; print('{}.{}'.format(*sys.version_info[:2]), sys.version.split()[0], sys.executable)"
_THIS_VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What an environment is for. ``python`` is ``major.minor``; ``with_pip``: made and filled by pip, not by uv."""

    python: str
    purpose: str
    with_pip: bool = False


ENVIRONMENTS = {
    "bare": Environment(python=_THIS_VERSION, purpose="nothing but pip: what is missing must be said", with_pip=True),
    "sklearn": Environment(python=_THIS_VERSION, purpose="the usual tabular model"),
    "py38-pydantic1": Environment(python="3.8", purpose="an old model: pydantic 1, numpy 1, scikit-learn of its time"),
    "py313-numpy2": Environment(python="3.13", purpose="a new model: numpy 2, the newest scikit-learn"),
    # pip, because it takes the CPU build of torch from a local folder where one is configured, which uv does not.
    "artifacts": Environment(python="3.11", purpose="one library for each kind of artifact", with_pip=True),
    "kubernetes": Environment(python=_THIS_VERSION, purpose="the schemas of Kubernetes, for the manifests"),
    "schemathesis": Environment(python=_THIS_VERSION, purpose="requests made of the OpenAPI document"),
    "transformers": Environment(python="3.11", purpose="an LLM server, and OpenAI's client", with_pip=True),
}


uncaptured: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


class MissingInterpreter(Exception):
    """No interpreter of the version asked for on this machine."""


def environment(name: str) -> Path:
    """Return the python of the environment ``name``, built if need be; skips the test where its Python is missing."""
    try:
        return build(name)
    except MissingInterpreter as exc:
        pytest.skip(f"environment {name}: {exc}")


def build(name: str) -> Path:
    """Return the python of the environment ``name``, built if need be.

    Raises ``MissingInterpreter``, or ``RuntimeError`` with the installer's last lines when a package cannot be had.
    """
    wanted = ENVIRONMENTS[name]
    interpreter, version = _find_python(wanted.python)
    file = _HERE / f"{name}.txt"
    requirements = file.read_text() if file.exists() else ""
    # The place, too: the scripts of an environment begin with it, and fail in a checkout that was moved.
    made_of = "\n".join([version, str(interpreter), str(_CACHE), requirements])
    key = hashlib.blake2b(made_of.encode(), digest_size=6).hexdigest()
    folder = _CACHE / f"{name}-{key}"
    python = folder / "bin" / "python"
    complete = folder / "complete"
    if complete.exists():
        complete.touch()
        return python
    with _locked(_CACHE / f"{name}.lock"):
        if not complete.exists():  # or another process has built it while we waited
            started = time.monotonic()
            _remove_outdated(name)
            if folder.exists():  # half built, by a process that was stopped
                shutil.rmtree(folder)
            _say(f"building {name} ({wanted.purpose}) with Python {version}")
            _install(folder, interpreter, file if requirements else None, with_pip=wanted.with_pip)
            complete.touch()
            _say(f"built {name} in {time.monotonic() - started:.0f} s")
    return python


def _remove_outdated(name: str) -> None:
    for complete in _CACHE.glob(f"{name}-*/complete"):
        # "py3" must not take "py3-new" for its own: what follows the name is a key, without dashes.
        ours = "-" not in complete.parent.name[len(name) + 1 :]
        if ours and time.time() - complete.stat().st_mtime > _UNUSED_AFTER:
            shutil.rmtree(complete.parent)


def _install(folder: Path, interpreter: Path, requirements: Path | None, *, with_pip: bool) -> None:
    uv = None if with_pip else _find_uv()
    _run([str(interpreter), "-m", "venv", *([] if uv is None else ["--without-pip"]), str(folder)])
    if requirements is None:
        return
    python = str(folder / "bin" / "python")
    if uv is None:
        _run([python, "-m", "pip", "install", "--quiet", "--no-input", "--requirement", str(requirements)])
    else:
        # Compiled now, as pip does: where PYTHONDONTWRITEBYTECODE is set every worker would compile pandas again.
        quietly = ["--quiet", "--compile-bytecode", "--python", python]
        _run([uv, "pip", "install", *quietly, "--requirement", str(requirements)])


def _find_uv() -> str | None:
    return shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


def _find_python(version: str) -> tuple[Path, str]:
    """Return an interpreter of ``major.minor`` and its full version; raises ``MissingInterpreter``."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = [
        os.path.realpath(sys.executable),
        *(found for name in (f"python{version}", "python3") if (found := shutil.which(name))),
        *(str(path) for path in sorted(pyenv.glob(f"versions/{version}.*/bin/python"), reverse=True)),
    ]
    for candidate in candidates:
        # A shim on PATH may exist for a version that is not there: only what it answers counts.
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            answer = subprocess.run([candidate, "-c", _ASK], capture_output=True, text=True, timeout=30, check=False)
            if answer.returncode == 0:
                minor, full, executable = answer.stdout.strip().split(" ", 2)
                if minor == version:
                    return Path(executable), full
    raise MissingInterpreter(f"no Python {version}: not on PATH, not in {pyenv / 'versions'}; install one to run this")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _say(f"waiting for another process that holds {path.name}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield  # closing the file frees the lock, and so does the end of the process


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_INSTALL_TIMEOUT, check=False
    )
    if done.returncode != 0:
        last_lines = "\n".join(done.stdout.splitlines()[-15:])
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{last_lines}")


def _say(what: str) -> None:
    # Past pytest's capture, which the conftest lends us: a build takes long enough to look like a hang.
    with uncaptured():
        print(f"environments: {what}", file=sys.stderr, flush=True)
