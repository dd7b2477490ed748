"""The cores that a control group leaves are found in both versions of control groups, and above the own group."""

from __future__ import annotations

from pathlib import Path

from backline.trial.machine import cpu_quota


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_the_tightest_limit_on_the_way_up_counts(tmp_path: Path) -> None:
    write(tmp_path / "own", "0::/pod/container\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") is None
    write(tmp_path / "cgroup/pod/container/cpu.max", "max 100000\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") is None
    write(tmp_path / "cgroup/pod/cpu.max", "150000 100000\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == 1.5
    write(tmp_path / "cgroup/cpu.max", "50000 100000\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == 0.5


def test_control_groups_of_version_1_are_read(tmp_path: Path) -> None:
    write(tmp_path / "own", "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n")
    write(tmp_path / "cgroup/cpu/cpu.cfs_quota_us", "200000\n")
    write(tmp_path / "cgroup/cpu/cpu.cfs_period_us", "100000\n")
    assert cpu_quota(tmp_path / "cgroup", tmp_path / "own") == 2.0
