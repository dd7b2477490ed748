"""``backline serve --shadow``: what the shadow does is counted and kept, and nobody who asks ever notices it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from backline.parity.store import Store
from backline.parity.summary import find_run, summarize
from tests.integration.parity_tools import parity
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

DEADLINE = 60.0
MODEL = """
import json

def load_model(code_dir):
    return "model"

def score_unstructured(model, data, query, **kwargs):
    numbers = json.loads(data)
    return json.dumps({"sum": sum(numbers) + (OFF if sum(numbers) > 10 else 0)}), {"mimetype": "application/json"}
"""


def folder(path: Path, off: float = 0) -> Path:
    path.mkdir()
    (path / "custom.py").write_text(f"OFF = {off}\n{MODEL}")
    (path / "model-metadata.yaml").write_text("name: sums\ntargetType: unstructured\ntype: inference\n")
    return path


def ask(url: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(
            "POST", "/predictUnstructured/", body, {"content-type": "application/json", **(headers or {})}
        )
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def told(server: Server) -> dict[str, Any]:
    parts = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request("GET", "/info")
        shadow: dict[str, Any] = json.loads(connection.getresponse().read())["shadow"]
        return shadow
    finally:
        connection.close()


def wait_for(server: Server, is_so: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + DEADLINE
    while not is_so(seen := told(server)):
        assert time.monotonic() < deadline, f"{seen}\n{server.tail()}"
        time.sleep(0.1)
    return seen


OUTCOMES = ("same", "different", "failed", "skipped", "dropped", "too_large")


def counted(seen: dict[str, Any]) -> int:
    return sum(seen[name] for name in OUTCOMES)


def ask_until_asked(server: Server) -> int:
    """Ask until the agent has the shadow at hand: what comes before that is dropped or failed. Return how often."""
    deadline = time.monotonic() + DEADLINE
    asked = 0
    while told(server)["same"] == 0:
        assert time.monotonic() < deadline, server.tail()
        ask(server.url, b"[1]")
        asked += 1
        time.sleep(0.1)
    return asked


class Other(BaseHTTPRequestHandler):
    """A shadow of another make. ``mode``: fail, answer, break off, or hang until ``let_go``."""

    protocol_version = "HTTP/1.1"
    mode = "fail"
    seen: dict[str, str]
    let_go = threading.Event()

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        type(self).seen = {name.lower(): value for name, value in self.headers.items()}
        if self.mode == "hang":
            self.let_go.wait(DEADLINE)
        if self.mode in ("fail", "answer"):
            self.send_response(500 if self.mode == "fail" else 200)
            self.send_header("content-length", "0")
            self.end_headers()
        else:
            self.close_connection = True


@contextlib.contextmanager
def other(mode: str) -> Iterator[str]:
    with other_handled_by(handler(mode)) as url:
        yield url


def handler(mode: str) -> type[Other]:
    return type("Handler", (Other,), {"mode": mode, "seen": {}, "let_go": threading.Event()})


@contextlib.contextmanager
def other_handled_by(handler: type[Other]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        handler.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_model_directory_is_mirrored_and_its_differences_are_counted_and_kept(
    serve: ServeFixture, tmp_path: Path
) -> None:
    store = tmp_path / "kept.sqlite"
    server = serve(
        folder(tmp_path / "main"), "--shadow", str(folder(tmp_path / "other", 0.5)), "--shadow-store", str(store)
    )
    asked = ask_until_asked(server)
    answers = [ask(server.url, json.dumps([number]).encode(), {"authorization": "s3cret"}) for number in range(1, 21)]
    refused = ask(server.url, b"{")
    assert answers == [(200, json.dumps({"sum": number}).encode()) for number in range(1, 21)]
    assert refused[0] >= 400
    seen = wait_for(server, lambda now: counted(now) == asked + 21)
    assert seen["different"] == 10
    assert seen["same"] >= 11
    assert server.stop() == 0
    with Store.open(store) as kept:
        summary = summarize(kept, find_run(kept, None))
    assert summary.run.kind == "shadow"
    assert summary.verdicts["different"] == seen["different"]
    assert [each.name for each in summary.differing_fields] == ["$.sum"]
    assert b"s3cret" not in store.read_bytes()
    done = parity("report", store)
    assert done.returncode == 1
    assert "$.sum" in done.stdout
    assert "answers differently" in server.log()


@pytest.mark.parametrize("mode", ["fail", "break", "hang", "dead", "deaf"])
def test_a_shadow_that_is_of_no_use_changes_no_answer(serve: ServeFixture, tmp_path: Path, mode: str) -> None:
    with contextlib.ExitStack() as stack:
        if mode in ("dead", "deaf"):
            taken = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            if mode == "dead":
                taken.close()
        else:
            url = stack.enter_context(other(mode))
        server = serve(
            folder(tmp_path / "main"), "--shadow", url, "--shadow-store", str(tmp_path / "s.sqlite"),
            "--shadow-timeout", "1",
        )  # fmt: skip
        for number in range(200):
            assert ask(server.url, json.dumps([number]).encode()) == (200, json.dumps({"sum": number}).encode())
        seen = wait_for(server, lambda now: now["failed"] + now["different"] + now["dropped"] > 0)
        assert seen["same"] == 0
        assert server.stop() == 0


def test_a_shadow_that_fails_is_asked_little_until_it_answers_again(serve: ServeFixture, tmp_path: Path) -> None:
    shadow = handler("fail")
    with other_handled_by(shadow) as url:
        server = serve(folder(tmp_path / "main"), "--shadow", url, "--shadow-store", str(tmp_path / "s.sqlite"))
        asked = 0
        while not told(server)["failing"]:
            assert asked < 5000, server.tail()
            assert ask(server.url, b"[1]")[0] == 200
            asked += 1
        before = told(server)
        for _ in range(300):
            assert ask(server.url, b"[1]") == (200, b'{"sum": 1}')
        seen = wait_for(server, lambda now: counted(now) == asked + 300)
        assert seen["skipped"] > before["skipped"]
        assert seen["different"] >= 20
        assert "asked at most 10 times a second" in server.log()
        shadow.mode = "answer"
        deadline = time.monotonic() + DEADLINE
        while told(server)["failing"]:
            assert time.monotonic() < deadline, server.tail()
            assert ask(server.url, b"[1]")[0] == 200
        skipped = told(server)["skipped"]
        for _ in range(30):
            assert ask(server.url, b"[1]")[0] == 200
        assert told(server)["skipped"] == skipped
        assert server.stop() == 0


def test_what_a_hanging_shadow_leaves_waiting_is_bounded_and_counted(serve: ServeFixture, tmp_path: Path) -> None:
    with other("hang") as url:
        server = serve(folder(tmp_path / "main"), "--shadow", url, "--shadow-store", str(tmp_path / "s.sqlite"))
        body = json.dumps([1] * 100_000).encode()
        for _ in range(400):  # 120 MB, and the shadow has answered nothing
            assert ask(server.url, body)[0] == 200
        seen = wait_for(server, lambda now: now["dropped"] > 0)
        assert seen["same"] == seen["different"] == 0
        assert server.stop() == 0


def test_an_agent_that_is_killed_is_replaced_and_nothing_of_it_stays(serve: ServeFixture, tmp_path: Path) -> None:
    store = tmp_path / "s.sqlite"
    server = serve(folder(tmp_path / "main"), "--shadow", str(folder(tmp_path / "o")), "--shadow-store", str(store))
    ask_until_asked(server)
    (agent,) = [pid for pid in descendants(server.process.pid) if b"shadow_agent" in command_of(pid)]
    family = [agent, *descendants(agent)]
    assert len(family) > 1
    same = told(server)["same"]
    os.kill(agent, signal.SIGKILL)
    deadline = time.monotonic() + DEADLINE
    while any(is_running(pid) for pid in family):
        assert time.monotonic() < deadline, family
        time.sleep(0.05)
    assert ask(server.url, b"[1]")[0] == 200
    while told(server)["same"] <= same:
        assert time.monotonic() < deadline, server.tail()
        ask(server.url, b"[1]")
        time.sleep(0.1)
    family = descendants(server.process.pid)
    assert server.stop() == 0
    assert not any(is_running(pid) for pid in family)


def test_only_a_sample_is_mirrored_and_nothing_that_comes_from_a_shadow(serve: ServeFixture, tmp_path: Path) -> None:
    with other("fail") as url:
        server = serve(
            folder(tmp_path / "main"), "--shadow", url, "--shadow-sample", "0.2",
            "--shadow-store", str(tmp_path / "s.sqlite"),
        )  # fmt: skip
        for _ in range(300):
            ask(server.url, b"[1]", {"x-backline-shadow": "1"})
        assert counted(told(server)) == 0
        for _ in range(300):
            ask(server.url, b"[1]")
        seen = wait_for(server, lambda now: counted(now) >= 25)
        assert counted(seen) < 120


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--shadow", "/nowhere"], "--shadow /nowhere: there is no such directory"),
        (["--shadow", "ftp://x"], "--shadow ftp://x"),
        (["--shadow", "http://127.0.0.1:1", "--shadow-store", "/nowhere/s.sqlite"], "--shadow-store"),
        (["--shadow", "http://127.0.0.1:1", "--shadow-sample", "2"], "--shadow-sample"),
    ],
)
def test_a_shadow_that_cannot_be_is_told_before_anything_is_served(
    serve: ServeFixture, tmp_path: Path, flags: list[str], words: str
) -> None:
    with pytest.raises(AssertionError) as failed:
        serve(folder(tmp_path / "main"), *flags)
    assert words in str(failed.value)


def descendants(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid:
                    found += [int(entry.name), *descendants(int(entry.name))]
    return found


def command_of(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
