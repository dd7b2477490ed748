"""Looks at what a model stands on: its environment, its files and the machine. The model is not loaded."""

from __future__ import annotations

import math
import os
import re
import socket
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from backline.config.python import CURRENT
from backline.runtime.environments.prepare import python_if_there
from backline.runtime.memory import available_bytes, in_words, usable_cores
from backline.runtime.payload import SHARED_MEMORY
from backline.trial import machine
from backline.trial.environment import Environment, NoInterpreter, ask_environment
from backline.trial.extension_files import check_extension_files
from backline.trial.finding import Finding, Status, Table
from backline.trial.imports import imports_of
from backline.trial.pickles import Scan, scan_folder
from backline.trial.versions import meets, normalised, numbers, requirements_of

if TYPE_CHECKING:
    from backline.config.model_folder import ModelFolder

CHECKS = (
    "environment",
    "requirements",
    "training versions",
    "threads",
    "shared memory",
    "temporary space",
    "memory",
    "descriptors",
    "port",
    "extension files",
    "folder",
)
"""Every check, in the order in which they are told."""

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_MIB = 1 << 20
_LEAST_SHARED = 16 * _MIB
_LEAST_DESCRIPTORS = 1024
_LFS = b"version https://git-lfs"
_ARTIFACTS = (".pkl", ".pickle", ".joblib", ".pth", ".pt", ".h5", ".keras", ".onnx", ".cbm", ".txt", ".json", ".ubj")
_NOT_RUN = {
    "custom.R": "hooks in R are not run; write them in Python, or keep the model where R runs",
    "start_server.sh": "is not used: backline serve is the server",
}


def diagnose(folder: ModelFolder, environ: Mapping[str, str]) -> list[Finding]:
    """Make every check and return what was found."""
    return _Doctor(folder, environ).run()


