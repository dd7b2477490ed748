"""Starts a process for each target, looks on, and goes on after a case that has ended one or hangs."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fuzz.cases import Case, chance, write_case
from tests.fuzz.child import PAGE
from tests.fuzz.targets import load

HANGS_AFTER = 90.0  # seconds on the clock, for a machine that has other things to do
_MOST_FINDINGS = 200  # of one target; then something is wrong everywhere
ROOT = Path(__file__).parents[2]


@dataclasses.dataclass
class Finding:
    """A case that broke a rule: ``how`` is a kind of error, or ``crash`` or ``hang``."""

    target: str
    number: int
    how: str
    what: str
    kept: Path | None = None

    @property
    def mark(self) -> str:
        """What findings of one cause mostly have in common."""
        lines = [line for line in self.what.strip().splitlines() if line.strip()]
        places = [line.strip() for line in lines if line.lstrip().startswith(("File ", 'File "'))]
        return f"{self.how} {places[-1] if places else ''} {lines[-1][:60] if lines else ''}"


@dataclasses.dataclass
class Report:
    """What became of the cases of one target."""

    target: str
    cases: int = 0
    seconds: float = 0.0
    outcomes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    findings: list[Finding] = dataclasses.field(default_factory=list)
    memory: list[int] = dataclasses.field(default_factory=list)
    processes: int = 0

    @property
    def growth(self) -> int:
        """Bytes of resident memory from the first quarter of the longest-lived process's cases to its end."""
        looks = self.memory
        return looks[-1] - max(looks[: max(1, len(looks) // 4)]) if len(looks) > 4 else 0


def run_target(
    target: str,
    *,
    seed: int,
    count: int,
    first: int = 0,
    keep: Path | None,
    progress: Callable[[str, int], None] = lambda _target, _done: None,
) -> Report:
    """Run ``count`` cases of a target; what is found is written to ``keep``."""
    report = Report(target)
    started = time.monotonic()
    end = first + count
    while first < end and len(report.findings) < _MOST_FINDINGS:
        arguments = ["--seed", str(seed), "--first", str(first), "--count", str(end - first)]
        last, ending = _run_child(target, arguments, report, functools.partial(_tell, progress, target, first))
        if ending is None:
            first = end
        else:
            report.findings.append(Finding(target, last, *ending))
            first = last + 1
    report.cases = count - (end - first)
    report.seconds = time.monotonic() - started
    if keep is not None:
        _keep(report, seed, keep)
    return report


def replay(target: str, paths: Sequence[Path]) -> Report:
    """Run kept cases of one target."""
    report = Report(target)
    left = list(paths)
    while left:
        last, ending = _run_child(target, ["--replay", *map(str, left)], report, lambda _done: None)
        if ending is None:
            break
        report.findings.append(Finding(target, last, *ending))
        left = left[last + 1 :]
    report.cases = len(paths)
    for finding in report.findings:
        finding.kept = paths[min(finding.number, len(paths) - 1)]
    return report


def make_case(target: str, seed: int, number: int) -> Case:
    """Return the case of that number."""
    return load(target).make(chance(seed, target, number))


def _tell(progress: Callable[[str, int], None], target: str, first: int, done: int) -> None:
    progress(target, first + done)


def _keep(report: Report, seed: int, keep: Path) -> None:
    seen: collections.Counter[str] = collections.Counter()
    for finding in report.findings:
        seen[finding.mark] += 1
        if seen[finding.mark] <= 3:
            finding.kept = write_case(keep, finding.target, make_case(finding.target, seed, finding.number))


def _run_child(
    target: str, arguments: list[str], report: Report, progress: Callable[[int], None]
) -> tuple[int, tuple[str, str] | None]:
    """Return the number of the last case, and how it has ended the process, if it has."""
    report.processes += 1
    with _page() as (path, page), tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.child", target, path, *arguments],
            stdout=subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "PYTHONHASHSEED": "0"},
        )
        complete: list[bool] = []
        reader = threading.Thread(target=_read, args=(process, target, report, complete), daemon=True)
        reader.start()
        try:
            hung = _watch(process, page, progress)
        finally:
            process.kill()
            code = process.wait()
            reader.join(10)
            if process.stdout is not None:
                process.stdout.close()
        number = int(PAGE.unpack_from(page)[0])
        if complete:
            return number, None
        errors.seek(0)
        text = errors.read().decode(errors="replace")[-3000:]
        if hung:
            return number, ("hang", f"no end after {HANGS_AFTER:.0f} s\n{text}")
        if not PAGE.unpack_from(page)[2]:
            raise RuntimeError(f"the target {target} cannot be made:\n{text}")
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return number, ("crash", f"{name}\n{text}")


def _watch(process: subprocess.Popen[bytes], page: mmap.mmap, progress: Callable[[int], None]) -> bool:
    """Wait for the end; return whether a case hangs."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
            return False
        _number, done, began = PAGE.unpack_from(page)
        progress(done)
        if began and time.monotonic() - began > HANGS_AFTER:
            process.send_signal(signal.SIGABRT)  # faulthandler says where it is
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            return True


def _read(process: subprocess.Popen[bytes], target: str, report: Report, complete: list[bool]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        try:
            record: dict[str, Any] = json.loads(line)
        except ValueError:
            continue  # something in the code under test has printed
        if "found" in record:
            report.findings.append(Finding(target, record["found"], record["how"], record["what"]))
        elif "outcomes" in record:
            report.outcomes.update(record["outcomes"])
            if len(record["memory"]) >= len(report.memory):
                report.memory = record["memory"]
            complete.append(True)


@contextlib.contextmanager
def _page() -> Iterator[tuple[str, mmap.mmap]]:
    with tempfile.NamedTemporaryFile() as file:
        file.write(bytes(PAGE.size))
        file.flush()
        with mmap.mmap(file.fileno(), PAGE.size) as page:
            yield file.name, page
