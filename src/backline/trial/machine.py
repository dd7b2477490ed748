"""What the machine gives: cores, also where a control group gives less of them; shared memory, space, descriptors."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from backline.runtime.memory import usable_cores

_CGROUPS = Path("/sys/fs/cgroup")


def cpu_quota(root: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> float | None:
    """Return how many cores' time the control groups of this process give it; ``None`` where there is no limit."""
    found = []
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        base = root / "cpu" if controllers else root
        group = base / path.lstrip("/")
        # In a container the path may be that of the host, and the container's own group is the root that is seen.
        found += [
            quota for folder in (group, *group.parents) if folder.is_relative_to(base) and (quota := _quota(folder))
        ]
    return min(found, default=None)


def _quota(group: Path) -> float | None:
    words = " ".join(_lines(group / "cpu.max")).split()
    if len(words) == 2 and words[0] != "max":
        return int(words[0]) / int(words[1])
    quota, period = (" ".join(_lines(group / f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None


def cores() -> float:
    """Return how many cores there are for us."""
    return min(float(usable_cores()), cpu_quota() or float("inf"))


def free_bytes(path: str | Path) -> int | None:
    """Return the space that is left where ``path`` is; ``None`` where it is not there."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return None


def total_bytes(path: str | Path) -> int | None:
    """Return the size of the file system where ``path`` is."""
    try:
        return shutil.disk_usage(path).total
    except OSError:
        return None


def descriptor_limit() -> int | None:
    """Return how many files and connections this process may have open."""
    try:
        import resource
    except ImportError:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def is_writable(folder: str) -> bool:
    """Whether files can be made in a folder."""
    return os.access(folder, os.W_OK | os.X_OK)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
