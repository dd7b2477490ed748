"""Memory and processor time of other processes, from ``/proc``; ``None`` where the system does not tell."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from backline.observe.snapshot import WorkerSeen


def look_at(worker: WorkerSeen) -> WorkerSeen:
    """Return the worker with its memory and processor time.

    The kernel walks the whole of a process for its proportional memory, some milliseconds for a gigabyte: call it in a
    thread.
    """
    if worker.pid is None:
        return worker
    return dataclasses.replace(
        worker,
        resident_bytes=resident_bytes(worker.pid),
        proportional_bytes=proportional_bytes(worker.pid),
        cpu_seconds=cpu_seconds(worker.pid),
    )


def resident_bytes(pid: int) -> int | None:
    """Return the process's resident memory; quick."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError, ValueError):
        return None


def proportional_bytes(pid: int) -> int | None:
    """Return the process's memory with each shared page counted by its share (Linux 4.14 and later)."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_bytes().splitlines():
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError, ValueError):
        pass
    return None


def cpu_seconds(pid: int) -> float | None:
    """Return the processor time that the process has used, its own and the kernel's for it."""
    try:
        # The name, in parentheses, may hold anything, also spaces and parentheses.
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return None
