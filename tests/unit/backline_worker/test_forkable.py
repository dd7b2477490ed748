"""What stands in the way of a fork is found, each in a process that has just that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from backline_worker import forkable

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="all is read from /proc")

SOURCE = Path(forkable.__file__).parents[1]


def find(code: str, folder: Path) -> list[str]:
    """Run some code, and return the obstacles that are there then."""
    program = f"import sys\nsys.path.insert(0, {str(SOURCE)!r})\nfrom backline_worker import forkable\n{code}\n"
    program += f"print('\\n'.join(forkable.obstacles({str(folder)!r}, [1, 2])))\n"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return done.stdout.split("\n")[:-1] if done.stdout.strip() else []


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import socket; s = socket.create_server(('127.0.0.1', 0))", "an open network socket at 127.0.0.1:"),
        ("import socket; s = socket.socketpair()", "an open pair of sockets"),
        ("import os; p = os.pipe()", "an open pipe"),
        ("import asyncio; l = asyncio.new_event_loop()", "an event loop (epoll)"),
        ("import sqlite3; d = sqlite3.connect('{folder}/x.db'); d.execute('create table t (a)')", "SQLite database"),
        ("import subprocess; p = subprocess.Popen(['sleep', '5'])", "the process"),
    ],
)
def test_each_obstacle_is_found_and_named(code: str, words: str, tmp_path: Path) -> None:
    found = find(code.replace("{folder}", str(tmp_path)), tmp_path)
    assert any(words in each for each in found), found


def test_open_files_and_mappings_are_none(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(1 << 16))
    code = "import mmap; f = open('{0}/data', 'rb'); m = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)"
    assert find(code.format(tmp_path), tmp_path) == []
