"""What a backend or a client can do wrong: the documented error comes of it, and no harm to the next request."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.raw_http import (
    TIMEOUT,
    Answer,
    Backend,
    Peer,
    Reader,
    Request,
    connect,
    exchange,
    read_answer,
    running_backend,
)
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

CLIENTS = ("http1", "aiohttp", "httpx2", "httpx")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CLOSED_WITHIN = 0.25  # seconds from a client's leaving to the end of its connection to the backend


def behave(peer: Peer, request: Request) -> None:
    """Do what the path says."""
    action = request.target.partition(b"?")[0].removeprefix(b"/").decode().replace("-", "_")
    ACTIONS[action](peer, request)


def ok(peer: Peer, request: Request) -> None:
    peer.read_body(request)
    peer.sock.sendall(OK)


def close(peer: Peer, request: Request) -> None:
    raise EOFError


def reset(peer: Peer, request: Request) -> None:
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    raise EOFError


def garbage(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n\r\n")
    raise EOFError


def binary(peer: Peer, request: Request) -> None:
    peer.sock.sendall(bytes(range(256)) * 4)
    raise EOFError


def endless_headers(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\n")
    while True:
        peer.sock.sendall(b"X-More: and more and more and more\r\n" * 100)


def endless_header(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nX-More: ")
    while True:
        peer.sock.sendall(b"and more and more and more " * 100)


def endless_informational(peer: Peer, request: Request) -> None:
    while True:
        peer.sock.sendall(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)


def two_lengths(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 5\r\n\r\nok")
    raise EOFError


def half_a_head(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
    raise EOFError


def switching(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: Upgrade\r\n\r\n")
    raise EOFError


def status_999(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 999 Go Away\r\nContent-Length: 0\r\n\r\n")


def short_body(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    raise EOFError


def cut_chunks(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    raise EOFError


def bad_chunk(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nxyz\r\n")
    peer.wait_closed(TIMEOUT)
    raise EOFError


def silent(peer: Peer, request: Request) -> None:
    """Say nothing until the other side gives up; note how long that took from the moment named ``LEFT``."""
    peer.read_body(request)
    note_closing(peer)


def stalled(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
    note_closing(peer)


def trickle(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        while peer.wait_closed(0.005) is None:
            peer.sock.sendall(b"4\r\nmore\r\n")
    CLOSINGS.append(time.monotonic())
    raise EOFError


def flood(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            peer.sock.sendall(b"10000\r\n%b\r\n" % bytes(1 << 16))
    CLOSINGS.append(time.monotonic())
    raise EOFError


def swallow(peer: Peer, request: Request) -> None:
    with contextlib.suppress(OSError, EOFError):
        peer.read_body(request)
    CLOSINGS.append(time.monotonic())
    raise EOFError


def early(peer: Peer, request: Request) -> None:
    """Answer before the body is here, and take no more of it."""
    peer.sock.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    peer.wait_closed(TIMEOUT)
    raise EOFError


def redirect(peer: Peer, request: Request) -> None:
    peer.sock.sendall(b"HTTP/1.1 307 Elsewhere\r\nLocation: " + peer.backend.url.encode() + b"/ok\r\n")
    peer.sock.sendall(b"Set-Cookie: a=1\r\nContent-Length: 0\r\n\r\n")


def one_answer_too_many(peer: Peer, request: Request) -> None:
    peer.read_body(request)
    peer.sock.sendall(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    peer.wait_closed(0.5)


def note_closing(peer: Peer) -> None:
    if peer.wait_closed(TIMEOUT) is not None:
        CLOSINGS.append(time.monotonic())
    raise EOFError


CLOSINGS: list[float] = []
ACTIONS: dict[str, Callable[[Peer, Request], None]] = {
    action.__name__: action
    for action in (
        ok, close, reset, garbage, binary, endless_headers, endless_header, endless_informational, two_lengths,
        half_a_head, switching, status_999, short_body, cut_chunks, bad_chunk, silent, stalled, trickle, flood, swallow,
        early, redirect, one_answer_too_many,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running_backend(behave) as running:
        yield running


@pytest.fixture(scope="module", params=CLIENTS)
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def front(client: str, serve_for_module: ServeFixture, backend: Backend) -> Server:
    return serve_for_module(None, *flags(backend, client, "--backend-timeout", "1", "--backend-idle-timeout", "1"))


def flags(backend: Backend, client: str, *more: str) -> list[str]:
    return ["--backend", backend.url, "--backend-client", client, "--backend-ready-path", "/ready", *more]


def get(server: Server, action: str, *, method: str = "GET", headers: str = "", body: bytes = b"") -> Answer:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    head = f"{method} /directAccess/{action} HTTP/1.1\r\nHost: front\r\n{headers}{length}\r\n"
    return exchange(server.url, head.encode() + body, method.encode())


def expect_error(answer: Answer, status: int, code: str) -> str:
    content = json.loads(answer.body)
    assert (answer.status, content["code"]) == (status, code), content
    assert content["message"].startswith("ERROR: ")
    assert content["request_id"].encode() in answer.all(b"x-request-id")
    return str(content["message"])


def wait_for_log(server: Server, text: str) -> None:
    """Wait for a line of the log, which is written beside the answer, not before it."""
    deadline = time.monotonic() + 10
    while text not in server.log():
        assert time.monotonic() < deadline, f"{text!r} is not in the log"
        time.sleep(0.01)


def expect_ok(server: Server) -> None:
    answer = get(server, "ok")
    assert (answer.status, answer.body) == (200, b"ok")


BROKEN = (
    "close", "reset", "garbage", "binary", "endless-headers", "endless-header", "two-lengths", "half-a-head",
    "switching", "status-999",
)  # fmt: skip


@pytest.mark.parametrize("action", BROKEN)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_answer_that_is_none_is_502_and_the_next_one_is_right(front: Server, action: str, method: str) -> None:
    answer = get(front, action, method=method, body=b"x" if method == "POST" else b"")
    expect_error(answer, 502, "backend_broken")
    expect_ok(front)


def test_endless_informational_answers_are_502_or_too_slow(front: Server) -> None:
    # The libraries read 1xx answers without end, so it is our own limit of time that ends it.
    assert get(front, "endless-informational").status in (502, 504)
    expect_ok(front)


@pytest.mark.parametrize("action", ["short-body", "cut-chunks", "bad-chunk"])
def test_an_answer_that_breaks_off_is_never_taken_for_a_whole_one(front: Server, action: str) -> None:
    answer = get(front, action)
    assert (answer.status, answer.complete) == (200, False) or answer.status == 502
    expect_ok(front)
    wait_for_log(front, "backend_broken")


def test_a_backend_that_says_nothing_is_504(front: Server) -> None:
    started = time.monotonic()
    message = expect_error(get(front, "silent"), 504, "backend_too_slow")
    assert "within 1 s (--backend-timeout)" in message
    assert 0.9 < time.monotonic() - started < 5
    expect_ok(front)


def test_an_answer_that_stands_still_is_cut_off(front: Server) -> None:
    answer = get(front, "stalled")
    assert (answer.status, answer.complete, answer.body) == (200, False, b"half")
    wait_for_log(front, "--backend-idle-timeout")
    expect_ok(front)


def test_a_body_that_stops_coming_is_408(front: Server) -> None:
    with connect(front.url) as sock:
        sock.sendall(b"POST /directAccess/ok HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        expect_error(read_answer(Reader(sock)), 408, "client_too_slow")
    expect_ok(front)


def test_a_redirect_is_passed_back_and_its_cookie_not_kept(front: Server, backend: Backend) -> None:
    backend.requests.clear()
    answer = get(front, "redirect")
    assert (answer.status, answer.all(b"location")) == (307, [backend.url.encode() + b"/ok"])
    expect_ok(front)
    assert [request.target for request in backend.requests] == [b"/redirect", b"/ok"]
    assert not [value for name, value in backend.requests[-1].headers if name == b"cookie"]


def test_a_second_answer_to_one_request_is_given_to_nobody(client: str, front: Server) -> None:
    if client.startswith("httpx"):
        pytest.xfail("h11 keeps it for the next request on the connection, and httpx does not ask")
    for _ in range(20):
        answer = get(front, "one-answer-too-many")
        assert (answer.status, answer.body) in ((200, b"ok"), (502, answer.body))
        expect_ok(front)


def test_an_early_answer_to_a_body_that_is_still_coming_gets_through(client: str, front: Server) -> None:
    if client.startswith("httpx"):
        pytest.skip("httpx reads the answer after it has sent the body")
    with connect(front.url) as sock:
        sock.sendall(b"POST /directAccess/early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
        answer = read_answer(Reader(sock))
    assert (answer.status, answer.body) == (403, b"no")
    expect_ok(front)


def test_a_backend_that_is_down_is_502_and_comes_back_without_a_restart(client: str, serve: ServeFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = serve(
        None, "--backend", f"http://127.0.0.1:{port}", "--backend-client", client, "--backend-ready-path", "/ready",
        ready=503,
    )  # fmt: skip
    message = expect_error(get(server, "ok"), 502, "backend_down")
    assert f"http://127.0.0.1:{port}" in message
    assert "refused" in message
    ready = exchange(server.url, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n")
    expect_error(ready, 503, "backend_unready")
    assert exchange(server.url, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
    with running_backend(behave, port):
        expect_ok(server)
        server.wait_ready(200)
    expect_error(get(server, "ok"), 502, "backend_down")
    server.wait_ready(503)


def test_more_requests_than_connections_are_503_with_a_time(client: str, backend: Backend, serve: ServeFixture) -> None:
    server = serve(None, *flags(backend, client, "--backend-connections", "2", "--backend-timeout", "20"))
    with contextlib.ExitStack() as held:
        before = len(backend.requests)
        for _ in range(2):
            sock = held.enter_context(connect(server.url))
            sock.sendall(b"GET /directAccess/silent HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_for(lambda: len(backend.requests) == before + 2)
        answer = get(server, "ok")
        expect_error(answer, 503, "backend_busy")
        assert answer.all(b"retry-after") == [b"1"]
    wait_for(lambda: get(server, "ok").status == 200)


def test_a_stopped_backend_is_504_and_goes_on_where_it_was(client: str, serve: ServeFixture, tmp_path: Path) -> None:
    with backend_process(tmp_path) as (process, url):
        server = serve(
            None,
            "--backend",
            url,
            "--backend-client",
            client,
            "--backend-timeout",
            "1",
            "--backend-connect-timeout",
            "1",
        )
        assert get(server, "x").status == 200
        os.kill(process.pid, signal.SIGSTOP)
        try:
            expect_error(get(server, "x"), 504, "backend_too_slow")
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert get(server, "x").status == 200
        process.kill()
        process.wait()
        expect_error(get(server, "x"), 502, "backend_down")
    with backend_process(tmp_path, url):
        assert get(server, "x").status == 200


@contextlib.contextmanager
def backend_process(directory: Path, url: str = "") -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """Run a backend in a process of its own, which can be stopped and killed."""
    (directory / "x").write_text("ok")
    port = url.rpartition(":")[2]
    if not port:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1", "--protocol", "HTTP/1.1"]
    process = subprocess.Popen(command, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: can_connect(int(port)))
        yield process, f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def can_connect(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


# Clients that leave


@pytest.fixture(scope="module")
def patient(client: str, serve_for_module: ServeFixture, backend: Backend) -> Server:
    """A front without time-outs that could do what is to be shown here."""
    return serve_for_module(None, *flags(backend, client))


LEAVING = {
    "before the first byte": (b"GET /directAccess/silent HTTP/1.1\r\nHost: a\r\n\r\n", 0),
    "before the first byte, after a body": (
        b"POST /directAccess/silent HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", 0,
    ),
    "in a stream that trickles": (b"GET /directAccess/trickle HTTP/1.1\r\nHost: a\r\n\r\n", 20),
    "in a stream that says nothing": (b"GET /directAccess/stalled HTTP/1.1\r\nHost: a\r\n\r\n", 20),
    "in a flood": (b"GET /directAccess/flood HTTP/1.1\r\nHost: a\r\n\r\n", 1000),
    "in the middle of its body": (
        b"POST /directAccess/swallow HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf", 0,
    ),
    "in the middle of its chunks": (
        b"POST /directAccess/swallow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("rst", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("moment", LEAVING)
def test_a_client_that_leaves_takes_the_connection_to_the_backend_with_it(
    patient: Server, backend: Backend, moment: str, rst: bool
) -> None:
    data, wanted = LEAVING[moment]
    for wait in (0.0, 0.15):  # before and after it is looked for clients that have left
        CLOSINGS.clear()
        before = len(backend.requests)
        with connect(patient.url) as sock:
            sock.sendall(data)
            while wanted > 0:
                wanted -= len(sock.recv(1 << 16))
            wait_for(lambda before=before: len(backend.requests) > before)  # type: ignore[misc]
            time.sleep(wait)  # the moment is what is varied
            if rst:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        left = time.monotonic()
        wait_for(lambda: bool(CLOSINGS))
        assert CLOSINGS[0] - left < CLOSED_WITHIN + 0.1, "and a little for a busy machine"
    expect_ok(patient)
    stats = exchange(patient.url, b"GET /stats HTTP/1.1\r\nHost: a\r\n\r\n")
    assert json.loads(stats.body)["backend"]["in_flight"] == 0


def test_clients_that_leave_at_random_moments_disturb_nobody_else(patient: Server, backend: Backend) -> None:
    """Streams go on beside them, complete and in order, and no connection is left at the end."""
    chance = random.Random(7)
    stop = threading.Event()
    failures: list[str] = []

    def stay() -> None:
        while not stop.is_set():
            answer = get(patient, "ok", method="POST", body=b"x" * 1000)
            if (answer.status, answer.body) != (200, b"ok"):
                failures.append(f"{answer.status} {answer.body!r}")

    stayers = [threading.Thread(target=stay) for _ in range(4)]
    for thread in stayers:
        thread.start()
    moments = list(LEAVING.values())
    for _ in range(200):
        with connect(patient.url) as sock:
            sock.sendall(chance.choice(moments)[0])
            sock.settimeout(chance.random() * 0.02)
            with contextlib.suppress(TimeoutError):
                sock.recv(1 << 16)
    stop.set()
    for thread in stayers:
        thread.join()
    assert not failures
    wait_for(lambda: json.loads(exchange(patient.url, b"GET /stats HTTP/1.1\r\nHost: a\r\n\r\n").body)["backend"]
             == {"in_flight": 0, "ready": True})  # fmt: skip
    expect_ok(patient)
