"""A model that is changed is loaded as it is, whatever bytecode lies beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from backline_worker.contract.hooks import import_custom


def test_a_change_within_the_same_second_and_of_the_same_size_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.delitem(sys.modules, "custom", raising=False)
    path = tmp_path / "custom.py"
    for version in ("A", "B"):
        path.write_text(f"VERSION = {version!r}\n")
        os.utime(path, (1_700_000_000, 1_700_000_000))
        assert version == import_custom(str(path), str(tmp_path)).VERSION
    monkeypatch.delitem(sys.modules, "custom")