class _Doctor:
    """One look."""

    def __init__(self, folder: ModelFolder, environ: Mapping[str, str]) -> None:
        self._folder = folder
        self._settings = folder.settings
        self._code_dir = folder.settings.model.code_dir
        self._environ = environ
        self._findings: list[Finding] = []

    def run(self) -> list[Finding]:
        scan = scan_folder(self._code_dir, self._settings.validate.allow)
        environment = self._check_environment(scan)
        checks: list[Callable[[], None]] = [
            lambda: self._check_requirements(environment),
            lambda: self._check_training(environment, scan),
            self._check_threads,
            self._check_shared_memory,
            self._check_temporary,
            self._check_memory,
            self._check_descriptors,
            self._check_port,
        ]
        for check in checks:
            check()
        self._findings.append(check_extension_files(self._code_dir, custom_flask=self._settings.server.custom_flask))
        self._check_folder()
        return self._findings

    def _add(self, check: str, status: Status, seen: str, mend: str = "", table: Table | None = None) -> None:
        self._findings.append(Finding(check=check, status=status, seen=seen, mend=mend, table=table))

    # --- the environment

    def _check_environment(self, scan: Scan) -> Environment | None:
        check = "environment"
        imports, _ = imports_of(self._code_dir)
        with python_if_there(self._settings) as python:
            if python is None:
                self._add(
                    check,
                    Status.WARNING,
                    "it has not been built yet",
                    "backline env build does it ahead of the first start",
                )
                return None
            try:
                found = ask_environment(python, self._code_dir, {*scan.modules, *(each.module for each in imports)})
            except NoInterpreter as exc:
                self._add(check, Status.FAILED, str(exc), "name the model's interpreter with --python")
                return None
        told = f"{found.executable} (Python {found.version}{', made by uv' if found.made_by_uv else ''})"
        if numbers(found.version) < (3, 8):
            self._add(check, Status.FAILED, f"{told} is too old", "workers need Python 3.8 or later")
        elif found.compiled is not None and not found.compiled[1]:
            package, _, writable = found.compiled
            never = found.dont_write_bytecode or not writable
            why = "PYTHONDONTWRITEBYTECODE is set" if found.dont_write_bytecode else "it is read-only"
            self._add(
                check,
                Status.WARNING,
                f"{told}: {package} has no compiled bytecode"
                + (
                    f" and gets none, as {why}: every worker compiles it again"
                    if never
                    else "; the first start compiles it"
                ),
                f"{found.executable} -m compileall -q {found.prefix}"
                + (", or uv pip install --compile-bytecode next time" if found.made_by_uv else ""),
            )
        elif python == CURRENT:
            self._add(check, Status.PASSED, f"{told}, which is the server's own: the two share their packages")
        else:
            self._add(check, Status.PASSED, told)
        return found

    def _check_requirements(self, environment: Environment | None) -> None:
        check = "requirements"
        path = self._code_dir / "requirements.txt"
        if not path.is_file():
            self._add(check, Status.SKIPPED, "there is no requirements.txt")
            return
        if environment is None:
            self._add(check, Status.SKIPPED, "there is no environment to hold it against")
            return
        wanted, others = requirements_of(path)
        rows, unclear = [], [(line, "", "not checked") for line in others]
        for each in wanted:
            version = environment.versions.get(normalised(each.name))
            place = f"{path.name}:{each.line}"
            if version is None:
                if not each.conditional:
                    rows.append((place, f"{each.name}{each.wanted}", "it is not installed"))
            elif (met := meets(version, each.wanted)) is None:
                unclear.append((place, f"{each.name}{each.wanted}", f"{version}: cannot be compared"))
            elif not met and not each.conditional:
                rows.append((place, f"{each.name}{each.wanted}", f"{version} is installed"))
        if rows:
            self._add(
                check,
                Status.FAILED,
                f"{rows[0][0]} wants {rows[0][1]}: {rows[0][2]}{f'; {len(rows) - 1} more' if len(rows) > 1 else ''}",
                f"{environment.executable} -m pip install -r {path}",
                Table(head=("line", "wanted", "seen"), rows=tuple(rows + unclear)),
            )
        else:
            table = Table(head=("line", "wanted", "seen"), rows=tuple(unclear)) if unclear else None
            self._add(check, Status.PASSED, f"{len(wanted)} requirements are met", table=table)

    def _check_training(self, environment: Environment | None, scan: Scan) -> None:
        """Hold the versions that artifacts say they were made with against those that will open them."""
        check = "training versions"
        if environment is None:
            self._add(check, Status.SKIPPED, "there is no environment to hold them against")
            return
        rows, status = [], Status.PASSED
        for file, library, version in [*scan.versions, *_versions_in_files(self._code_dir)]:
            installed = environment.versions.get(normalised(library))
            if installed is None:
                rows.append((file, f"{library} {version}", "it is not installed"))
                status = Status.FAILED
            elif numbers(installed)[:2] != numbers(version)[:2]:
                rows.append((file, f"{library} {version}", f"{installed} is installed"))
                status = Status.FAILED
            elif installed != version:
                rows.append((file, f"{library} {version}", f"{installed} is installed"))
                status = Status.WARNING if status is Status.PASSED else status
            else:
                rows.append((file, f"{library} {version}", "the same"))
        numpy = environment.versions.get("numpy")
        new = next((named.file for named in scan.names if named.name.startswith("numpy._core.")), None)
        if new is not None and numpy is not None and numbers(numpy) < (1, 26):
            rows.append((new, "numpy 2 (it names numpy._core)", f"{numpy} is installed"))
            status = Status.FAILED
        table = Table(head=("file", "made with", "seen"), rows=tuple(rows)) if rows else None
        if status is Status.PASSED:
            seen = "no artifact says with which versions it was made" if not rows else f"{rows[0][1]}, as installed"
            self._add(check, status, seen, table=table)
        else:
            odd = next(row for row in rows if row[2] != "the same")
            seen = f"{odd[0]} was made with {odd[1]}: {odd[2]}"
            self._add(
                check,
                status,
                seen,
                "install the version that it was made with, or train it again; predictions may differ without a word "
                "(backline parity tells)",
                table,
            )

    # --- the machine

    def _check_threads(self) -> None:
        check = "threads"
        workers = self._settings.workers.count
        cores, seen_cores = machine.cores(), usable_cores()
        given = next((int(self._environ[name]) for name in _THREADS if self._environ.get(name, "").isdigit()), None)
        threads = given or seen_cores
        fitting = max(1, int(cores / workers))
        told = f"{workers} worker{'s' if workers > 1 else ''} with {threads} thread{'s' if threads > 1 else ''} each"
        told += f" on {cores:g} core{'s' if cores != 1 else ''}"
        if cores < seen_cores:
            told += f" (a control group's limit; libraries see {seen_cores})"
        if workers > math.ceil(cores):
            self._add(
                check,
                Status.FAILED,
                f"{told}: more workers than cores only wait for each other",
                f"--workers {max(1, int(cores))}",
            )
        elif workers * threads > math.ceil(cores):
            self._add(
                check,
                Status.WARNING,
                f"{told}: the linear algebra of numpy and others starts a thread for each core it sees"
                if given is None
                else f"{told}: more threads than cores",
                f"set OMP_NUM_THREADS={fitting} and OPENBLAS_NUM_THREADS={fitting} where the server is started; its "
                "workers inherit them",
            )
        else:
            self._add(check, Status.PASSED, told)

    def _check_shared_memory(self) -> None:
        check = "shared memory"
        free, total = machine.free_bytes(SHARED_MEMORY), machine.total_bytes(SHARED_MEMORY)
        body = self._settings.limits.max_body
        if free is None or total is None or not machine.is_writable(SHARED_MEMORY):
            self._add(
                check,
                Status.WARNING,
                f"{SHARED_MEMORY} is not there or not writable: large bodies go by a disk",
                "mount a tmpfs there",
            )
        elif free < _LEAST_SHARED:
            self._add(
                check,
                Status.FAILED,
                f"{in_words(free)} are left in {SHARED_MEMORY}: large bodies get 503",
                "remove what fills it, or make it larger: docker run --shm-size 1g; on Kubernetes an emptyDir of "
                "medium Memory",
            )
        elif total < body:
            self._add(
                check,
                Status.WARNING,
                f"{SHARED_MEMORY} holds {in_words(total)}, and a body may have {in_words(body)} (--max-body)",
                f"make it larger: docker run --shm-size {math.ceil(body / 2**30)}g; or lower --max-body",
            )
        else:
            self._add(check, Status.PASSED, f"{in_words(free)} are free in {SHARED_MEMORY}")

    def _check_temporary(self) -> None:
        check = "temporary space"
        try:
            folder = tempfile.gettempdir()
        except OSError as exc:
            self._add(
                check,
                Status.FAILED,
                f"no directory for temporary files can be written: {exc.strerror or exc}",
                "name one with the variable TMPDIR",
            )
            return
        free = machine.free_bytes(folder)
        if free is not None and free < self._settings.limits.max_body:
            body = in_words(self._settings.limits.max_body)
            self._add(
                check,
                Status.WARNING,
                f"{in_words(free)} are free in {folder}, and a body may have {body} (--max-body)",
                "make room, name another directory with TMPDIR, or lower --max-body",
            )
        else:
            self._add(check, Status.PASSED, f"{in_words(free or 0)} are free in {folder}")

    def _check_memory(self) -> None:
        """A model takes at least what its files take, once for each worker."""
        check = "memory"
        available = available_bytes()
        size = sum(path.stat().st_size for path in _artifact_files(self._code_dir))
        workers = self._settings.workers.count
        limit = self._settings.workers.memory_limit
        if limit is not None and size > limit:
            self._add(
                check,
                Status.FAILED,
                f"the artifacts have {in_words(size)}, and a worker may use {in_words(limit)} (--memory-limit)",
                "raise --memory-limit",
            )
        elif available is None:
            self._add(check, Status.SKIPPED, "the system does not say how much is available")
        elif size * workers > available:
            self._add(
                check,
                Status.FAILED,
                f"{workers} workers with artifacts of {in_words(size)} each, and {in_words(available)} are available",
                f"--workers {max(1, available // max(1, size))}, or a larger machine",
            )
        else:
            self._add(check, Status.PASSED, f"{in_words(available)} are available; the artifacts have {in_words(size)}")

    def _check_descriptors(self) -> None:
        check = "descriptors"
        limit = machine.descriptor_limit()
        backend = self._settings.backend.connections if self._settings.backend.url is not None else 0
        wanted = _LEAST_DESCRIPTORS + backend
        if limit is not None and limit < wanted:
            self._add(
                check,
                Status.WARNING,
                f"{limit} files and connections may be open at a time; each client takes one",
                f"ulimit -n {max(4096, wanted)} before the start, or LimitNOFILE in the service's unit",
            )
        else:
            self._add(check, Status.PASSED, f"{limit or 'any number of'} files and connections may be open at a time")

    def _check_port(self) -> None:
        check = "port"
        host, port = self._settings.server.host, self._settings.server.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            socket.create_server((host, port), family=family).close()
        except OSError as exc:
            low = " (below 1024 it takes privileges)" if 0 < port < 1024 else ""
            self._add(
                check,
                Status.FAILED,
                f"{host}:{port} cannot be listened on: {exc.strerror or exc}{low}",
                f"choose another with --port, or see who has it with ss -ltnp 'sport = :{port}'",
            )
        else:
            self._add(check, Status.PASSED, f"{host}:{port} is free")

    # --- the folder

    def _check_folder(self) -> None:
        check = "folder"
        rows: list[tuple[str, str]] = []
        broken: list[tuple[str, str]] = []
        for path in _artifact_files(self._code_dir):
            name = str(path.relative_to(self._code_dir))
            if not os.access(path, os.R_OK):
                broken.append((name, "cannot be read by this user; chmod a+r"))
                continue
            with path.open("rb") as file:
                start = file.read(len(_LFS))
            if start == _LFS:
                broken.append((name, "is a pointer of Git LFS, not the file itself; git lfs pull"))
            elif not start:
                broken.append((name, "is empty; write it again"))
        rows += [(name, told) for name, told in _NOT_RUN.items() if (self._code_dir / name).is_file()]
        rows += [("model-metadata.yaml", warning) for warning in self._folder.warnings]
        top = [
            path for path in self._code_dir.glob("*") if path.suffix.lower() in (".pkl", ".pickle", ".joblib", ".onnx")
        ]
        if len(top) > 1 and not _defines(self._code_dir / "custom.py", "load_model"):
            names = ", ".join(sorted(path.name for path in top))
            broken.append((names, "only one artifact is opened by itself; keep one, or define load_model in custom.py"))
        if broken or rows:
            first = (broken or rows)[0]
            self._add(
                check,
                Status.FAILED if broken else Status.WARNING,
                f"{first[0]} {first[1]}",
                "see each line" if len(broken) + len(rows) > 1 else "",
                Table(head=("file", "seen"), rows=tuple(broken + rows)),
            )
        else:
            self._add(check, Status.PASSED, "its files can be read, and none is left over from another server")


