"""Load in two forms: clients that wait for their answers (closed loop), and requests at a rate (open loop).

With clients that wait, a server that stands still for a second is asked less in that second, and what a user would have
waited is not in the figures: coordinated omission. At a rate, each request has a time at which it is due, and its time
is counted from then, whether there was a connection for it or not.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import itertools
import ssl
import time
import urllib.parse
from array import array
from collections.abc import Sequence
from typing import Self

from backline.bench.connection import Connection
from backline.errors import ConfigError

_CONNECT_TIMEOUT = 5.0
_TIMER = 0.002  # seconds that a timer may be late: a request sent that late is counted from when it was sent
_MOST_CONNECTIONS = 512  # of the open loop


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where requests go, and the requests themselves, as they are on the wire."""

    url: str
    wires: tuple[bytes, ...]


@dataclasses.dataclass(slots=True, kw_only=True)
class Measured:
    """What came of one load. Latencies are in seconds, in the order in which answers came."""

    seconds: float
    latencies: array[float]
    finished: array[float]
    """When each answer came, in seconds since the load began."""
    statuses: collections.Counter[int]
    """Answers by status; 0 is a connection that was lost or an answer that did not come in time."""
    received: int
    unsent: int
    """Open loop: requests that were due and had no connection until the end; they are in the latencies as far as they
    had waited."""
    generator_cpu: float
    """Of one core, what the generator itself took."""

    @property
    def rate(self) -> float:
        """Good answers a second."""
        return self.good / self.seconds if self.seconds else 0.0

    @property
    def good(self) -> int:
        """Answers with 2xx."""
        return sum(count for status, count in self.statuses.items() if 200 <= status < 300)

    @property
    def bad(self) -> int:
        """All others, with those that were never sent."""
        return self.statuses.total() - self.good + self.unsent


def to_wire(url: str, path: str, body: bytes, content_type: str, headers: Sequence[tuple[str, str]]) -> bytes:
    """Return a POST as it is on the wire."""
    parts = urllib.parse.urlsplit(url)
    lines = [f"POST {parts.path.rstrip('/')}{path} HTTP/1.1", f"Host: {parts.netloc}"]
    lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *(f"{name}: {v}" for name, v in headers)]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


