"""Direct access as clients meet it: paths, WebSockets, large bodies, draining, attempts to get past it, set-up."""

from __future__ import annotations

import contextlib
import http
import json
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import pytest
from websockets import Origin
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as open_socket
from websockets.sync.server import ServerConnection
from websockets.sync.server import serve as serve_sockets

from tests.raw_http import Backend, Peer, Reader, Request, connect, exchange, read_answer, running_backend
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

CLIENTS = ("http1", "aiohttp", "httpx2", "httpx")
ECHO = (
    "def load_model(code_dir):\n    return 1\ndef score_unstructured(model, data, query, **kwargs):\n    return data\n"
)
GIB = 1 << 30
MAX_GROWTH = 32 << 20


def behave(peer: Peer, request: Request) -> None:
    if request.target == b"/download":
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % GIB)
        for _ in range(GIB >> 20):
            peer.sock.sendall(bytes(1 << 20))
        return
    if request.target == b"/upload":
        size = int(dict(request.headers)[b"content-length"])
        while size:
            size -= len(peer.reader.block(min(size, 1 << 20)))
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
        return
    peer.read_body(request)
    if request.target == b"/slow":
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(20):
            peer.sock.sendall(b"4\r\nmore\r\n")
            time.sleep(0.05)
        peer.sock.sendall(b"0\r\n\r\n")
        return
    body = json.dumps(
        {"target": request.target.decode(), "headers": [[n.decode(), v.decode("latin-1")] for n, v in request.headers],
         "body": request.body.decode("latin-1")}
    ).encode()  # fmt: skip
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running_backend(behave) as running:
        yield running


@pytest.fixture(scope="module")
def front(serve_for_module: ServeFixture, backend: Backend) -> Server:
    return serve_for_module(None, "--backend", backend.url + "/base/", "--backend-ready-path", "/ok")


def ask(server: Server, data: bytes) -> tuple[int, dict[str, Any]]:
    answer = exchange(server.url, data)
    return answer.status, json.loads(answer.body)


# What gets to the backend


@pytest.mark.parametrize("mount", ["directAccess", "nim"])
def test_both_routes_lead_below_the_backends_own_path(front: Server, mount: str) -> None:
    status, seen = ask(front, f"GET /{mount}/v1/models?a=1 HTTP/1.1\r\nHost: front\r\n\r\n".encode())
    assert (status, seen["target"]) == (200, "/base/v1/models?a=1")
    headers = dict(seen["headers"])
    assert headers["host"].startswith("127.0.0.1:")
    assert headers["x-forwarded-host"] == "front"
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert not {"accept", "accept-encoding", "user-agent", "content-type", "connection"} & set(headers)


@pytest.mark.parametrize(
    "target",
    [
        "/directAccess/../x", "/directAccess/%2e%2e/x", "/nim/a/..%2f..%2fx", "/nim/..;/x", "/nim/a\\b",
        "/nim/%0d%0aX:1", "/direct%41ccess/x", "http://other.example/directAccess/../x",
    ],
)  # fmt: skip
def test_ways_out_of_the_path_are_refused_before_the_backend_hears_of_them(
    front: Server, backend: Backend, target: str
) -> None:
    backend.requests.clear()
    status, content = ask(front, f"GET {target} HTTP/1.1\r\nHost: front\r\n\r\n".encode())
    assert (status, content["code"]) == (400, "bad_request")
    assert not backend.requests


@pytest.mark.parametrize(
    ("target", "reached"),
    [
        ("/directAccess//other.example/x", "/base/other.example/x"),
        ("/directAccess/http://other.example/x", "/base/http://other.example/x"),
        ("/directAccess/@other.example/", "/base/@other.example/"),
        ("http://other.example/directAccess/x", "/base/x"),
        ("http://user:pw@other.example/nim/x", "/base/x"),
    ],
)
def test_what_names_another_host_reaches_the_backend_and_nobody_else(front: Server, target: str, reached: str) -> None:
    status, seen = ask(front, f"GET {target} HTTP/1.1\r\nHost: other.example\r\n\r\n".encode())
    assert (status, seen["target"]) == (200, reached)


