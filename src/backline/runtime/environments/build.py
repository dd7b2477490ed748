"""Makes an environment from its recipe: interpreter, packages, bytecode; or unpacks a packed one."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from backline.errors import EnvironmentFailed
from backline.runtime.environments import uv
from backline.runtime.environments.cache import EnvironmentCache, Held, Watch
from backline.runtime.environments.failure import explain
from backline.runtime.environments.interpreter import find_interpreter
from backline.runtime.environments.recipe import Recipe

_ASK_VERSION = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
_ASK_TIMEOUT = 30.0
_LEAST_PYTHON = (3, 8)  # the worker's
_DOWNLOADING = re.compile(r"^Downloading (\S+)")
_DOWNLOADED = re.compile(r"^ Downloaded (\S+)")
_BUILDING = re.compile(r"^ {3}Building (\S+)")
_RESOLVED = re.compile(r"^Resolved (\d+) package")
_INSTALLED = re.compile(r"^Installed (\d+) package")
_POSIX_PYTHON, _WINDOWS_PYTHON = Path("bin/python"), Path("Scripts/python.exe")


def obtain(cache: EnvironmentCache, recipe: Recipe, watch: Watch) -> Held:
    """Return the environment of a recipe, built if it is not there; see ``EnvironmentCache.obtain``."""

    def build(folder: Path, lock: IO[bytes]) -> dict[str, Any]:
        return _Build(cache, recipe, folder, lock, watch).run()

    return cache.obtain(recipe, watch, build)


class _Build:
    """One build, from an empty folder to what is noted of it."""

    def __init__(self, cache: EnvironmentCache, recipe: Recipe, folder: Path, lock: IO[bytes], watch: Watch) -> None:
        self._cache = cache
        self._recipe = recipe
        self._folder = folder
        self._lock = lock
        self._watch = watch
        self._shown = ""
        self._wanted = 0  # packages
        self._under_way: list[str] = []  # downloads and builds
        self._compiling = False

    def run(self) -> dict[str, Any]:
        """Build it; return ``python`` and ``packages``. Raises ``EnvironmentFailed`` or ``BuildCancelled``."""
        if self._recipe.kind == "conda":
            return self._unpack()
        program = uv.find_uv()
        interpreter = self._find_interpreter(program)
        self._watch.tell(f"building the environment that {self._recipe.source} asks for")
        self._show("making it")
        # The interpreter by its path: a .python-version in the folder would have uv ask pyenv, which may say no.
        self._run_uv(
            [program, "venv", "--quiet", "--no-project", "--python", interpreter, str(self._folder)], "making it"
        )
        python = _WINDOWS_PYTHON if sys.platform == "win32" else _POSIX_PYTHON
        version = self._check_version(self._folder / python)
        if self._recipe.kind != "python":
            self._install(program, self._folder / python)
        return {"python": str(python), "version": version, "packages": self._packages(program, self._folder / python)}

    # --- the interpreter

    def _find_interpreter(self, program: str) -> str:
        wanted = self._recipe.python
        found = find_interpreter(wanted, uv.environment())
        if found is not None:
            return found
        self._show(f"looking for Python {wanted}")
        code, text = self._run([program, "python", "find", "--no-project", wanted], f"looking for Python {wanted}")
        if code == 0 and text.strip():
            return text.strip().splitlines()[-1]
        return wanted  # uv may bring it

    def _check_version(self, python: Path) -> str:
        try:
            version = subprocess.run(  # noqa: S603  (the interpreter that was just made)
                [str(python), "-I", "-c", _ASK_VERSION],
                capture_output=True,
                text=True,
                timeout=_ASK_TIMEOUT,
                check=True,
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError) as exc:
            raise EnvironmentFailed(
                f"its interpreter does not run: {exc}", where=str(self._recipe.source), mend="name another Python"
            ) from exc
        if tuple(map(int, version.split(".")[:2])) < _LEAST_PYTHON:
            raise EnvironmentFailed(
                f"Python {version} is too old for Backline's worker",
                where=str(self._recipe.folder / ".python-version"),
                mend="name Python 3.8 or later",
            )
        return version

    # --- packages

    def _install(self, program: str, python: Path) -> None:
        recipe = self._recipe
        # Compiled now: uv leaves no bytecode, and every worker would compile pandas anew, which takes ten times longer.
        install = [program, "pip", "install", "--compile-bytecode", "--python", str(python)]
        if recipe.kind == "lock":
            export = [
                program, "export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-header",
                "--no-annotate", "--format", "requirements.txt", "--python", str(python),
            ]  # fmt: skip
            self._show("reading uv.lock")
            text = self._run_uv(export, "reading uv.lock")
            locked = self._folder / "locked-requirements.txt"
            locked.write_text(text)
            install += ["--no-deps", "--requirement", str(locked)]
        else:
            install += ["--requirement", recipe.source.name]
        self._show("resolving")
        self._run_uv(install, "installing packages", follow=True)

    def _packages(self, program: str, python: Path) -> list[str]:
        frozen = self._run_uv([program, "pip", "freeze", "--quiet", "--python", str(python)], "listing what is in it")
        return [line for line in frozen.splitlines() if line and not line.startswith("warning")]

    def _run_uv(self, command: Sequence[str], what: str, *, follow: bool = False) -> str:
        code, text = self._run(command, what, follow=follow)
        if code != 0:
            raise explain(self._recipe, text)
        return text

    def _run(self, command: Sequence[str], what: str, *, follow: bool = False) -> tuple[int, str]:
        return uv.run(
            command,
            folder=self._recipe.folder,
            watch=self._watch,
            what=what,
            lock=self._lock,
            on_line=self._follow if follow else lambda line: None,
            on_tick=self._count if follow else lambda: None,
        )

    # --- progress

    def _follow(self, line: str) -> None:
        """Make progress of what uv says of an installation."""
        if found := _RESOLVED.match(line):
            self._wanted = int(found[1])
            self._watch.tell(f"resolved {_packages(self._wanted)}")
        elif found := _DOWNLOADING.match(line) or _BUILDING.match(line):
            self._under_way.append(found[1])
            self._watch.tell(line.strip().replace("Building", "building").replace("Downloading", "downloading"))
        elif found := _DOWNLOADED.match(line):
            with contextlib.suppress(ValueError):
                self._under_way.remove(found[1])
        elif found := _INSTALLED.match(line):
            self._compiling = True
            self._watch.tell(f"installed {_packages(int(found[1]))}, compiling their bytecode")

    def _count(self) -> None:
        if self._compiling:
            self._show(f"compiling the bytecode of {_packages(self._wanted)}")
        elif self._wanted:
            # Unpacked ones count; what is not there yet is being downloaded, or built.
            there = sum(1 for _ in self._folder.glob("[lL]ib*/**/site-packages/*.dist-info"))
            busy = f", fetching {', '.join(self._under_way)}" if self._under_way else ""
            self._show(f"installing {there} of {self._wanted} packages{busy}")

    def _show(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            self._watch.show(text)
            self._cache.note_progress(self._recipe, text)

    # --- a packed environment

    def _unpack(self) -> dict[str, Any]:
        archive = self._recipe.source
        self._watch.tell(f"unpacking {archive}")
        try:
            with tarfile.open(archive) as packed:
                packed.extraction_filter = tarfile.tar_filter  # nothing outside the folder
                for number, member in enumerate(packed, 1):
                    packed.extract(member, self._folder)
                    if number % 100 == 0:
                        self._show(f"unpacking {archive.name}: {number} files")
                        self._watch.check("unpacking")
        except (tarfile.TarError, EOFError, OSError) as exc:
            raise EnvironmentFailed(
                f"cannot be unpacked: {exc}", where=str(archive), mend="pack it anew with conda-pack"
            ) from exc
        found = next(
            (each for each in (Path("bin/python"), Path("python.exe")) if (self._folder / each).exists()), None
        )
        if found is None:
            raise EnvironmentFailed(
                "holds no bin/python",
                where=str(archive),
                mend="pack an environment with conda-pack, or rename the file",
            )
        version = self._check_version(self._folder / found)
        unpack = self._folder / found.parent / "conda-unpack"
        if unpack.exists():
            # It writes the place where the environment is now into scripts and configuration.
            self._run_or_fail([str(self._folder / found), str(unpack)], "running conda-unpack")
        if not any(self._folder.glob("lib/python*/site-packages/**/*.pyc")):
            self._show("compiling bytecode")
            self._run([str(self._folder / found), "-m", "compileall", "-q", "-j", "0", "lib"], "compiling bytecode")
        names = sorted(
            path.name.removesuffix(".dist-info") for path in self._folder.glob("lib/python*/site-packages/*.dist-info")
        )
        return {
            "python": str(found),
            "version": version,
            "packages": ["==".join(name.rsplit("-", 1)) for name in names],
        }

    def _run_or_fail(self, command: Sequence[str], what: str) -> None:
        code, text = uv.run(command, folder=self._folder, watch=self._watch, what=what, lock=self._lock)
        if code != 0:
            raise EnvironmentFailed(
                f"{what} failed:\n{text[-1000:].strip()}", where=str(self._recipe.source), mend="pack it anew"
            )


def _packages(count: int) -> str:
    return f"{count} package{'' if count == 1 else 's'}"