class Generator:
    """Puts load on a target. ``async with`` it: it owns its connections."""

    def __init__(self, target: Target, *, timeout: float) -> None:
        self._target = target
        self._timeout = timeout
        self._wires = itertools.cycle(target.wires)
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._measured = _empty()
        self._began = 0.0
        self._last_good = 0.0
        self._deadline = 0.0
        self._closed_loop = False
        self._backlog: collections.deque[float] = collections.deque()
        self._lost = 0
        self._progress = asyncio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        for connection in self._connections:
            connection.abort()

    async def closed(self, clients: int, seconds: float, *, most: int | None = None) -> Measured:
        """Let this many clients send one request after another, ``most`` requests at most. Raises ``ConfigError``."""
        await self._connect(clients)
        self._begin(seconds, closed_loop=True)
        left = itertools.count(1)
        cpu = time.process_time()

        def go_on() -> bool:
            return time.perf_counter() < self._deadline and (most is None or next(left) <= most)

        self._go_on = go_on
        for connection in self._idle[:clients]:
            if go_on():
                self._send(connection, time.perf_counter())
        while time.perf_counter() < self._deadline and (most is None or self._measured.statuses.total() < most):
            await self._wait(self._deadline)
            await self._replace_lost(clients)
        return await self._end(cpu)

    async def open(self, rate: float, seconds: float) -> Measured:
        """Send requests at a rate, evenly spaced, whatever comes of them. Raises ``ConfigError``."""
        await self._connect(min(_MOST_CONNECTIONS, max(8, int(rate * 0.05))))
        self._begin(seconds, closed_loop=False)
        self._go_on = lambda: False
        cpu = time.process_time()
        for number in itertools.count():
            due = self._began + number / rate
            now = time.perf_counter()
            if due >= self._deadline:
                break
            if due > now + _TIMER / 4:
                await asyncio.sleep(due - now)
            elif number % 32 == 0:
                await asyncio.sleep(0)  # behind: answers are to be read all the same
            self._due(due)
            if self._backlog and len(self._connections) < _MOST_CONNECTIONS:
                await self._connect(min(_MOST_CONNECTIONS, len(self._connections) + 8))
        return await self._end(cpu)

    # --- sending

    def _due(self, due: float) -> None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                self._send(connection, due)
                return
        self._backlog.append(due)

    def _send(self, connection: Connection, intended: float) -> None:
        if connection in self._idle:
            self._idle.remove(connection)
        connection.send(next(self._wires), intended, time.perf_counter())

    def _finished(self, connection: Connection) -> None:
        """An answer is there, or will never be."""
        now = time.perf_counter()
        measured = self._measured
        started = connection.sent if connection.sent - connection.intended < _TIMER else connection.intended
        measured.latencies.append(now - started)
        measured.finished.append(now - self._began)
        measured.statuses[connection.status] += 1
        if 200 <= connection.status < 300:
            self._last_good = now
        measured.received += connection.size
        if connection.closed:
            self._connections.discard(connection)
            self._lost += 1
        elif self._closed_loop:
            if self._go_on():
                connection.send(next(self._wires), now, now)
                return
            self._idle.append(connection)
        elif self._backlog:
            connection.send(next(self._wires), self._backlog.popleft(), now)
            return
        else:
            self._idle.append(connection)
        self._progress.set()

    # --- life

    def _begin(self, seconds: float, *, closed_loop: bool) -> None:
        self._measured = _empty()
        self._closed_loop = closed_loop
        self._backlog.clear()
        self._lost = 0
        self._began = time.perf_counter()
        self._deadline = self._began + seconds

    async def _wait(self, until: float) -> None:
        self._progress.clear()
        try:
            async with asyncio.timeout(min(0.2, max(0.0, until - time.perf_counter()))):
                await self._progress.wait()
        except TimeoutError:
            pass

    async def _replace_lost(self, clients: int) -> None:
        while self._lost and time.perf_counter() < self._deadline:
            self._lost -= 1
            await self._connect(clients)
            for connection in [each for each in self._idle if not each.busy]:
                if self._go_on():
                    self._send(connection, time.perf_counter())

    async def _end(self, cpu: float) -> Measured:
        """Wait for the answers that are still to come; what does not come in time is lost."""
        elapsed = time.perf_counter() - self._began
        used = time.process_time() - cpu
        until = time.perf_counter() + self._timeout
        while any(connection.busy for connection in self._connections) and time.perf_counter() < until:
            await self._wait(until)
        for connection in [each for each in self._connections if each.busy]:
            connection.abort()
            await asyncio.sleep(0)
        now = time.perf_counter()
        measured = self._measured
        for due in self._backlog:
            measured.latencies.append(now - due)
            measured.finished.append(now - self._began)
        measured.unsent = len(self._backlog)
        # Until the last good answer: those that came after the end of the load took their time, too.
        measured.seconds = max(elapsed, self._last_good - self._began)
        measured.generator_cpu = used / elapsed if elapsed else 0.0
        return measured

    async def _connect(self, wanted: int) -> None:
        parts = urllib.parse.urlsplit(self._target.url)
        loop = asyncio.get_running_loop()
        tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._connections = {each for each in self._connections if not each.closed}
        self._idle = [each for each in self._idle if not each.closed]
        while len(self._connections) < wanted:
            try:
                async with asyncio.timeout(_CONNECT_TIMEOUT):
                    _, connection = await loop.create_connection(
                        lambda: Connection(self._finished),
                        parts.hostname or "",
                        parts.port or (443 if tls else 80),
                        ssl=tls,
                    )
            except (OSError, TimeoutError) as exc:
                raise ConfigError(f"{self._target.url} cannot be connected to: {str(exc) or 'no answer'}") from exc
            self._connections.add(connection)
            self._idle.append(connection)


def _empty() -> Measured:
    return Measured(
        seconds=0.0,
        latencies=array("d"),
        finished=array("d"),
        statuses=collections.Counter(),
        received=0,
        unsent=0,
        generator_cpu=0.0,
    )
