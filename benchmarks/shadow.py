"""What a shadow costs the callers of the server that it shadows: ``python -m benchmarks.shadow FOLDER --rows FILE``.

The same folder is served without a shadow and with one at 100 % that is the same model, slow, failing or dead. All run
side by side; for each kind, blocks of load without and with it take turns, the one or the other first, each after the
agents have come to rest. Every answer is compared with what the server without a shadow answers. Prints a JSON line for
each kind of shadow: p50 and p99 of all its blocks, those of the blocks without that stood beside them, and the ratio
with the 95 % interval of the bootstrap over pairs of blocks. The load is an open loop: so many requests a second,
whatever the server does. See README.md.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Pair = tuple[list[float], list[float]]
"""How long the answers of a block without a shadow took, and of the one beside it with one."""

SLOW_SECONDS = 2.0
START_TIMEOUT = 120.0
REST_TIMEOUT = 60.0


def main() -> int:
    """Measure; return the exit code: 1 where an answer was wrong."""
    if sys.argv[1:2] == ["--answer"]:
        asyncio.run(answer_always(float(sys.argv[2]), sys.argv[3]))
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=Path, required=True, help="CSV; each row is one request")
    parser.add_argument("--python", default="current", help="the interpreter of the model's environment")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second; 0: as fast as they are answered")
    parser.add_argument("--clients", type=int, default=16, help="connections")
    parser.add_argument("--seconds", type=float, default=2.0, help="of one block")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--kinds", nargs="+", default=["same", "slow", "failing", "dead"])
    arguments = parser.parse_args()
    lines = asyncio.run(measure(arguments))
    for line in lines:
        print(json.dumps(line))
    return 1 if any(line["wrong"] for line in lines) else 0


async def measure(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a line for each kind."""
    head, *rows = arguments.rows.read_text().split()
    bodies = [f"{head}\n{row}\n".encode() for row in rows]
    wrong = dict.fromkeys(arguments.kinds, 0)
    async with contextlib.AsyncExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = {
            "same": str(arguments.folder),
            "slow": stack.enter_context(other_server(SLOW_SECONDS, "200 OK")),
            "failing": stack.enter_context(other_server(0.0, "500 Internal Server Error")),
            "dead": f"http://127.0.0.1:{free_port()}",
        }
        servers = {}
        for kind in ("none", *arguments.kinds):
            flags = (
                [] if kind == "none" else ["--shadow", targets[kind], "--shadow-store", str(place / f"{kind}.sqlite")]
            )
            if kind == "same":
                flags += ["--shadow-python", arguments.python]
            servers[kind] = stack.enter_context(served(arguments, place / f"{kind}.log", flags))
        known = [await ask(servers["none"], body) for body in bodies]
        for url in servers.values():
            await load(url, bodies, known, arguments, 0.5)  # connections, caches, code paths
        pairs: dict[str, list[Pair]] = {kind: [] for kind in arguments.kinds}
        for number in range(arguments.rounds):
            for kind in arguments.kinds:
                blocks = {}
                for each in ("none", kind) if number % 2 == 0 else (kind, "none"):
                    await at_rest(servers[kind])
                    blocks[each], bad = await load(servers[each], bodies, known, arguments, arguments.seconds)
                    wrong[kind] += bad
                pairs[kind].append((blocks["none"], blocks[kind]))
        counts = {kind: shadow_of(servers[kind]) for kind in arguments.kinds}
    return [described(kind, pairs[kind], wrong[kind], counts[kind]) for kind in arguments.kinds]


def described(kind: str, pairs: list[Pair], wrong: int, counts: dict[str, Any]) -> dict[str, Any]:
    """Return a kind's line."""
    line: dict[str, Any] = {"shadow": kind, "requests": sum(len(block) for _, block in pairs), "wrong": wrong}
    chance = random.Random(1)
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        without, beside = pooled(pairs, 0, share), pooled(pairs, 1, share)
        drawn = [chance.choices(pairs, k=len(pairs)) for _ in range(500)]
        ratios = sorted(pooled(each, 1, share) / pooled(each, 0, share) for each in drawn)
        line[name] = {
            "without_ms": round(1e3 * without, 3), "with_ms": round(1e3 * beside, 3),
            "ratio": round(beside / without, 3), "low": round(ratios[12], 3), "high": round(ratios[487], 3),
        }  # fmt: skip
    line["outcomes"] = {name: counts[name] for name in ("same", "different", "failed", "skipped", "dropped")}
    return line