def _defines(path: Path, name: str) -> bool:
    try:
        return (
            re.search(rf"^\s*(async\s+)?def\s+{name}\b", path.read_text("utf-8", "replace"), re.MULTILINE) is not None
        )
    except OSError:
        return False


def _artifact_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _ARTIFACTS
        and path.is_file()
        and not any(part.startswith(".") or part == "site-packages" for part in path.relative_to(folder).parts)
        and path.name not in ("requirements.txt", "package.json")
    )


def _versions_in_files(folder: Path) -> list[tuple[str, str, str]]:
    """Return file, library and version of artifacts that are no pickles and say with what they were made."""
    found = []
    for path in _artifact_files(folder):
        try:
            with path.open("rb") as file:
                head = file.read(1 << 16)
                file.seek(max(0, path.stat().st_size - 4096))
                tail = file.read()
        except OSError:
            continue
        name = str(path.relative_to(folder))
        if path.suffix == ".json" and b'"learner"' in head:
            match = re.search(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)', head + tail)
            if match is not None:
                found.append((name, "xgboost", ".".join(part.decode() for part in match.groups())))
        elif path.suffix in (".h5", ".keras"):
            match = re.search(rb'keras_version["\s:]{1,6}(\d+\.\d+\.\d+)', head + tail)
            if match is not None:
                found.append((name, "keras", match[1].decode()))
    return found
