"""What the figures were measured on, and how quiet it was."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def describe() -> str:
    """Return the machine in one line."""
    cpu = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    memory = re.search(r"^MemTotal:\s+(\d+)", _read("/proc/meminfo"), re.MULTILINE)
    system = re.search(r'^PRETTY_NAME="?([^"\n]+)', _read("/etc/os-release"), re.MULTILINE)
    parts = [
        f"{os.cpu_count()} cores",
        cpu[1].strip() if cpu else platform.machine(),
        f"{int(memory[1]) / (1 << 20):.0f} GiB" if memory else "",
        system[1] if system else platform.system(),
        f"kernel {platform.release()}",
    ]
    return ", ".join(part for part in parts if part)


class Noise:
    """How busy others kept the machine since the last time that it was asked."""

    def __init__(self) -> None:
        self._last = _cpu_ticks()

    def since_last(self) -> dict[str, float]:
        """Return the load average, and the share of CPU time that the hypervisor gave to others, in percent."""
        now = _cpu_ticks()
        passed = [after - before for before, after in zip(self._last, now, strict=True)]
        self._last = now
        stolen = 100 * passed[7] / max(1, sum(passed)) if len(passed) > 7 else 0.0
        return {"load": round(os.getloadavg()[0], 2), "steal_percent": round(stolen, 1)}


def _cpu_ticks() -> list[int]:
    first = _read("/proc/stat").partition("\n")[0]
    return [int(field) for field in first.split()[1:9]]


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