SMUGGLED = {
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "one length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "a signed length": b"Content-Length: +3\r\n\r\nabc",
    "length and chunks": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "almost chunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"X: a\r\n Transfer-Encoding: chunked\r\n\r\n",
    "a bare line feed": b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare carriage return": b"X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a NUL": b"X: a\0b\r\n\r\n",
    "a chunk size with a sign": b"Transfer-Encoding: chunked\r\n\r\n+3\r\nabc\r\n0\r\n\r\n",
    "a chunk size with 0x": b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk size too large": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than it says": b"Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("attempt", SMUGGLED)
def test_framing_that_can_be_read_in_two_ways_is_refused(front: Server, backend: Backend, attempt: str) -> None:
    backend.requests.clear()
    hidden = b"GET /directAccess/hidden HTTP/1.1\r\nHost: a\r\n\r\n"
    data = b"POST /directAccess/x HTTP/1.1\r\nHost: a\r\n" + SMUGGLED[attempt] + hidden
    assert exchange(front.url, data).status == 400
    assert ask(front, b"GET /directAccess/next HTTP/1.1\r\nHost: a\r\n\r\n")[1]["target"] == "/base/next"
    assert [each.target for each in backend.requests if each.target != b"/base/x"] == [b"/base/next"]


def test_a_coding_that_belongs_to_the_connection_is_refused(front: Server, backend: Backend) -> None:
    backend.requests.clear()
    head = b"POST /directAccess/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"
    assert ask(front, head)[1]["code"] == "bad_request"
    assert not backend.requests


def test_trailers_of_a_request_do_not_become_headers(front: Server) -> None:
    body = b"3\r\nabc\r\n0\r\nAuthorization: Bearer evil\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    head = b"POST /directAccess/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    status, seen = ask(front, head + body)
    assert (status, seen["body"]) == (200, "abc")
    assert "evil" not in str(seen)
    assert "6.6.6.6" not in str(seen)


def test_requests_sent_together_are_answered_in_order(front: Server) -> None:
    with connect(front.url) as sock:
        for number in range(20):
            sock.sendall(b"POST /directAccess/%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc" % number)
        reader = Reader(sock)
        targets = [json.loads(read_answer(reader).body)["target"] for _ in range(20)]
    assert targets == [f"/base/{number}" for number in range(20)]


def test_every_answer_of_the_server_has_one_date(front: Server) -> None:
    for target in (b"/directAccess/x", b"/directAccess/../x", b"/livez", b"/docs", b"/no-such-route"):
        answer = exchange(front.url, b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % target)
        assert len(answer.all(b"date")) == 1, target


# Large bodies


@pytest.mark.parametrize("client", CLIENTS)
def test_a_gibibyte_each_way_does_not_stay_in_memory(client: str, backend: Backend, serve: ServeFixture) -> None:
    server = serve(None, "--backend", backend.url, "--backend-client", client, "--backend-ready-path", "/ok")
    ask(server, b"GET /directAccess/x HTTP/1.1\r\nHost: a\r\n\r\n")
    before = peak_memory(server)
    with connect(server.url) as sock:
        sock.sendall(b"POST /directAccess/upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % GIB)
        for _ in range(GIB >> 20):
            sock.sendall(bytes(1 << 20))
        assert read_answer(Reader(sock)).body == b"done"
    with connect(server.url) as sock:
        sock.sendall(b"GET /directAccess/download HTTP/1.1\r\nHost: a\r\n\r\n")
        reader = Reader(sock)
        assert reader.head()[0] == b"HTTP/1.1 200 OK"
        left = GIB - len(reader.buffer)
        while left:
            left -= len(sock.recv(1 << 20))
    grown = peak_memory(server) - before
    print(f"{client}: {grown / 2**20:.1f} MiB")
    assert grown < MAX_GROWTH


def test_a_slow_reader_holds_the_backend_back(backend: Backend, serve: ServeFixture) -> None:
    server = serve(None, "--backend", backend.url, "--backend-ready-path", "/ok")
    before = peak_memory(server)
    with connect(server.url) as sock:
        sock.sendall(b"GET /directAccess/download HTTP/1.1\r\nHost: a\r\n\r\n")
        sock.recv(1000)
        time.sleep(1)  # a gibibyte takes less on this interface
        assert peak_memory(server) - before < MAX_GROWTH


def peak_memory(server: Server) -> int:
    """Return the most that the process ever had resident."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


# WebSockets


def serve_socket(connection: ServerConnection) -> None:
    path = connection.request.path if connection.request is not None else ""
    if path.startswith("/close"):
        connection.close(4321, "because")
        return
    if path.startswith("/drop"):
        connection.socket.close()
        return
    if path.startswith("/headers"):
        assert connection.request is not None
        connection.send(json.dumps([list(each) for each in connection.request.headers.raw_items()]))
    if path.startswith("/path"):
        connection.send(path)
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            connection.send(message)
    CLOSED.append((connection.close_code, connection.close_reason))


CLOSED: list[tuple[int | None, str | None]] = []


def answer_socket(connection: ServerConnection, request: Any) -> Any:
    if request.path.startswith("/redirect"):
        response = connection.respond(http.HTTPStatus.FOUND, "")
        response.headers["Location"] = "ws://127.0.0.1:1/"
        return response
    return connection.respond(http.HTTPStatus.FORBIDDEN, "no\n") if request.path.startswith("/no") else None


def select_subprotocol(connection: ServerConnection, offered: Any) -> Any:
    return offered[-1] if offered else None


@pytest.fixture(scope="module")
def sockets(serve_for_module: ServeFixture) -> Iterator[str]:
    with serve_sockets(
        serve_socket,
        "127.0.0.1",
        0,
        process_request=answer_socket,
        select_subprotocol=select_subprotocol,
        max_size=1 << 26,
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            port = server.socket.getsockname()[1]
            front = serve_for_module(None, "--backend", f"http://127.0.0.1:{port}", ready=None)
            yield front.url.replace("http", "ws", 1) + "/directAccess"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.track
def test_messages_go_both_ways_in_order_as_text_and_as_bytes(sockets: str) -> None:
    with open_socket(sockets + "/echo", compression=None) as socket:
        messages: list[str | bytes] = ["hello", b"\x00\xff", "", b"", "Grüße €", bytes(1 << 20), "x" * (1 << 20)]
        for message in messages * 3:
            socket.send(message)
            assert socket.recv(20) == message


def test_headers_path_and_subprotocol_cross(sockets: str) -> None:
    with open_socket(
        sockets + "/path;a=b/%2F?q=%zz&r=1", subprotocols=["v2", "v1"], additional_headers={"X-A": "1", "Cookie": "a=1"}  # type: ignore[list-item]
    ) as socket:  # fmt: skip
        assert socket.recv(20) == "/path;a=b/%2F?q=%zz&r=1"
        assert socket.subprotocol == "v1"
    with open_socket(
        sockets + "/headers", additional_headers={"X-A": "1"}, origin=Origin("http://o.example")
    ) as socket:
        seen = [(name.lower(), value) for name, value in json.loads(socket.recv(20))]
        assert ("x-a", "1") in seen
        assert ("origin", "http://o.example") in seen
        assert ("x-forwarded-for", "127.0.0.1") in seen
        for name in ("host", "upgrade", "connection", "sec-websocket-key", "sec-websocket-version", "user-agent"):
            assert len([each for each in seen if each[0] == name]) == 1, name


def test_the_backends_close_reaches_the_client(sockets: str) -> None:
    with open_socket(sockets + "/close") as socket, pytest.raises(ConnectionClosed):
        socket.recv(20)
    assert (socket.close_code, socket.close_reason) == (4321, "because")


def test_a_backend_that_breaks_off_is_1014(sockets: str) -> None:
    with open_socket(sockets + "/drop") as socket, pytest.raises(ConnectionClosed):
        socket.recv(20)
    assert socket.close_code == 1014


def test_the_clients_close_reaches_the_backend(sockets: str) -> None:
    CLOSED.clear()
    with open_socket(sockets + "/echo") as socket:
        socket.close(4001, "enough")
    deadline = time.monotonic() + 20
    while not CLOSED:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert CLOSED == [(4001, "enough")]


def test_a_client_that_vanishes_ends_the_backends_connection_at_once(sockets: str) -> None:
    CLOSED.clear()
    with open_socket(sockets + "/echo") as socket:
        socket.send("x")
        assert socket.recv(20) == "x"
        left = time.monotonic()
        socket.socket.shutdown(SHUT_RDWR)
        while not CLOSED:
            assert time.monotonic() < left + 20
            time.sleep(0.005)
        assert time.monotonic() - left < 0.35


def test_a_stream_of_messages_to_a_client_that_has_gone_is_no_error(serve: ServeFixture) -> None:
    def flood(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                connection.send(bytes(10_000))
        ended.set()

    ended = threading.Event()
    with serve_sockets(flood, "127.0.0.1", 0) as backend:
        thread = threading.Thread(target=backend.serve_forever)
        thread.start()
        try:
            server = serve(None, "--backend", f"http://127.0.0.1:{backend.socket.getsockname()[1]}", ready=None)
            with open_socket(server.url.replace("http", "ws", 1) + "/nim/x") as socket:
                socket.recv(20)
                socket.socket.shutdown(SHUT_RDWR)
                assert ended.wait(20)
            assert "Exception" not in server.log()
        finally:
            backend.shutdown()
            thread.join()


def test_client_and_backend_that_close_at_once_are_no_error(serve: ServeFixture) -> None:
    def close_soon(connection: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            connection.recv(20)
            connection.close(4000)

    with serve_sockets(close_soon, "127.0.0.1", 0) as backend:
        thread = threading.Thread(target=backend.serve_forever)
        thread.start()
        try:
            server = serve(None, "--backend", f"http://127.0.0.1:{backend.socket.getsockname()[1]}", ready=None)
            for number in range(40):
                with open_socket(server.url.replace("http", "ws", 1) + "/nim/x") as socket:
                    socket.send("x")
                    time.sleep(number / 10_000)  # the one or the other is first
                    socket.close(4001)
            assert server.stop() == 0
            assert "Traceback" not in server.log()
        finally:
            backend.shutdown()
            thread.join()


@pytest.mark.parametrize(("path", "status"), [("/no", 403), ("/redirect", 302), ("/../x", 400)])
def test_a_handshake_that_is_refused_is_answered_as_the_backend_answered(sockets: str, path: str, status: int) -> None:
    handshake = (
        f"GET /directAccess{path} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    answer = exchange(sockets.replace("ws", "http", 1), handshake.encode())
    assert answer.status == status
    assert len(answer.all(b"date")) == 1
    if status == 403:
        assert answer.body == b"no\n"
    if status == 302:
        assert answer.all(b"location") == [b"ws://127.0.0.1:1/"]


def test_a_client_that_leaves_before_the_handshake_is_through_ends_it(serve: ServeFixture) -> None:
    closed: list[float] = []
    asked = threading.Event()

    def say_nothing(peer: Peer, request: Request) -> None:
        asked.set()
        if peer.wait_closed(20) is not None:
            closed.append(time.monotonic())
        raise EOFError

    with running_backend(say_nothing) as backend:
        server = serve(None, "--backend", backend.url, "--backend-ready-path", "/ready")
        with connect(server.url) as sock:
            sock.sendall(
                b"GET /nim/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
            )
            assert asked.wait(20)
        left = time.monotonic()
        while not closed:
            assert time.monotonic() < left + 20
            time.sleep(0.005)
        assert closed[0] - left < 0.35
    assert "Exception" not in server.log()


def test_without_its_backend_a_handshake_is_502(serve: ServeFixture) -> None:
    server = serve(None, "--backend", "http://127.0.0.1:1", ready=503)
    with pytest.raises(InvalidStatus) as refused, open_socket(server.url.replace("http", "ws", 1) + "/nim/x"):
        pass
    assert refused.value.response.status_code == 502
    assert json.loads(refused.value.response.body or b"{}")["code"] == "backend_down"


# TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the certificate is made with openssl, which is not here")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


@pytest.mark.parametrize("client", CLIENTS)
def test_a_backend_with_tls_is_asked_only_where_its_certificate_is_right(
    client: str, serve: ServeFixture, certificate: tuple[Path, Path]
) -> None:
    key, chain = certificate
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    with running_backend(behave, tls=context) as backend:
        url = f"https://localhost:{backend.port}"
        flags = ["--backend", url, "--backend-client", client, "--backend-ready-path", "/ok"]
        trusting = serve(None, *flags, env={"SSL_CERT_FILE": str(chain)})
        for _ in range(3):
            status, seen = ask(trusting, b"POST /nim/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            assert (status, seen["body"]) == (200, "abc")
        wary = serve(None, *flags, ready=503)
        status, content = ask(wary, b"GET /nim/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (status, content["code"]) == (502, "backend_down")
        assert "certificate" in content["message"].lower()


# The server around it


def test_without_a_backend_every_method_gets_the_contracts_400(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(ECHO)
    server = serve(tmp_path, "--target-type", "unstructured")
    for method in (b"GET", b"POST", b"OPTIONS", b"DELETE"):
        status, content = ask(server, method + b" /directAccess/v1/models HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (status, content["code"]) == (400, "bad_request")
        assert "--backend" in content["message"]


def test_a_model_and_a_backend_are_served_side_by_side(serve: ServeFixture, backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(ECHO)
    server = serve(
        tmp_path, "--target-type", "unstructured", "--backend", backend.url, "--backend-ready-path", "/ok",
        env={"URL_PREFIX": "/m"},
    )  # fmt: skip
    answer = exchange(server.url, b"POST /m/predictUnstructured/ HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
    assert (answer.status, answer.body) == (200, b"hi")
    assert ask(server, b"GET /m/nim/x HTTP/1.1\r\nHost: a\r\n\r\n")[1]["target"] == "/x"
    assert exchange(server.url, b"GET /directAccess/x HTTP/1.1\r\nHost: a\r\n\r\n").status == 404


def test_a_sidecar_has_probes_and_information_and_no_model(front: Server, backend: Backend) -> None:
    assert exchange(front.url, b"GET /readyz HTTP/1.1\r\nHost: a\r\n\r\n").status == 200
    _, info = ask(front, b"GET /info/ HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (info["backend"]["url"], info["backend"]["unready"]) == (backend.url + "/base", None)
    status, content = ask(front, b"POST /predict/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
    assert (status, content["code"]) == (404, "operation_unavailable")


def test_what_is_under_way_when_the_server_stops_comes_to_its_end(serve: ServeFixture, backend: Backend) -> None:
    server = serve(None, "--backend", backend.url, "--backend-ready-path", "/ok")
    with connect(server.url) as sock:
        sock.sendall(b"GET /directAccess/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        reader = Reader(sock)
        reader.head()
        server.process.terminate()
        status, content = ask(server, b"GET /directAccess/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (status, content["code"]) == (503, "draining")
        assert reader.chunked() == (b"more" * 20, True)
    assert server.process.wait(20) == 0


def test_a_stream_that_outlives_the_drain_time_is_cut_off(serve: ServeFixture, backend: Backend) -> None:
    server = serve(None, "--backend", backend.url, "--backend-ready-path", "/ok", "--drain-timeout", "0.2")
    with connect(server.url) as sock:
        sock.sendall(b"GET /directAccess/slow HTTP/1.1\r\nHost: a\r\n\r\n")
        reader = Reader(sock)
        reader.head()
        server.process.terminate()
        _, complete = reader.chunked()
        assert not complete
    assert server.process.wait(20) == 0
