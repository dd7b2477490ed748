"""How much memory there is for another worker, and how much one has taken.

Only Linux says both without a library; elsewhere the answers are ``None``, and nothing is decided by them. The files
read here are made by the kernel from memory, so reading them on the event loop blocks nothing.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_FIELD = re.compile(rb"^(\w+):?\s+(\d+)", re.MULTILINE)


def available_bytes() -> int | None:
    """Return what can be taken without swapping or meeting the limit of a control group; ``None`` if nobody says."""
    known = [_machine_available(), *(_group_available(group) for group in _groups("memory"))]
    return min((amount for amount in known if amount is not None), default=None)


def private_peak_bytes(pid: int | None) -> int | None:
    """Return the most memory of its own that a process has had: its peak, less the files that it has mapped.

    Mapped files are the libraries, which all workers of an environment share, and can be read again.
    """
    fields = _fields(Path(f"/proc/{pid}/status"))
    peak = fields.get("VmHWM")
    return None if peak is None else max(0, peak - fields.get("RssFile", 0)) * 1024


def private_bytes(pid: int | None) -> int:
    """Return how much memory of its own a process has now; 0 when it is gone."""
    fields = _fields(Path(f"/proc/{pid}/status"))
    return (fields.get("RssAnon", 0) + fields.get("RssShmem", 0)) * 1024


def unshared_bytes(pid: int | None) -> int:
    """Return how much memory no other process has, too: what the end of this one would free; 0 when it is gone.

    Slow for a large process, 4 ms for each GiB, as the kernel looks at each page.
    """
    fields = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    return (fields.get("Private_Dirty", 0) + fields.get("Private_Clean", 0)) * 1024


def in_words(size: int) -> str:
    """Return a size as people read it: ``1.5 GiB``."""
    mebibytes = size / 2**20
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"


def usable_cores() -> int:
    """Return on how many cores this process may run at a time: those that it may use, and what its group is given."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for group in _groups("cpu") if (quota := _cpu_quota(group)) is not None]
    return max(1, min([cores, *(math.ceil(quota) for quota in quotas)]))


def _machine_available() -> int | None:
    available = _fields(Path("/proc/meminfo")).get("MemAvailable")
    return None if available is None else available * 1024


def _groups(controller: str) -> list[Path]:
    """Return the folders of the control groups, version 2 or 1, that may bound this process."""
    folders = []
    for line in _read(Path("/proc/self/cgroup")).decode().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUPS / controller if controllers else _CGROUPS
        group = root / path.lstrip("/")
        # In a container the path may be that of the host, and the container's own group is the root that is seen.
        folders += [folder for folder in (group, *group.parents) if folder.is_relative_to(root)]
    return folders


def _cpu_quota(group: Path) -> float | None:
    """Return how many cores a control group may use, as a fraction where it is one."""
    quota, _, period = _read(group / "cpu.max").partition(b" ")
    if not period:
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
    quota, period = quota.strip(), period.strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() and int(period) else None  # "max", -1


def _group_available(group: Path) -> int | None:
    for limit_file, usage_file, reclaimable in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        limit, usage = _number(group / limit_file), _number(group / usage_file)
        if limit is not None and usage is not None:
            return max(0, limit - usage + _fields(group / "memory.stat").get(reclaimable, 0))
    return None


def _fields(path: Path) -> dict[str, int]:
    return {name.decode(): int(number) for name, number in _FIELD.findall(_read(path))}


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None  # "max" is no limit


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
