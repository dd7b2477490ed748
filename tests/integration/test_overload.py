"""More requests than the model can answer: what is taken on is answered in time, the rest is refused at once."""

from __future__ import annotations

import collections
import socket
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks.open_loop import Load, OpenLoop, Outcome
from tests.integration.load import post, request
from tests.raw_http import Reader
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

TEXT = {"Content-Type": "text/plain"}

MODEL = """
import os
import time


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    while data.startswith("wait for ") and not os.path.exists(data[9:]):
        time.sleep(0.01)
    time.sleep(0.05)
    return data
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "custom.py").write_text(MODEL)
    (tmp_path / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    return tmp_path


def overload(server: Server, rate: float, *, connections: int, deadline: str) -> Outcome:
    port = urllib.parse.urlsplit(server.url).port
    assert port
    headers = {"Content-Type": "text/plain", "X-Request-Timeout": deadline}
    load = Load(
        port=port,
        rate=rate,
        seconds=3,
        connections=connections,
        paths=["/predictUnstructured/"],
        body="hello",
        headers=headers,
    )
    return OpenLoop(load).run()


def statuses(outcome: Outcome) -> collections.Counter[int]:
    return collections.Counter(status for _, status, _, _ in outcome.requests)


def test_the_model_works_for_those_who_can_be_answered_in_time(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    outcome = overload(server, 100, connections=2000, deadline="2")  # five times what the model can do
    seen = statuses(outcome)
    assert set(seen) <= {200, 503, 504}, seen
    assert outcome.codes["queue_full"] == sum(outcome.retry_after.values()) > 0
    stats = request("GET", f"{server.url}/stats/").json()
    assert stats["restarts"] == 0, "work ran over a deadline"
    # Queued to the end of their time, nearly all of its answers would come too late.
    assert seen[200] > seen[504], seen


def test_probes_are_answered_while_clients_come_back_at_once(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--queue", "4")
    port = urllib.parse.urlsplit(server.url).port
    assert port
    load = Load(
        port=port,
        rate=0,
        seconds=2,
        connections=40,
        paths=["/predictUnstructured/", "/livez"],
        body="hello",
        headers={"Content-Type": "text/plain"},
    )
    outcome = OpenLoop(load).run()
    probed = collections.Counter(status for path, status, _, _ in outcome.requests if path == "/livez")
    asked = collections.Counter(status for path, status, _, _ in outcome.requests if path != "/livez")
    assert set(probed) == {200}
    assert set(asked) == {200, 503}
    assert outcome.closed == 0, "a refusal is no reason to hang up"


def wait_until_busy(server: Server) -> None:
    deadline = time.monotonic() + 30
    while request("GET", f"{server.url}/stats/").json()["workers"][0]["state"] != "busy":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_body_that_would_be_refused_is_not_waited_for(serve: ServeFixture, folder: Path) -> None:
    """And the connection is as good as before, once the rest of it has come."""
    server = serve(folder, "--queue", "0")
    parts = urllib.parse.urlsplit(server.url)
    gate = folder / "gate"
    head = b"POST /predictUnstructured/ HTTP/1.1\r\nhost: a\r\ncontent-type: text/plain\r\ncontent-length: "
    with ThreadPoolExecutor() as pool, socket.create_connection((parts.hostname or "", parts.port or 0), 30) as sock:
        running = pool.submit(post, f"{server.url}/predictUnstructured/", f"wait for {gate}".encode(), headers=TEXT)
        try:
            wait_until_busy(server)
            sock.sendall(head + b"5\r\n\r\nhe")
            reader = Reader(sock)
            status, headers = reader.head()
            assert (status, dict(headers)[b"retry-after"]) == (b"HTTP/1.1 503 Service Unavailable", b"1")
            assert b"queue_full" in reader.block(int(dict(headers)[b"content-length"]))
            sock.sendall(b"llo" + b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\n")
            assert reader.head()[0] == b"HTTP/1.1 200 OK"
        finally:
            gate.touch()
        assert running.result(30).status == 200
