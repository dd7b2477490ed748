"""Clients that take their time, send too much or come in too great a number cost others nothing, and are given up."""

from __future__ import annotations

import contextlib
import json
import socket
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.load import Answer, post, request
from tests.raw_http import Reader
from tests.serving import ServeFixture, Server, running_server

pytestmark = pytest.mark.slow

MODEL = """
def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    if data.startswith("wait for "):
        import os, time
        while not os.path.exists(data[9:]):
            time.sleep(0.01)
    if data == "large":
        return b"x" * 64_000_000
    return data[::-1]
"""
TEXT = {"Content-Type": "text/plain"}
LIMITS = (
    "[limits]\nhead_timeout = 1\nbody_timeout = 1\nmin_body_rate = 1000\nsend_timeout = 2\nmax_connections = 20\n"
    "max_bytes_in_flight = '1 MiB'\n"
)
PATIENCE = 30.0  # seconds


def make_folder(folder: Path, limits: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    (folder / "backline.toml").write_text(limits)
    return folder


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = make_folder(tmp_path_factory.mktemp("model") / "m", LIMITS)
    with running_server(folder.parent / "log", folder) as server:
        yield server


@contextlib.contextmanager
def connection(server: Server) -> Iterator[socket.socket]:
    parts = urllib.parse.urlsplit(server.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=PATIENCE) as sock:
        yield sock


def answer_on(sock: socket.socket) -> Answer:
    """Return the answer that the server sends of itself before it hangs up."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while data := sock.recv(1 << 16):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = dict(line.decode().lower().split(": ", 1) for line in lines)
    return Answer(int(status.split()[1]), headers, body)


def send_slowly(sock: socket.socket, data: bytes) -> Answer:
    """Send a byte every tenth of a second until the server answers; then return its answer."""
    sock.settimeout(0.1)
    for byte in data:
        with contextlib.suppress(TimeoutError):
            if sock.recv(1, socket.MSG_PEEK) or True:
                break
        with contextlib.suppress(ConnectionError):
            sock.send(bytes([byte]))
    sock.settimeout(PATIENCE)
    return answer_on(sock)


def test_headers_that_come_byte_by_byte_are_refused_after_their_time(impatient: Server) -> None:
    with connection(impatient) as sock:
        answer = send_slowly(sock, b"GET /livez HTTP/1.1\r\nhost: x\r\nx-slow: " + b"x" * 1000)
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "client_too_slow")
    assert answer.headers["connection"] == "close"


def test_a_body_that_comes_byte_by_byte_is_refused_after_its_time(impatient: Server) -> None:
    with connection(impatient) as sock:
        sock.sendall(b"POST /predictUnstructured/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        answer = send_slowly(sock, b"x" * 1000)
    assert (answer.status, json.loads(answer.body)["code"]) == (408, "client_too_slow")


def test_a_long_body_at_a_fair_pace_has_all_the_time_it_needs(impatient: Server) -> None:
    body = b"abcdefgh" * 1000
    with connection(impatient) as sock:
        sock.sendall(
            b"POST /predictUnstructured/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/plain\r\n"
            b"content-length: %d\r\n\r\n" % len(body)
        )
        begun = time.monotonic()
        for start in range(0, len(body), 500):
            sock.sendall(body[start : start + 500])
            time.sleep(0.2)  # this is the pace, 2,500 bytes a second
        assert time.monotonic() - begun > 3
        answer = answer_on(sock)
    assert (answer.status, answer.body) == (200, body[::-1])


def test_a_client_that_never_reads_its_answer_is_given_up(impatient: Server) -> None:
    with connection(impatient) as sock:
        sock.sendall(b"POST /predictUnstructured/ HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\n")
        sock.sendall(b"content-length: 5\r\n\r\nlarge")
        wait_for_log(impatient, "a client does not read its answer")
        received = 0
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(1 << 20):
                received += len(data)
    assert received < 64_000_000


def wait_for_log(server: Server, text: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while text not in server.log():
        assert time.monotonic() < deadline, server.tail()
        time.sleep(0.05)


def test_headers_over_the_bound_are_refused_while_they_come(impatient: Server) -> None:
    with connection(impatient) as sock:
        with contextlib.suppress(ConnectionError):
            for _ in range(10_000):
                sock.sendall(b"GET /livez HTTP/1.1\r\n" if _ == 0 else b"x-more: " + b"x" * 10_000 + b"\r\n")
        with contextlib.suppress(IndexError):  # no answer: it was lost, as the client would not listen
            assert answer_on(sock).status == 431
    answer = request("GET", f"{impatient.url}/livez", headers={"X-Long": "x" * 200_000})
    assert (answer.status, answer.json()["code"]) == (431, "head_too_large")


@pytest.mark.parametrize("cut", [55_000, 60_000])
def test_headers_that_are_over_the_bound_with_their_last_piece_are_refused(impatient: Server, cut: int) -> None:
    head = b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n"
    with connection(impatient) as sock:
        sock.sendall(head[:cut])
        assert request("GET", f"{impatient.url}/livez").status == 200  # what was sent before has been read
        sock.sendall(head[cut:])
        assert answer_on(sock).status == 431


def test_what_is_no_http_is_answered_in_the_documented_shape(impatient: Server) -> None:
    with connection(impatient) as sock:
        sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n")
        answer = answer_on(sock)
    assert (answer.status, json.loads(answer.body)["code"]) == (400, "bad_request")


def test_bodies_that_are_still_coming_count_as_held(impatient: Server) -> None:
    head = b"POST /predictUnstructured/ HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
    with connection(impatient) as first, connection(impatient) as second:
        first.sendall(head + b"x" * 700_000)
        second.sendall(head + b"x" * 900_000)
        refused = answer_of_either(first, second)
    assert (refused.status, json.loads(refused.body)["code"]) == (503, "queue_full")
    deadline = time.monotonic() + PATIENCE
    while (answer := post(f"{impatient.url}/predictUnstructured/", b"x" * 900_000, headers=TEXT)).status != 200:
        assert (answer.status, time.monotonic() < deadline) == (503, True)
        time.sleep(0.05)


def answer_of_either(*socks: socket.socket) -> Answer:
    for sock in socks:
        sock.settimeout(PATIENCE)
    answers = []
    for sock in socks:
        reader = Reader(sock)
        status = int(reader.line().split()[1])
        length = 0
        while line := reader.line():
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        answers.append(Answer(status, {}, reader.block(length)))
    return min(answers, key=lambda answer: answer.status != 503)


def test_with_too_many_connections_probes_are_answered_all_the_same(impatient: Server) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connection(impatient)) for _ in range(40)]
        for sock in slow:
            sock.sendall(b"GET /livez HTTP/1.1\r\nx-slow: ")
        refused = post(f"{impatient.url}/predictUnstructured/", b"abc", headers=TEXT)
        assert (refused.status, refused.json()["code"]) == (503, "too_many_connections")
        assert refused.headers["retry-after"] == "1"
        assert request("GET", f"{impatient.url}/readyz").status == 200
    deadline = time.monotonic() + PATIENCE
    while post(f"{impatient.url}/predictUnstructured/", b"abc", headers=TEXT).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_idle_connections_make_room_for_new_ones(impatient: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(30):
            sock = stack.enter_context(connection(impatient))
            sock.sendall(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            assert sock.recv(15) == b"HTTP/1.1 200 OK"
        assert post(f"{impatient.url}/predictUnstructured/", b"abc", headers=TEXT).body == b"cba"


def test_a_client_over_its_share_is_told_so_and_others_are_not(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(make_folder(tmp_path / "m"), "--max-per-client", "1", "--workers", "2")
    parts = urllib.parse.urlsplit(server.url)
    url = f"{server.url}/predictUnstructured/"
    gate = tmp_path / "gate"
    body = f"wait for {gate}".encode()
    with socket.create_connection((parts.hostname or "", parts.port or 0), PATIENCE) as sock:
        sock.sendall(
            b"POST /predictUnstructured/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/plain\r\n"
            b"content-length: %d\r\n\r\n%s" % (len(body), body)
        )
        deadline = time.monotonic() + PATIENCE
        while (refused := post(url, b"abc", headers=TEXT)).status == 200:
            assert time.monotonic() < deadline
        assert (refused.status, refused.json()["code"]) == (429, "client_over_share")
        other = socket.create_connection((parts.hostname or "", parts.port or 0), PATIENCE, ("127.0.0.2", 0))
        with other:
            other.sendall(
                b"POST /predictUnstructured/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: text/plain\r\n"
                b"content-length: 3\r\n\r\nabc"
            )
            assert answer_on(other).body == b"cba"
        gate.touch()
        assert answer_on(sock).status == 200
    assert post(url, b"abc", headers=TEXT).body == b"cba"
