"""What a model's folder asks for: one recipe, whose key is the hash of everything that it is made of.

In this order, the first that is there:

- a packed conda environment, named by the setting or found as ``environment.tar.gz``: it is complete;
- ``uv.lock`` with its ``pyproject.toml``: exactly those packages;
- ``requirements.txt``, the contract's place;
- ``pyproject.toml`` with a ``[project]`` table: its dependencies, not the project itself;
- ``.python-version``: a Python with nothing in it.

``.python-version`` names the Python of the others too, ``requires-python`` where it does not, and else it is that of
the server.
"""

from __future__ import annotations

import dataclasses
import hashlib
import platform
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from backline.config.problems import SettingError
from backline.config.python import ARCHIVES
from backline.runtime.environments import requirements

VERSION = 1
"""Changes when the same files would be made into something else."""

FOUND_ARCHIVES = ("environment.tar.gz", "conda-env.tar.gz")
"""The names under which a packed conda environment is found; any other has to be named."""

Kind = Literal["conda", "lock", "requirements", "project", "python"]

_KEY_BYTES = 10
# What uv itself reads in the folder: where packages come from, and what is left out or overridden.
_UV_CONFIGURATION = ("uv.toml",)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What an environment is made from.

    ``source`` is the file that asks, ``python`` the version asked for ("" where it comes with the source) and
    ``python_from`` who says so. ``inputs`` are the names of everything that is in the ``key``; ``overlooked`` says
    which files were not used, and why.
    """

    folder: Path
    kind: Kind
    source: Path
    python: str
    python_from: str
    inputs: tuple[str, ...]
    overlooked: tuple[str, ...]
    key: str


def read_recipe(folder: Path, *, archive: Path | None = None) -> Recipe | None:
    """Return what the folder asks for; ``None`` where it asks for nothing.

    ``archive`` is a packed conda environment that a setting names. Raises ``SettingError`` for a file that cannot be
    used.
    """
    try:
        return _read(folder, archive)
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise SettingError(f"cannot be read: {reason}", where=str(exc.filename), mend="check its permissions") from exc


def _read(folder: Path, archive: Path | None) -> Recipe | None:
    project_file = folder / "pyproject.toml"
    project = _read_project(project_file)
    candidates = _candidates(folder, project)
    if archive is not None:
        candidates.insert(0, ("conda", archive))
    if not candidates:
        return None
    kind, source = candidates[0]
    if kind == "lock" and project is None:
        raise SettingError(
            "uv.lock lies there without its pyproject.toml",
            where=str(source),
            mend="put the pyproject.toml that it was made from beside it, or remove it",
        )
    python, python_from = ("", f"{source.name} brings it") if kind == "conda" else _python(folder, project)
    contents = list(_contents(folder, kind, source, project))
    return Recipe(
        folder=folder,
        kind=kind,
        source=source,
        python=python,
        python_from=python_from,
        inputs=tuple(name for name, _ in contents),
        overlooked=tuple(
            f"{other.name}: {source.name} comes first" for _, other in candidates[1:] if other.name != ".python-version"
        ),
        key=_key(kind, python, contents),
    )


def _candidates(folder: Path, project: dict[str, Any] | None) -> list[tuple[Kind, Path]]:
    named: list[tuple[Kind, str]] = [
        *(("conda", name) for name in FOUND_ARCHIVES),
        ("lock", "uv.lock"),
        ("requirements", "requirements.txt"),
        ("project", "pyproject.toml"),
        ("python", ".python-version"),
    ]
    found: list[tuple[Kind, Path]] = [(kind, folder / name) for kind, name in named if (folder / name).is_file()]
    # A pyproject.toml that only configures tools asks for no package.
    return [(kind, path) for kind, path in found if kind != "project" or (project is not None and "project" in project)]


def _read_project(path: Path) -> dict[str, Any] | None:
    try:
        return tomllib.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise SettingError(f"is no TOML: {exc}", where=str(path), mend="mend the file") from exc


def _python(folder: Path, project: dict[str, Any] | None) -> tuple[str, str]:
    version_file = folder / ".python-version"
    if version_file.is_file():
        for line in version_file.read_text("utf-8-sig", "replace").splitlines():
            version = line.partition("#")[0].strip()
            if version:
                return version, ".python-version"
        raise SettingError("names no version", where=str(version_file), mend="write one into it, such as 3.11")
    table = project.get("project") if project is not None else None
    required = table.get("requires-python") if isinstance(table, dict) else None
    if isinstance(required, str) and required.strip():
        return required.strip(), "requires-python in pyproject.toml"
    return f"{sys.version_info[0]}.{sys.version_info[1]}", "nothing names another: the version of the server"


def _contents(folder: Path, kind: Kind, source: Path, project: dict[str, Any] | None) -> Iterable[tuple[str, bytes]]:
    if kind == "conda":
        yield source.name, _file_digest(source)
        return
    if kind == "requirements":
        yield from requirements.inputs(source)
    elif kind in ("lock", "project"):
        yield source.name, source.read_bytes()
    if project is not None and (kind == "lock" or "uv" in project.get("tool", {})):
        yield "pyproject.toml", (folder / "pyproject.toml").read_bytes()
    for name in _UV_CONFIGURATION:
        if (folder / name).is_file():
            yield name, (folder / name).read_bytes()


def _key(kind: Kind, python: str, contents: list[tuple[str, bytes]]) -> str:
    digest = hashlib.blake2b(digest_size=_KEY_BYTES)
    system = f"{sys.platform} {platform.machine()} {getattr(sys.implementation, '_multiarch', '')}"
    for name, content in [
        ("backline", str(VERSION).encode()), ("kind", kind.encode()), ("python", python.encode()),
        ("system", system.encode()), *contents,
    ]:  # fmt: skip
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").digest()


def archive_named_by(python: str) -> Path | None:
    """Return the packed environment that the setting names, if it is one."""
    return Path(python) if python.endswith(ARCHIVES) else None
