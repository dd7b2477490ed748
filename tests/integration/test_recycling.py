"""Workers that grow, age, hang or are stopped are replaced, and nobody who asks notices."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import Answer, asking, post, request, wait_until
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

MODEL = """
import os
import re
import threading
import time

LEAK = []


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    time.sleep(float(query.get("seconds", 0)))
    if "leak" in query:
        LEAK.append(b"x" * (1 << 20))
    if "hang" in query:  # a thread that never lets go of the interpreter, and so nothing else runs
        threading.Thread(target=lambda: time.sleep(0.2) or re.match("(a|aa)+$", "a" * 60 + "b"), daemon=True).start()
    if "threads" in query:
        return " ".join(os.environ.get(name, "-") for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"))
    return data[::-1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    return folder


def ask(server: Server, text: str = "abc", query: str = "") -> Answer:
    url = f"{server.url}/predictUnstructured/{query}"
    return post(url, text.encode(), headers={"Content-Type": "text/plain"})


def stats(server: Server) -> Any:
    return request("GET", f"{server.url}/stats/").json()


def pids(server: Server) -> set[int]:
    return {worker["pid"] for worker in stats(server)["workers"] if worker["state"] in ("ready", "busy")}


def clients(server: Server, number: int, query: str = "") -> AbstractContextManager[list[str]]:
    """Ask all the time, each with a text of its own; yields what was wrong."""

    def problem_of(text: str) -> str | None:
        answer = ask(server, text, query)
        is_right = (answer.status, answer.body) == (200, text[::-1].encode())
        return None if is_right else f"{answer.status} {answer.body!r}"

    return asking(number, problem_of)


@pytest.mark.parametrize(
    ("reason", "flags", "query"),
    [
        ("requests", ["--recycle-requests", "10"], ""),
        ("age", ["--recycle-age", "1"], ""),
        ("memory", ["--recycle-memory", "80MiB"], "?leak=1&seconds=0.02"),
    ],
)
def test_workers_are_replaced_in_time_and_no_request_notices(
    serve: ServeFixture, folder: Path, reason: str, flags: list[str], query: str
) -> None:
    server = serve(folder, "--workers", "2", "--min-ready", "2", *flags)
    before = pids(server)
    with clients(server, 4, query) as wrong:
        least = 2
        while len(before & pids(server)) or stats(server)["recycled"].get(reason, 0) < 3:
            least = min(least, len(pids(server)))
            time.sleep(0.02)
    assert wrong == []
    assert least == 2  # each successor was there before
    assert stats(server)["restarts"] == 0


def test_a_stopped_process_is_replaced_and_its_request_is_answered_by_another(
    serve: ServeFixture, folder: Path
) -> None:
    server = serve(folder, "--workers", "2", "--min-ready", "2")
    before = pids(server)
    answers: list[Answer] = []
    late = threading.Thread(target=lambda: answers.append(ask(server, "busy", "?seconds=1")))
    late.start()
    wait_until(lambda: "busy" in {worker["state"] for worker in stats(server)["workers"]}, "one is busy")
    for pid in before:
        os.killpg(pid, signal.SIGSTOP)
    late.join(60)
    assert [answer.body for answer in answers] == [b"ysub"]
    wait_until(lambda: len(pids(server)) == 2 and not pids(server) & before, "both are replaced")
    assert ask(server).body == b"cba"
    assert "stopped by a signal" in server.log()


def test_a_worker_that_hangs_while_it_is_idle_is_replaced(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--heartbeat-interval", "0.3", "--heartbeat-timeout", "1")
    before = pids(server)
    assert ask(server, query="?hang=1").body == b"cba"
    wait_until(lambda: bool(pids(server)) and not pids(server) & before, "it is replaced")
    assert ask(server).body == b"cba"
    assert "it hung" in server.log()


def test_numeric_libraries_get_their_share_of_the_cores(serve: ServeFixture, folder: Path) -> None:
    share = max(1, len(os.sched_getaffinity(0)) // 2)
    assert ask(serve(folder, "--workers", "2"), query="?threads=1").body.split()[0] <= b"%d" % share
    assert ask(serve(folder, "--math-threads", "3"), query="?threads=1").body == b"3 3"
    mine = {"OMP_NUM_THREADS": "5"}
    assert ask(serve(folder, "--workers", "2", env=mine), query="?threads=1").body == b"5 -"
