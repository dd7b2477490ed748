"""Backends that the server starts: loading, dying, never ready, stopping, and what clients hear meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import request
from tests.raw_http import Reader, connect
from tests.serving import ServeFixture, Server, running_server

pytestmark = pytest.mark.slow

BACKEND = Path(__file__).parents[1] / "tiny_backend.py"
CHAT = json.dumps({"messages": []}).encode()


def command(*arguments: str) -> str:
    return shlex.join([sys.executable, str(BACKEND), "{port}", *arguments])


def start(serve: ServeFixture, *arguments: str, flags: tuple[str, ...] = (), ready: int | None = 200) -> Server:
    return serve(None, "--backend-kind", "vllm", "--backend-command", command(*arguments), *flags, ready=ready)


def info(server: Server) -> dict[str, Any]:
    content: dict[str, Any] = request("GET", f"{server.url}/info/").json()["backend"]
    return content


def wait_until(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_backend_is_started_found_ready_logged_and_stopped_with_the_server(serve: ServeFixture) -> None:
    server = start(serve, "--say", "hello from the backend", "--child")
    chat = request("POST", f"{server.url}/v1/chat/completions", CHAT)
    about = info(server)
    pid = about["process"]["pid"]
    assert chat.json()["choices"][0]["message"]["content"] == f"pid {pid}"
    assert (about["kind"], about["process"]["state"], about["unready"]) == ("vllm", "ready", None)
    assert about["metrics"] == about["url"] + "/metrics"
    assert "The backend is ready after" in server.log()
    assert "[backend] hello from the backend" in server.log()
    stats = request("GET", f"{server.url}/stats/").json()["backend"]
    assert stats["pid"] == pid
    assert stats["resident_bytes"] > 1 << 20
    child = int(server.log().partition("child ")[2].split()[0])
    assert is_alive(child)
    assert server.stop() == 0
    assert not is_alive(pid)
    assert not is_alive(child)


def test_while_it_loads_the_server_lives_and_says_how_it_goes(serve: ServeFixture) -> None:
    server = start(serve, "--load", "6", "--say", "hello", "--progress", ready=None)
    wait_until(lambda: "Loading weights: 20%" in info(server)["process"]["lastLines"])
    assert request("GET", f"{server.url}/livez").status == 200
    for path in ("/readyz", "/health/"):
        probe = request("GET", server.url + path)
        assert (probe.status, probe.json()["code"]) == (503, "backend_loading")
        assert probe.json()["message"].endswith("Last output of the backend:\n  hello\n  Loading weights: 20%")
    refused = request("POST", f"{server.url}/v1/chat/completions", CHAT)
    assert (refused.status, refused.json()["error"]["code"]) == (503, "backend_loading")
    assert refused.headers["x-should-retry"] == "true"
    assert refused.headers["retry-after"] == "1"
    server.wait_ready()
    assert "backend: still loading after 5 s: Loading weights: 20%" in server.log()


def test_it_is_started_again_when_it_dies_and_the_streams_under_way_are_cut_not_ended(serve: ServeFixture) -> None:
    server = start(serve, "--load", "1")
    first = info(server)["process"]["pid"]
    with connect(server.url) as sock:
        body = json.dumps({"stream": True, "events": 1000}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        sock.sendall(head + body)
        reader = Reader(sock)
        reader.head()
        reader.line()  # a chunk has come
        os.kill(first, signal.SIGKILL)
        assert reader.chunked()[1] is False
    server.wait_ready()
    wait_until(lambda: info(server)["process"]["pid"] not in (None, first))
    server.wait_ready()
    assert request("POST", f"{server.url}/chat/completions", CHAT).status == 200
    assert "is gone: killed by SIGKILL" in server.log()
    assert info(server)["process"]["restarts"] == 1
    loads = re.findall(r"the backend \(pid \d+\) is ready after ([0-9.]+) s", server.log())
    assert len(loads) == 2
    assert min(map(float, loads)) >= 1  # what the first one said of itself counts for nothing


def test_a_crash_loop_fails_the_backend_for_good_and_the_server_stays_where_it_was_asked_to(
    serve: ServeFixture,
) -> None:
    flags = ("--backend-max-restarts", "2", "--backend-restart-backoff", "0.1", "--with-error-server")
    server = start(serve, "--say", "no such model", "--exit", "3", flags=flags, ready=513)
    for path, status in (("/livez", 200), ("/health/", 513), ("/readyz", 513)):
        assert request("GET", server.url + path).status == status
    failed = request("POST", f"{server.url}/v1/chat/completions", CHAT)
    assert (failed.status, failed.json()["error"]["code"]) == (513, "backend_failed")
    assert "exited with code 3" in failed.json()["message"]
    assert "no such model" in failed.json()["message"]
    assert server.log().count("starting the backend") == 3


def test_one_that_dies_as_soon_as_it_is_ready_is_given_up_as_well(serve: ServeFixture) -> None:
    flags = ("--backend-max-restarts", "1", "--backend-restart-backoff", "0")
    server = start(serve, "--die-when-ready", flags=flags, ready=513)
    assert "dies soon after it is ready" in request("GET", f"{server.url}/health/").json()["message"]
    assert request("GET", f"{server.url}/livez").status == 200


def test_without_the_error_server_one_that_never_gets_ready_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    flags = ["--backend-command", command("--load", "600", "--say", "waiting"), "--backend-max-restarts", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "backline", "serve", "--address", "127.0.0.1:0", "--backend-kind", "vllm", *flags,
         "--backend-start-timeout", "1"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Error: the backend does not stay up: it was not ready within 1 s" in done.stderr
    assert "waiting" in done.stderr


def test_a_server_that_stops_while_the_backend_loads_takes_it_along(serve: ServeFixture) -> None:
    server = start(serve, "--late", "--load", "600", ready=None)
    wait_until(lambda: info(server)["process"]["pid"] is not None)
    pid = info(server)["process"]["pid"]
    assert server.stop() == 0
    assert not is_alive(pid)


def test_one_that_ignores_sigterm_is_killed(serve: ServeFixture) -> None:
    server = start(serve, "--ignore-term", flags=("--backend-stop-timeout", "0.5"))
    pid = info(server)["process"]["pid"]
    assert server.stop() == 0
    assert "did not stop within 0.5 s" in server.log()
    assert not is_alive(pid)


def test_a_second_signal_does_not_wait_for_one_that_ignores_sigterm(serve: ServeFixture) -> None:
    server = start(serve, "--ignore-term")
    pid = info(server)["process"]["pid"]
    server.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping the backend" in server.log())
    assert is_alive(pid)
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(10) == 130
    assert not is_alive(pid)


def test_streams_are_drained_before_the_backend_is_stopped(serve: ServeFixture) -> None:
    server = start(serve)
    with connect(server.url) as sock:
        body = json.dumps({"stream": True, "events": 20}).encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        sock.sendall(head + body)
        reader = Reader(sock)
        reader.head()
        server.process.send_signal(signal.SIGTERM)
        streamed, complete = reader.chunked()
    assert complete
    assert streamed.count(b"data: ") == 20
    assert server.stop() == 0


def test_the_backend_dies_with_a_server_that_is_killed(tmp_path: Path) -> None:
    flags = ("--backend-kind", "vllm", "--backend-command", command())
    with running_server(tmp_path / "server.log", None, *flags) as server:
        pid = info(server)["process"]["pid"]
        server.process.kill()
        wait_until(lambda: not is_alive(pid))


def test_a_flood_of_output_is_bounded_and_costs_nobody_an_answer(serve: ServeFixture) -> None:
    server = start(serve, "--flood", "200000", flags=("--worker-lines-per-second", "50"))
    assert request("POST", f"{server.url}/chat/completions", CHAT).status == 200
    assert server.stop() == 0
    assert "lines of output dropped" in server.log()
    assert server.log().count("[backend] line") < 2000


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_somebody_else_has_is_said_and_nobody_takes_him_for_the_backend(
    serve: ServeFixture, taken_port: int
) -> None:
    flags = ("--backend", f"http://127.0.0.1:{taken_port}", "--backend-max-restarts", "0", "--with-error-server")
    server = start(serve, flags=flags, ready=513)
    assert f"port {taken_port} is in use" in request("GET", f"{server.url}/health/").json()["message"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--backend-command", "no-such-program {port}"], "there is no program no-such-program"),
        (["--backend-command", "sleep 1"], "it is not said where the backend listens"),
        (["--backend-command", "sleep 'x"], "is no command"),
        (["--backend-command", " "], "the command is empty"),
        (["--backend-kind", "tgi"], "'tgi' is none of nim, vllm, triton, openai"),
        (["--backend-kind", "openai"], "it is not said where the backend listens"),
        (["--sidecar", "--backend-command", "sleep {port}"], "a sidecar starts no backend"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_started(flags: list[str], said: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "backline", "serve", *flags],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert said in done.stderr
    assert "Traceback" not in done.stderr