def pooled(pairs: list[Pair], side: int, share: float) -> float:
    """Return a quantile of all blocks of one side."""
    return at(sorted(seconds for pair in pairs for seconds in pair[side]), share)


def at(ordered: list[float], share: float) -> float:
    """Return a quantile."""
    return ordered[int(share * (len(ordered) - 1))]


@contextlib.contextmanager
def served(arguments: argparse.Namespace, log: Path, flags: list[str]) -> Any:
    """Run ``backline serve`` for the block; yields its address."""
    command = [sys.executable, "-m", "backline", "serve", str(arguments.folder), "--address", "127.0.0.1:0",
               "--python", arguments.python, *flags]  # fmt: skip
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        url = None
        while url is None:
            found = re.search(r"Listening on (http://[\d.:]+)", log.read_text())
            with contextlib.suppress(OSError):
                if found is not None and urllib.request.urlopen(f"{found[1]}/readyz", timeout=5).status == 200:
                    url = found[1]
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def other_server(seconds: float, status: str) -> Iterator[str]:
    """Run a shadow that answers one thing, after a while, in a process of its own."""
    command = [sys.executable, __file__, "--answer", str(seconds), status]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()
        process.wait(30)


async def answer_always(seconds: float, status: str) -> None:
    """Answer every request in one way; print the port first."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = re.search(rb"content-length: *(\d+)", head)
                await reader.readexactly(int(length[1]) if length else 0)
                await asyncio.sleep(seconds)
                writer.write(
                    f"HTTP/1.1 {status}\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{{}}".encode()
                )
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


async def at_rest(url: str) -> None:
    """Wait until the agent counts no more."""
    seen = None
    deadline = time.monotonic() + REST_TIMEOUT
    while time.monotonic() < deadline and (now := await asyncio.to_thread(shadow_of, url)) != seen:
        seen = now
        await asyncio.sleep(0.7)


def shadow_of(url: str) -> dict[str, Any]:
    """Return what the server tells of its shadow."""
    with urllib.request.urlopen(f"{url}/info", timeout=30) as answer:
        told: dict[str, Any] = json.load(answer)["shadow"]
        return told


async def load(
    url: str, bodies: list[bytes], known: list[bytes], arguments: argparse.Namespace, seconds: float
) -> tuple[list[float], int]:
    """Return how long each answer took, from when its request was due, and how many were wrong.

    Requests are due at random times, at the rate that was asked for: who comes while others are served does not wait
    for them to be sent. Without a rate each connection asks as soon as it was answered.
    """
    chance = random.Random(1)
    answered: list[tuple[float, int, bytes]] = []
    start = time.perf_counter()
    due, end, number = start, start + seconds, 0

    async def client() -> None:
        nonlocal due, number
        reader, writer = await connected(url)
        while (at := due if arguments.rate else time.perf_counter()) < end:
            if arguments.rate:
                due += chance.expovariate(arguments.rate)
            number += 1
            place = number % len(bodies)
            await asyncio.sleep(max(0.0, at - time.perf_counter()))
            answer = await exchange(reader, writer, bodies[place])
            answered.append((time.perf_counter() - at, place, answer))
        writer.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(arguments.clients):
            group.create_task(client())
    wrong = sum(
        answer != known[place] and not are_close(answer, known[place]) for _, place, answer in answered
    )  # after the clock has stopped
    return [took for took, _, _ in answered], wrong


def are_close(one: bytes, other: bytes) -> bool:
    """Whether two answers differ in the last bits of numbers only, as they do between batches of different sizes."""
    (a_status, a), (b_status, b) = (each.split(b" ", 1) for each in (one, other))
    return a_status == b_status and mean_the_same(json.loads(a)["predictions"], json.loads(b)["predictions"])


def mean_the_same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal but for the last bits of numbers."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(mean_the_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(mean_the_same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12, abs_tol=1e-15)
    return bool(one == other)


async def ask(url: str, body: bytes) -> bytes:
    """Return the body of one answer."""
    reader, writer = await connected(url)
    answer = await exchange(reader, writer, body)
    writer.close()
    return answer


async def connected(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a connection."""
    parts = urllib.parse.urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, body: bytes) -> bytes:
    """Send one request and return the answer with its status."""
    writer.write(
        b"POST /predict/ HTTP/1.1\r\nhost: x\r\ncontent-type: text/csv\r\ncontent-length: %d\r\n\r\n%s"
        % (len(body), body)
    )
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = re.search(rb"content-length: *(\d+)", head)
    assert length is not None
    return head.split(b" ", 2)[1] + b" " + await reader.readexactly(int(length[1]))


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
