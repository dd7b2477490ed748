"""A client that sends different requests and checks every answer; run by the server's interpreter, for its event loop.

::

    python client.py --port 8080 --path /predict/ --clients 128 --seconds 5 --requests requests.json

Each connection waits for its answer before it sends again, as wrk's do, and begins at its own place in the list, so
that those that are on their way at the same time are different. Answers are kept as they come and compared at the end,
so that comparing takes nothing from the server. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import gc
import json
import re
import struct
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

RIGHT_WITHIN = 1e-12  # relative; a library's own arithmetic differs in the last bits between batch sizes
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_ANSWER_TIMEOUT = 60.0  # seconds that the last answers may take


class Answer(NamedTuple):
    """What came back for request number ``request`` of the connection's list."""

    request: int
    status: int
    body: bytes
    seconds: float


class Connection(asyncio.Protocol):
    """One client: sends the requests of a list, one after another, until told to stop."""

    def __init__(self, wires: list[bytes], place: int, lost: asyncio.Queue[Connection]) -> None:
        self.answers: list[Answer] = []
        self.failures = 0
        self.idle = asyncio.Event()
        self._wires = wires
        self._place = place
        self._lost = lost
        self._stopping = False
        self._waiting = False
        self._sent = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def start(self) -> None:
        """Send the first request."""
        self._send()

    def stop(self) -> None:
        """Send no more; ``idle`` is set when the answer to the last one is there."""
        self._stopping = True
        if not self._waiting:
            self.idle.set()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _send(self) -> None:
        assert self._transport is not None
        self._waiting = True
        self._sent = time.perf_counter()
        self._transport.write(self._wires[self._place])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's are not subclasses of asyncio's

    def data_received(self, data: bytes) -> None:
        """Take an answer apart, and send the next request when it is complete."""
        buffer = self._buffer + data if self._buffer else data
        end = buffer.find(b"\r\n\r\n")
        found = _LENGTH.search(buffer, 0, end + 2) if end >= 0 else None
        if found is None or len(buffer) < end + 4 + int(found[1]):
            self._buffer = buffer
            return
        self._buffer = b""
        took = time.perf_counter() - self._sent
        self.answers.append(Answer(self._place, int(buffer[9:12]), buffer[end + 4 :], took))
        self._waiting = False
        self._place = (self._place + 1) % len(self._wires)
        if self._stopping:
            self.idle.set()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note what was lost, and ask for a new connection."""
        del exc
        self._buffer = b""
        if self._waiting:
            self.failures += 1
            self._waiting = False
        if self._stopping:
            self.idle.set()
        else:
            self._lost.put_nowait(self)


async def run(options: argparse.Namespace, good: list[dict[str, Any]], broken: list[dict[str, Any]]) -> dict[str, Any]:
    """Put the load on, and return what was seen."""
    loop = asyncio.get_running_loop()
    lost: asyncio.Queue[Connection] = asyncio.Queue()
    wires = [to_wire(options.path, request) for request in good]
    others = [to_wire(options.path, request) for request in broken]

    async def connect(connection: Connection) -> None:
        await loop.create_connection(lambda: connection, "127.0.0.1", options.port)

    async def reconnect() -> None:
        while True:
            connection = await lost.get()
            await connect(connection)
            connection.start()

    step = max(1, len(wires) // options.clients)
    connections = [Connection(wires, number * step % len(wires), lost) for number in range(options.clients)]
    # The last one is not looked at in either case, so that both cases measure the same number of clients.
    apart = Connection(others or wires, 0, lost) if options.apart else None
    everybody = [*connections, apart] if apart else connections
    for connection in everybody:
        await connect(connection)
    async with asyncio.TaskGroup() as group:
        repair = group.create_task(reconnect())
        started = time.perf_counter()
        for connection in everybody:
            connection.start()
        await asyncio.sleep(options.seconds)
        counted = sum(len(connection.answers) for connection in connections)
        elapsed = time.perf_counter() - started
        for connection in everybody:
            connection.stop()
        try:
            async with asyncio.timeout(_ANSWER_TIMEOUT):
                for connection in everybody:
                    await connection.idle.wait()
        except TimeoutError:
            pass  # counted below, as unanswered
        repair.cancel()
    unanswered = sum(not connection.idle.is_set() for connection in everybody)
    for connection in everybody:
        connection.close()
    seconds = sorted(answer.seconds for connection in connections for answer in connection.answers)
    figure: dict[str, Any] = {
        "requests": len(seconds),
        "per_second": counted / elapsed,
        "p50_ms": 1e3 * seconds[len(seconds) // 2],
        "p99_ms": 1e3 * seconds[int(len(seconds) * 0.99)],
        "lost": sum(connection.failures for connection in everybody),
        "unanswered": unanswered,
        **compare([answer for connection in connections for answer in connection.answers], good),
    }
    if apart is not None and others:
        statuses: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        for answer in apart.answers:
            statuses[broken[answer.request]["kind"]][str(answer.status)] += 1
        figure["broken"] = statuses
    return figure


def to_wire(path: str, request: dict[str, Any]) -> bytes:
    """Return the bytes of a request."""
    body: bytes = request["body"].encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {request['content_type']}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def compare(answers: list[Answer], good: list[dict[str, Any]]) -> dict[str, Any]:
    """Hold every answer against the library's: all of its rows, both classes.

    ``exact``: numbers that are equal to the last bit; ``most_ulps``: how many floating-point numbers lie between the
    two that differ most.
    """
    numbers = exact = wrong = bad = most = 0
    examples: list[str] = []
    for answer in answers:
        expected = good[answer.request]["expected"]
        problem = None
        try:
            if answer.status != 200:
                bad += 1
                raise ValueError(f"status {answer.status}")
            rows = json.loads(answer.body)["predictions"]
            pairs = [(row["1"], row["0"]) for row in rows]
            if len(pairs) != len(expected):
                raise ValueError(f"{len(pairs)} rows for {len(expected)}")
            for pair, wanted in zip(pairs, expected, strict=True):
                for number, right in zip(pair, wanted, strict=True):
                    numbers += 1
                    if number == right:
                        exact += 1
                    elif abs(number - right) > RIGHT_WITHIN * abs(right):
                        raise ValueError(f"{number} where the library says {right}")
                    else:
                        most = max(most, ulps(number, right))
        except (ValueError, KeyError, TypeError) as exc:
            problem = f"{exc!r}: {answer.body[:200]!r}"
        if problem is not None:
            wrong += answer.status == 200
            if len(examples) < 3:
                examples.append(problem)
    return {
        "checked": len(answers),
        "wrong": wrong,
        "bad": bad,
        "numbers": numbers,
        "exact": exact,
        "most_ulps": most,
        "examples": examples,
    }


def ulps(one: float, other: float) -> int:
    """Return how many floating-point numbers lie between two of the same sign, plus one."""
    first, second = struct.unpack("<2q", struct.pack("<2d", one, other))
    return abs(int(first) - int(second))


def main() -> int:
    """Read the command line, run, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", required=True)
    parser.add_argument("--clients", type=int, required=True, help="connections that are measured and checked")
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--requests", type=Path, required=True, help="what to send, and the answers to expect")
    parser.add_argument("--one-row-csv", action="store_true", help="send only the requests that are one row of CSV")
    parser.add_argument("--apart", action="store_true", help="one more connection, which is not measured")
    parser.add_argument("--broken", type=Path, help="what the connection apart sends; else the same as the others")
    parser.add_argument("--kind", help="of the broken ones, send only this kind")
    options = parser.parse_args()
    good = json.loads(options.requests.read_text())
    if options.one_row_csv:
        good = [one for one in good if one["content_type"] == "text/csv" and len(one["expected"]) == 1]
    broken = json.loads(options.broken.read_text()) if options.broken else []
    if options.kind:
        broken = [one for one in broken if one["kind"] == options.kind]
    try:
        import uvloop

        factory = uvloop.new_event_loop
    except ImportError:
        factory = None
    gc.disable()  # a collection would be seen as latency of the server
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(run(options, good, broken))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
