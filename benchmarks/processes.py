"""What the processes of a server use, read from ``/proc``: memory, CPU time, who belongs to it."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

_PROC = Path("/proc")
_SAMPLE_EVERY = 0.01  # seconds


def family(pid: int) -> list[int]:
    """Return ``pid``, its descendants, and whoever else is still in its session."""
    children: dict[int, list[int]] = collections.defaultdict(list)
    found = [pid]
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                children[int(fields[1])].append(int(entry.name))
                if int(fields[3]) == pid and int(entry.name) != pid:
                    found.append(int(entry.name))
    for member in found:
        found += [child for child in children[member] if child not in found]
    return found


def pss_mib(pids: Sequence[int]) -> float:
    """Return the proportional set size of all: a page that several share is counted once."""
    return sum(_kib(pid, "smaps_rollup", "Pss") for pid in pids) / 1024


def rss_mib(pids: Sequence[int]) -> float:
    """Return the resident memory of all: a page that several share is counted for each."""
    return sum(_kib(pid, "status", "VmRSS") for pid in pids) / 1024


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Peak:
    """The most that the processes have held while the block ran, over what they held before (``growth_mib``).

    Private and file pages are summed over the processes. Shared memory is taken from the whole machine's count, since
    a page of it may be mapped by several processes, or by none while it is being written: so it counts once, and
    whoever else uses shared memory meanwhile disturbs the figure.
    """

    growth_mib = 0.0


@contextlib.contextmanager
def watched_peak(pids: Sequence[int]) -> Iterator[Peak]:
    """Sample the memory of the processes until the block ends."""
    peak = Peak()
    before = _held_mib(pids)
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(_SAMPLE_EVERY):
            peak.growth_mib = max(peak.growth_mib, _held_mib(pids) - before)

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        stop.set()
        sampler.join()


def _held_mib(pids: Sequence[int]) -> float:
    private = sum(_kib(pid, "status", "RssAnon") + _kib(pid, "status", "RssFile") for pid in pids)
    return (private + _field((_PROC / "meminfo").read_text(), "Shmem")) / 1024


def _kib(pid: int, file: str, field: str) -> int:
    try:
        return _field((_PROC / str(pid) / file).read_text(), field)
    except OSError:
        return 0  # it has ended


def _field(text: str, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0
