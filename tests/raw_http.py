"""HTTP by hand: a backend that answers with given bytes, and a client that sends given bytes. Neither knows better."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

TIMEOUT = 60.0  # seconds; of every wait in here

Headers = list[tuple[bytes, bytes]]
HOP_BY_HOP = {
    b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer",
    b"transfer-encoding", b"upgrade", b"http2-settings",
}  # fmt: skip


@dataclass
class Request:
    """A request as the backend saw it."""

    method: bytes
    target: bytes
    headers: Headers
    body: bytes


@dataclass
class Answer:
    """An answer as the client saw it: whether it came to its end, and which 1xx came before it."""

    status: int
    headers: Headers
    body: bytes
    complete: bool
    informational: list[int] = field(default_factory=list)

    def all(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.headers if each == name]


class Reader:
    """Reads lines and blocks from a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffer = bytearray()

    def fill(self) -> bool:
        data = self.sock.recv(1 << 16)
        self.buffer += data
        return bool(data)

    def line(self) -> bytes:
        while (end := self.buffer.find(b"\n")) < 0:
            if not self.fill():
                raise EOFError
        line = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return line.removesuffix(b"\r")

    def block(self, size: int) -> bytes:
        while len(self.buffer) < size and self.fill():
            pass
        block = bytes(self.buffer[:size])
        del self.buffer[:size]
        return block

    def head(self) -> tuple[bytes, Headers]:
        first = self.line()
        headers: Headers = []
        while line := self.line():
            name, _, value = line.partition(b":")
            headers.append((name.lower(), value.strip(b" \t")))
        return first, headers

    def chunked_piece(self) -> bytes:
        piece = self.block(int(self.line(), 16))
        self.line()
        return piece

    def chunked(self) -> tuple[bytes, bool]:
        body = bytearray()
        try:
            while size := int(self.line().partition(b";")[0], 16):
                piece = self.block(size)
                body += piece
                if len(piece) < size:
                    return bytes(body), False
                self.line()
            while self.line():
                pass  # trailers
        except (EOFError, ValueError, ConnectionError):
            return bytes(body), False
        return bytes(body), True


def read_answer(reader: Reader, method: bytes = b"GET") -> Answer:
    """Read one answer by the rules of RFC 9112 section 6.3. Raises ``EOFError`` where there is none."""
    informational = []
    while True:
        first, headers = reader.head()
        status = int(first.split(b" ")[1])
        if status >= 200:
            break
        informational.append(status)
    names = dict(headers)
    if method == b"HEAD" or status in (204, 304):
        body, complete = b"", True
    elif b"chunked" in names.get(b"transfer-encoding", b"").lower():
        body, complete = reader.chunked()
    elif b"content-length" in names:
        size = int(names[b"content-length"])
        try:
            body = reader.block(size)
        except ConnectionError:
            body = b""
        complete = len(body) == size
    else:
        with contextlib.suppress(ConnectionError):
            while reader.fill():
                pass
        body, complete = bytes(reader.buffer), True
    return Answer(status, headers, body, complete, informational)


def connect(url: str) -> socket.socket:
    """Open a connection to the server of a URL."""
    parts = urllib.parse.urlsplit(url)
    return socket.create_connection((parts.hostname or "", parts.port or 80), timeout=TIMEOUT)


def exchange(url: str, data: bytes, method: bytes = b"GET") -> Answer:
    """Send bytes on a new connection and read one answer."""
    with connect(url) as sock:
        with contextlib.suppress(ConnectionError):  # the answer may come before we have sent everything
            sock.sendall(data)
        return read_answer(Reader(sock), method)


class Peer:
    """One connection at the backend, for a behaviour: ``request`` read so far, ``sock`` to do as one likes."""

    def __init__(self, sock: socket.socket, backend: Backend) -> None:
        self.sock = sock
        self.reader = Reader(sock)
        self.backend = backend

    def read_head(self) -> Request:
        first, headers = self.reader.head()
        method, _, rest = first.partition(b" ")
        return Request(method, rest.rpartition(b" ")[0], headers, b"")

    def read_body(self, request: Request) -> None:
        names = dict(request.headers)
        if b"chunked" in names.get(b"transfer-encoding", b"").lower():
            request.body, complete = self.reader.chunked()
            if not complete:
                raise EOFError
        else:
            size = int(names.get(b"content-length", b"0"))
            request.body = self.reader.block(size)
            if len(request.body) < size:
                raise EOFError

    def wait_closed(self, seconds: float) -> float | None:
        """Wait until the other side has closed; return after how long, or ``None`` if it has not."""
        started = time.monotonic()
        while (left := started + seconds - time.monotonic()) > 0:
            if select.select([self.sock], [], [], left)[0]:
                try:
                    if not self.sock.recv(1 << 16):
                        return time.monotonic() - started
                except ConnectionError:
                    return time.monotonic() - started
        return None


Behaviour = Callable[[Peer, Request], None]


class Backend:
    """A server, one thread for each connection. ``behave`` gets each request's head and does the rest.

    When it returns, the connection waits for the next request; a behaviour that raises ``EOFError`` closes it.
    """

    def __init__(self, behave: Behaviour, port: int = 0, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.behave = behave
        self.requests: list[Request] = []
        self.connections = 0
        self.open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            sock.settimeout(TIMEOUT)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
            self.open.add(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(sock, server_side=True)
            peer = Peer(sock, self)
            with sock:
                while True:
                    request = peer.read_head()
                    if request.target == b"/ready":
                        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                        continue
                    self.requests.append(request)
                    self.behave(peer, request)
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self.open.discard(sock)

    def close(self) -> None:
        """Stop listening and close every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in tuple(self.open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def running_backend(behave: Behaviour, port: int = 0, *, tls: ssl.SSLContext | None = None) -> Iterator[Backend]:
    """Run a backend for the block."""
    backend = Backend(behave, port, tls=tls)
    try:
        yield backend
    finally:
        backend.close()
