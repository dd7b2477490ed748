"""What the model's interpreter says of itself and of its packages. None of the model's code runs."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

_TIMEOUT = 60.0  # seconds: a cold disk, a network file system
_WITHOUT = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")

# Runs under Python 3.8 and later, with nothing but the standard library.
_ASK = """
import importlib.util, json, os, sys
asked = json.loads(sys.stdin.read())
sys.path.insert(0, asked["folder"])
found = {}
for name in asked["modules"]:
    try:
        found[name] = importlib.util.find_spec(name) is not None
    except Exception:
        found[name] = False
from importlib import metadata
versions, where = {}, {}
for each in metadata.distributions():
    name = each.metadata["Name"]
    if name:
        versions.setdefault(name.lower().replace("_", "-"), each.version)
tops = {}
for name in asked["modules"]:
    if hasattr(metadata, "packages_distributions"):
        break
if hasattr(metadata, "packages_distributions"):
    tops = {key: sorted(set(value)) for key, value in metadata.packages_distributions().items()}
compiled = None
for name in ("numpy", "pandas", "sklearn", "torch"):
    spec = importlib.util.find_spec(name)
    if spec is not None and spec.origin:
        cached = importlib.util.cache_from_source(spec.origin)
        compiled = [name, os.path.exists(cached), os.access(os.path.dirname(spec.origin), os.W_OK)]
        break
print(json.dumps({
    "version": "{}.{}.{}".format(*sys.version_info[:3]), "executable": sys.executable, "prefix": sys.prefix,
    "base_prefix": sys.base_prefix, "modules": found, "versions": versions, "tops": tops, "compiled": compiled,
    "dont_write_bytecode": sys.dont_write_bytecode, "implementation": sys.implementation.name,
}))
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The model's environment. ``modules`` says of each asked module whether it can be imported."""

    version: str
    executable: str
    prefix: str
    base_prefix: str
    implementation: str
    modules: Mapping[str, bool]
    versions: Mapping[str, str]
    """Installed distributions by normalised name."""
    tops: Mapping[str, list[str]]
    """Distributions by the module that they bring, where the Python is new enough to tell (3.10)."""
    compiled: tuple[str, bool, bool] | None
    """A large package, whether its bytecode is there, and whether it could be written."""
    dont_write_bytecode: bool

    @property
    def made_by_uv(self) -> bool:
        """Whether uv made the environment: then bytecode is written at the first import only, if at all."""
        try:
            return "\nuv = " in "\n" + (Path(self.prefix) / "pyvenv.cfg").read_text()
        except OSError:
            return False


class NoInterpreter(Exception):
    """The interpreter could not be asked; the message says why."""


def ask_environment(python: str, folder: Path, modules: Iterable[str] = ()) -> Environment:
    """Ask the interpreter ``python`` (``current``: our own) about itself. Raises ``NoInterpreter``."""
    current = python == "current"
    command = [sys.executable if current else python, "-c", _ASK]
    environ = {name: value for name, value in os.environ.items() if current or name not in _WITHOUT}
    asked = json.dumps({"folder": str(folder), "modules": sorted(set(modules))})
    try:
        # No bytecode of the folder, and no working directory of ours on its path.
        done = subprocess.run(  # noqa: S603  (the operator's interpreter)
            command, input=asked, capture_output=True, text=True, timeout=_TIMEOUT, check=False, env=environ, cwd=folder
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise NoInterpreter(f"{command[0]} cannot be asked: {exc}") from exc
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise NoInterpreter(f"{command[0]} ended with {done.returncode}: {last}")
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    compiled = answer.pop("compiled")
    return Environment(**answer, compiled=None if compiled is None else tuple(compiled))
