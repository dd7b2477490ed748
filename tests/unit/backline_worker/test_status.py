"""The status page: what the one writes, the other reads, and touching it is safe."""

from __future__ import annotations

from pathlib import Path

from backline_worker.status import StatusPage


def test_what_the_worker_writes_the_server_reads(tmp_path: Path) -> None:
    server = StatusPage(str(tmp_path / "page"), create=True)
    worker = StatusPage(str(tmp_path / "page"))
    assert server.read() == (0, "idle")
    worker.write(7, "predict")
    assert server.read() == (7, "predict")
    worker.close()
    server.close()


def test_the_page_is_there_from_the_start(tmp_path: Path) -> None:
    """A hole in the file would be filled at the first touch, and kill who touches it when shared memory is full."""
    StatusPage(str(tmp_path / "page"), create=True).close()
    assert (tmp_path / "page").stat().st_blocks > 0
