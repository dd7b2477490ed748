"""What Linux says about memory."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

import pytest

from backline.runtime import memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux says it")


def test_the_smallest_limit_of_machine_and_groups_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = tmp_path / "pod" / "container"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5000000\n")
    (group.parent / "memory.max").write_text("9000000\n")
    (group.parent / "memory.current").write_text("8000000\n")
    (group.parent / "memory.stat").write_text("anon 1\ninactive_file 500000\nactive_file 7\n")
    monkeypatch.setattr(memory, "_groups", lambda controller: [group, group.parent])
    assert memory.available_bytes() == 1_500_000
    (group.parent / "memory.current").write_text("99000000\n")
    assert memory.available_bytes() == 0


def test_version_1_groups_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.limit_in_bytes").write_text("3000000\n")
    (tmp_path / "memory.usage_in_bytes").write_text("1000000\n")
    (tmp_path / "memory.stat").write_text("total_inactive_file 250000\n")
    monkeypatch.setattr(memory, "_groups", lambda controller: [tmp_path])
    assert memory.available_bytes() == 2_250_000


def test_the_groups_of_this_process_can_be_asked() -> None:
    available = memory.available_bytes()
    assert available is not None
    assert available > 0
    assert memory._groups("memory")


def test_the_peak_of_a_process_stays_when_the_memory_is_given_back() -> None:
    before = memory.private_bytes(os.getpid())
    with mmap.mmap(-1, 200 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as taken:
        for start in range(0, len(taken), 4096):
            taken[start] = 1
        assert memory.private_bytes(os.getpid()) >= before + (199 << 20)
    peak = memory.private_peak_bytes(os.getpid())
    assert peak is not None
    assert peak >= memory.private_bytes(os.getpid()) + (150 << 20)


def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    assert memory.private_peak_bytes(None) is None
    assert memory.private_bytes(2**22 + 1) == 0


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.cfs_quota_us": "300000\n", "cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.cfs_quota_us": "-1\n", "cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu.max": "1600000 100000\n"}, 8),
        ({}, 8),
    ],
)
def test_cores_are_bounded_by_the_quota_of_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cores: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory, "_groups", lambda controller: [tmp_path] if controller == "cpu" else [])
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert memory.usable_cores() == cores
