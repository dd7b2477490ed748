"""Clients that send when they mean to, whether or not the server keeps up: ``python -m benchmarks.open_loop SPEC``.

A request's time counts from when it was due, so one that had to wait for a free connection, or for this program, is not
the quicker for it. One process with one loop over ``epoll``: a request costs it some 40 µs.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import random
import resource
import select
import socket
import sys
import time
from typing import Any

PATIENCE = 30.0  # seconds for the last answers
_NEAR = 0.0002  # seconds that are slept at a time while the next request is nearly due


@dataclasses.dataclass(frozen=True, kw_only=True)
class Load:
    """What is sent. ``paths`` take turns; with a ``rate`` of 0 each connection sends as soon as it has an answer."""

    port: int
    rate: float
    seconds: float
    connections: int
    paths: list[str]
    body: str = ""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    sources: list[str] = dataclasses.field(default_factory=lambda: ["127.0.0.1"])


@dataclasses.dataclass(kw_only=True)
class Outcome:
    """What came of it: per request the path, the status (0: no answer), when it was due, and the seconds it took."""

    requests: list[tuple[str, int, float, float]] = dataclasses.field(default_factory=list)
    retry_after: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    codes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    closed: int = 0  # connections, by the server


class _Connection:
    __slots__ = ("data", "due", "path", "sock", "wanted")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.wanted = 0
        self.due = 0.0
        self.path = ""


class OpenLoop:
    """One run of a load."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._outcome = Outcome()
        self._poll = select.epoll()
        self._all: dict[int, _Connection] = {}
        self._free: collections.deque[_Connection] = collections.deque()
        self._late: collections.deque[tuple[float, str]] = collections.deque()
        self._busy = 0
        self._opened = 0
        body = load.body.encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in load.headers.items())
        self._requests = {}
        for path in load.paths:
            if path == "/livez":
                self._requests[path] = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
            else:
                head = f"POST {path} HTTP/1.1\r\nHost: a\r\n{more}Content-Length: {len(body)}\r\n\r\n"
                self._requests[path] = head.encode() + body

    def run(self) -> Outcome:
        """Send it all, and wait for the answers."""
        load = self._load
        for _ in range(min(load.connections, 64) if load.rate else load.connections):
            self._free.append(self._connect())
        began = time.perf_counter()
        end, due, turn = began + load.seconds, began, 0
        while True:
            now = time.perf_counter()
            if load.rate:
                while due <= now and due < end:
                    self._late.append((due, load.paths[turn % len(load.paths)]))
                    turn += 1
                    due += random.expovariate(load.rate)
            elif now < end:
                while self._free:
                    self._send(self._free.popleft(), now, load.paths[turn % len(load.paths)])
                    turn += 1
            while self._late and (self._free or len(self._all) < load.connections):
                self._send(self._free.popleft() if self._free else self._connect(), *self._late.popleft())
            if now >= end and ((not self._busy and not self._late) or now >= end + PATIENCE):
                break
            self._read(due - now if load.rate and due < end else 0.1)
        for connection in self._all.values():
            if connection.path:
                self._outcome.requests.append((connection.path, 0, connection.due, now - connection.due))
        self._outcome.requests += [(path, 0, at, now - at) for at, path in self._late]
        self._outcome.requests = [
            (path, status, at - began, taken) for path, status, at, taken in self._outcome.requests
        ]
        for connection in self._all.values():
            connection.sock.close()
        self._poll.close()
        return self._outcome

    def _connect(self) -> _Connection:
        sources = self._load.sources  # each is a client, to the server
        source = sources[self._opened % len(sources)]
        self._opened += 1
        sock = socket.create_connection(("127.0.0.1", self._load.port), source_address=(source, 0))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._all[sock.fileno()] = _Connection(sock)
        self._poll.register(sock, select.EPOLLIN)
        return connection

    def _send(self, connection: _Connection, due: float, path: str) -> None:
        connection.due, connection.path, connection.data, connection.wanted = due, path, b"", 0
        self._busy += 1
        try:
            connection.sock.sendall(self._requests[path])
        except OSError:
            self._answered(connection, 0)
            self._drop(connection)

    def _read(self, until_due: float) -> None:
        near = until_due < 0.002
        for descriptor, _ in self._poll.poll(0 if near else min(until_due - 0.001, 0.1)):
            connection = self._all[descriptor]
            try:
                data = connection.sock.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                self._outcome.closed += 1
                if connection.path:
                    self._answered(connection, 0)
                elif connection in self._free:
                    self._free.remove(connection)
                self._drop(connection)
                continue
            connection.data = connection.data + data if connection.data else data
            if not connection.wanted:
                head = connection.data.find(b"\r\n\r\n")
                if head < 0:
                    continue
                lower = connection.data[:head].lower()
                start = lower.index(b"content-length:") + 15
                stop = lower.find(b"\r\n", start)
                connection.wanted = head + 4 + int(lower[start : stop if stop > 0 else head])
            if len(connection.data) >= connection.wanted:
                self._answered(connection, int(connection.data[9:12]))
                if b"connection: close" in connection.data[:400].lower():
                    self._outcome.closed += 1
                    self._drop(connection)
                    if not self._load.rate:
                        self._free.append(self._connect())
                else:
                    self._free.append(connection)
        if near and until_due > 0:
            time.sleep(min(until_due, _NEAR))

    def _answered(self, connection: _Connection, status: int) -> None:
        now = time.perf_counter()
        self._outcome.requests.append((connection.path, status, connection.due, now - connection.due))
        if status not in {0, 200}:
            head, _, body = connection.data.partition(b"\r\n\r\n")
            for line in head.split(b"\r\n"):
                if line.lower().startswith(b"retry-after:"):
                    self._outcome.retry_after[line[12:].strip().decode()] += 1
            place = body.find(b'"code": "')
            self._outcome.codes[body[place + 9 : body.find(b'"', place + 9)].decode() if place > 0 else "?"] += 1
        connection.path = ""
        self._busy -= 1

    def _drop(self, connection: _Connection) -> None:
        del self._all[connection.sock.fileno()]
        connection.sock.close()


def main() -> int:
    """Run the load that the command line describes as JSON; print what came of it."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    described: dict[str, Any] = json.loads(sys.argv[1])
    outcome = OpenLoop(Load(**described)).run()
    json.dump(vars(outcome), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
