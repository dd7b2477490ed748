"""Stopping as a load balancer and its clients see it: not ready first, nothing dropped, nobody holds it up for ever."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
from pathlib import Path

import pytest

from tests.integration.load import Answer, post, request, wait_until
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

MODEL = """
import os
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def load_model(code_dir):
    while os.path.exists(os.path.join(HERE, "hold-loading")):
        time.sleep(0.01)


def score_unstructured(model, data, query, **kwargs):
    if "wait" in query:
        name = os.path.join(HERE, query["wait"])
        open(name + ".begun", "w").close()
        while not os.path.exists(name + ".go"):
            time.sleep(0.01)
    return data[::-1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    return folder


def ask(server: Server, query: str = "") -> Answer:
    return post(f"{server.url}/predictUnstructured/{query}", b"abc", headers={"Content-Type": "text/plain"})


def ready(server: Server) -> Answer:
    return request("GET", f"{server.url}/readyz")


def connected(server: Server) -> socket.socket:
    parts = urllib.parse.urlsplit(server.url)
    assert parts.hostname
    return socket.create_connection((parts.hostname, parts.port or 80), timeout=30)


def test_the_probes_say_no_before_requests_are_refused(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--drain-delay", "1.5")
    parts = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    connection.request("GET", "/readyz")
    assert connection.getresponse().read() == b'{"message": "OK"}'
    stopped = time.monotonic()
    server.process.terminate()
    wait_until(lambda: ready(server).status == 503, "it says that it is not ready")
    assert ready(server).json()["code"] == "draining"
    answer = ask(server)
    assert (answer.status, answer.body) == (200, b"cba")
    # Clients that keep their connections come back through the balancer.
    wait_until(lambda: ask(server).headers.get("connection") == "close", "answers are the last of their connections")
    connection.request("POST", "/predictUnstructured/", b"abc", {"Content-Type": "text/plain"})
    response = connection.getresponse()
    assert (response.status, response.getheader("connection")) == (200, "close")
    assert server.process.wait(20) == 0, server.tail()
    assert time.monotonic() - stopped >= 1.5


def test_a_request_accepted_in_the_delay_is_answered_after_it(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--drain-delay", "0.5", "--workers", "2")
    server.process.terminate()
    wait_until(lambda: ready(server).status == 503, "it says that it is not ready")
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(ask(server, "?wait=gate")))
    asking.start()
    wait_until((folder / "gate.begun").exists, "the model has begun with the request")
    wait_until(lambda: ask(server).status == 503, "the delay is over")
    (folder / "gate.go").touch()
    asking.join(30)
    assert [answer.body for answer in answers] == [b"cba"]
    assert server.process.wait(20) == 0, server.tail()


def test_a_second_signal_in_the_delay_stops_at_once(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--drain-delay", "600")
    server.process.terminate()
    wait_until(lambda: ready(server).status == 503, "the first signal is taken")
    server.process.terminate()
    assert server.process.wait(15) == 0, server.tail()


def test_bodies_that_do_not_come_hold_up_a_stop_for_a_moment_only(serve: ServeFixture, folder: Path) -> None:
    """And their clients are told; those that come in time are answered."""
    server = serve(folder, "--drain-timeout", "120")
    head = b"POST /predictUnstructured/ HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n"
    with connected(server) as never, connected(server) as late, connected(server) as half_a_head:
        half_a_head.sendall(head[:40])
        for each in (never, late):
            each.sendall(head + b"a")
        wait_until(lambda: ask(server).status == 200, "they are being read")
        stopped = time.monotonic()
        server.process.terminate()
        wait_until(lambda: ask(server).status == 503, "it drains")
        late.sendall(b"bc")
        assert late.makefile("rb").read().endswith(b"cba")
        told = never.makefile("rb").read()
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b'"draining"' in told
        assert server.process.wait(30) == 0, server.tail()
    assert time.monotonic() - stopped < 60
    assert "Traceback" not in server.log()


def test_a_server_that_was_never_ready_does_not_wait_for_balancers(serve: ServeFixture, folder: Path) -> None:
    (folder / "hold-loading").touch()
    server = serve(folder, "--drain-delay", "600", ready=503)
    server.process.terminate()
    assert server.process.wait(20) == 0, server.tail()


def test_it_is_ready_when_as_many_workers_are_as_are_asked_for(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--workers", "2", "--min-ready", "2")
    workers = request("GET", f"{server.url}/stats/").json()["workers"]
    assert [worker["state"] for worker in workers] == ["ready", "ready"]
    (folder / "hold-loading").touch()
    os.kill(workers[0]["pid"], signal.SIGKILL)
    wait_until(lambda: ready(server).status == 503, "one is too few")
    assert "1 of 2 workers" in ready(server).json()["message"]
    assert ask(server).status == 200
    (folder / "hold-loading").unlink()
    wait_until(lambda: ready(server).status == 200, "both are back")


def test_a_signal_at_any_moment_of_the_start_is_a_stop_in_good_order(folder: Path) -> None:
    """Before uvicorn looks after signals, too."""
    command = [sys.executable, "-X", "importtime", "-m", "backline", "serve", str(folder), "--address", "127.0.0.1:0"]
    for awaited in (b"fastapi.applications", b"backline.api.run", b"Listening on"):
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
            assert process.stderr is not None
            for line in process.stderr:
                if awaited in line:
                    break
            process.terminate()
            rest = process.stderr.read()
            assert process.wait(20) == 0, (awaited, rest[-2000:])
        assert b"Traceback" not in rest, awaited
