"""A thousand open streams on one server: what they cost its other requests, and in memory. See README.md."""

from __future__ import annotations

import argparse
import contextlib
import heapq
import json
import os
import platform
import random
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

START_TIMEOUT = 60.0
WHEN = ("without", "beside", "with")
SETTLE = 1.0  # seconds of every phase that are not counted
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":'
    b'{"content":"word "},"finish_reason":null}]}\n\n'
)
HOOK = """
import asyncio
import random


def load_model(code_dir):
    return None


def score(data, model, **kwargs):
    return data["promptText"].str.upper().to_frame("text")


async def chat(completion_create_params, model, **kwargs):
    pause = 1 / completion_create_params["rate"]
    await asyncio.sleep(random.random() * pause)
    while True:
        choice = {"index": 0, "delta": {"content": "word "}, "finish_reason": None}
        yield {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
        await asyncio.sleep(pause)
"""
METADATA = "name: m\ntype: inference\ntargetType: textgeneration\ninferenceModel:\n  targetName: text\n"
PREDICT = b"promptText\nhello\n"


def main() -> int:
    """Run the helper that the command line names, or else the measurement."""
    arguments = parse_arguments()
    if arguments.helper == "backend":
        return serve_trickles(arguments.port, arguments.rate)
    if arguments.helper == "clients":
        return hold_streams(arguments.port, arguments.path, arguments.streams, arguments.rate)
    lines = []
    for kind in arguments.kinds:
        figures = measure(kind, arguments)
        print(json.dumps({"kind": kind, "figures": figures}), file=sys.stderr)
        lines.append(line(kind, figures))
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}; {arguments.streams:,} streams of {arguments.rate:g} events a second each; "
        f"medians of {arguments.rounds} rounds of {arguments.seconds:g} s, {arguments.asked} requests a second to each "
        "route."
    )
    print(
        "\n| streams | `/livez` p50 / p99 ms without | beside | with | `/predict` p50 / p99 ms without | beside | with "
        "| p99 ratios with to without | with to beside | events/s | memory of the server per stream | of the worker |"
        "\n| " + "--- | " * 12
    )
    print("\n".join(lines))
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("helper", nargs="?", choices=["measure", "backend", "clients"], default="measure")
    parser.add_argument("--kinds", nargs="+", choices=["hook", "proxy"], default=["proxy", "hook"])
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=1.0, help="events a second of each stream")
    parser.add_argument("--asked", type=int, default=100, help="requests a second to each of the measured routes")
    parser.add_argument("--rounds", type=int, default=3, help="each is once without streams and once with them")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of one phase")
    parser.add_argument("--port", type=int, default=0, help="of a helper")
    parser.add_argument("--path", default="/", help="of a helper")
    parser.add_argument("--server", nargs="+", default=[sys.executable, "-m", "backline"], help="the program")
    return parser.parse_args()


# The measurement


def measure(kind: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Return, for each round, the latencies without streams and with them, and the memory."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        folder = Path(name)
        (folder / "custom.py").write_text(HOOK)
        (folder / "model-metadata.yaml").write_text(METADATA)
        port, backend = free_port(), free_port()
        me = [sys.executable, __file__]
        command = [*arguments.server, "serve", str(folder), "--address", f"127.0.0.1:{port}"]
        path = "/v1/chat/completions"
        trickle = [*me, "backend", "--port", str(backend), "--rate", str(arguments.rate)]
        running.enter_context(process(trickle, backend))
        if kind == "proxy":
            command += ["--backend", f"http://127.0.0.1:{backend}", "--backend-connections", "100000"]
            path = "/nim/stream"
        server = running.enter_context(process(command, port))
        wait_ready(port)
        workers = [worker["pid"] for worker in stats(port)["workers"]]
        clients = [*me, "clients", "--streams", str(arguments.streams), "--rate", str(arguments.rate)]
        hold = [*clients, "--port", str(port), "--path", path]
        ask_both(port, 1.0, arguments.asked)  # warm-up
        figures = []
        for _ in range(arguments.rounds):
            figure: dict[str, Any] = {"without": ask_both(port, arguments.seconds, arguments.asked)}
            # The control: clients and backend do the same, past the server, and take their share of the cores.
            with streams_open([*clients, "--port", str(backend)]):
                time.sleep(SETTLE)
                figure["beside"] = ask_both(port, arguments.seconds, arguments.asked)
            before = [resident(pid) for pid in (server, *workers)]
            with streams_open(hold) as events:
                time.sleep(SETTLE)
                counted, began = events(), time.perf_counter()
                figure["with"] = ask_both(port, arguments.seconds, arguments.asked)
                figure["events"] = (events() - counted) / (time.perf_counter() - began)
                after = [resident(pid) for pid in (server, *workers)]
            figure["bytes"] = [(late - early) / arguments.streams for early, late in zip(before, after, strict=True)]
            wait_idle(port)
            figures.append(figure)
        return figures


def line(kind: str, figures: list[dict[str, Any]]) -> str:
    """Return the table's line of one kind."""

    def median(when: str, route: str, place: int) -> float:
        return statistics.median(figure[when][route][place] for figure in figures)

    cells = [kind]
    ratios, controlled = [], []
    for route in ("/livez", "/predict"):
        cells += [f"{median(when, route, 0):.2f} / {median(when, route, 1):.2f}" for when in WHEN]
        ratios.append(f"{median('with', route, 1) / median('without', route, 1):.2f}")
        controlled.append(f"{median('with', route, 1) / median('beside', route, 1):.2f}")
    cells += [" and ".join(ratios), " and ".join(controlled)]
    cells.append(f"{statistics.median(figure['events'] for figure in figures):,.0f}")
    # The first round's: later ones find the memory that it has left.
    cells += [f"{size / 1024:.1f} KiB" for size in figures[0]["bytes"]]
    return f"| {' | '.join(cells)} |"


def ask_both(port: int, seconds: float, rate: int) -> dict[str, tuple[float, float]]:
    """Ask ``/livez`` and ``/predict`` in turn, so many times a second; return median and 99th percentile in ms."""
    livez = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"
    predict = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n%b"
    requests = {"/livez": livez, "/predict": predict % (len(PREDICT), PREDICT)}
    taken: dict[str, list[float]] = {route: [] for route in requests}
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            for route, request in requests.items():
                # Never in step with the streams' timers.
                due += random.uniform(0.5, 1.5) / rate / len(requests)
                time.sleep(max(0.0, due - time.perf_counter()))
                began = time.perf_counter()
                sock.sendall(request)
                answer = sock.recv(1 << 16)
                taken[route].append((time.perf_counter() - began) * 1000)
                assert answer.startswith(b"HTTP/1.1 200"), answer
    return {route: (percentile(times, 0.5), percentile(times, 0.99)) for route, times in taken.items()}


def percentile(values: list[float], share: float) -> float:
    """Return the value that this share of them does not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


@contextlib.contextmanager
def streams_open(command: list[str]) -> Iterator[Callable[[], int]]:
    """Hold the streams open for the block, from when each has said a word; yields the count of events so far."""
    clients = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert clients.stdin is not None
    assert clients.stdout is not None
    pipes = clients.stdin, clients.stdout
    try:
        if pipes[1].readline() != "open\n":
            sys.exit("the streams could not be opened")

        def events() -> int:
            pipes[0].write("\n")
            pipes[0].flush()
            return int(pipes[1].readline())

        yield events
    finally:
        clients.kill()
        clients.wait()


@contextlib.contextmanager
def process(command: list[str], port: int) -> Iterator[int]:
    """Run a server for the block, from when it listens."""
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if time.monotonic() > deadline or server.poll() is not None:
                    sys.exit(f"does not listen: {' '.join(command)}")
                time.sleep(0.05)
        yield server.pid
    finally:
        server.kill()
        server.wait(30)


def get(port: int, path: str) -> tuple[int, bytes]:
    """Return status and body."""
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"GET %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" % path.encode())
        data = b""
        while piece := sock.recv(1 << 16):
            data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


def stats(port: int) -> dict[str, Any]:
    """Return what the server says of itself."""
    answer: dict[str, Any] = json.loads(get(port, "/stats")[1])
    return answer


def wait_ready(port: int) -> None:
    """Wait until the model answers."""
    deadline = time.monotonic() + START_TIMEOUT
    while get(port, "/readyz")[0] != 200:
        if time.monotonic() > deadline:
            sys.exit("the server does not become ready")
        time.sleep(0.05)


def wait_idle(port: int) -> None:
    """Wait until no stream is open any more: they are all to be stopped when their clients have left."""
    deadline = time.monotonic() + START_TIMEOUT
    while (now := stats(port))["chats"]["open"] or now.get("backend", {}).get("in_flight"):
        if time.monotonic() > deadline:
            sys.exit("streams are left")
        time.sleep(0.05)


def resident(pid: int) -> int:
    """Return the memory of a process in bytes."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


# The helpers, which must cost next to nothing beside what is measured


def serve_trickles(port: int, rate: float) -> int:
    """Answer every request with a stream of ``rate`` events a second."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    open_streams: dict[int, socket.socket] = {}
    due: list[tuple[float, int, socket.socket]] = []
    while True:
        for descriptor, _ in poll.poll(max(0.0, due[0][0] - time.monotonic()) if due else None):
            if descriptor == listener.fileno():
                sock, _ = listener.accept()
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_streams[sock.fileno()] = sock
                poll.register(sock, select.EPOLLIN)
                continue
            try:
                data = open_streams[descriptor].recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                open_streams.pop(descriptor).close()
            elif data.startswith(b"GET / "):
                open_streams[descriptor].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            else:
                open_streams[descriptor].sendall(head)
                stream = open_streams[descriptor]
                heapq.heappush(due, (time.monotonic() + random.random() / rate, id(stream), stream))
        while due and due[0][0] <= time.monotonic():
            at, number, stream = heapq.heappop(due)
            if stream.fileno() < 0:  # closed: its descriptor may be another stream's by now
                continue
            with contextlib.suppress(OSError):
                stream.sendall(piece)
            heapq.heappush(due, (at + 1 / rate, number, stream))


def hold_streams(port: int, path: str, streams: int, rate: float) -> int:
    """Open streams and read them; say so when each has said a word, and then, for each line asked, count the events."""
    body = json.dumps({"stream": True, "rate": rate, "messages": [{"role": "user", "content": "go"}]}).encode()
    request = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        path.encode(), len(body), body,
    )  # fmt: skip
    poll = select.epoll()
    silent = {}
    socks = {}
    events = 0

    def read(timeout: float) -> None:
        nonlocal events
        for descriptor, _ in poll.poll(timeout):
            data = socks[descriptor].recv(1 << 16)
            if not data:
                sys.exit("a stream was cut off")
            events += data.count(b"data: ")
            if descriptor in silent and b"data: " in data:
                del silent[descriptor]

    for _ in range(streams):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(request)
        socks[sock.fileno()] = sock
        silent[sock.fileno()] = sock
        poll.register(sock, select.EPOLLIN)
        read(0.001)
    while silent:
        read(1)
    threading.Thread(target=read_for_ever, args=(read,), daemon=True).start()
    print("open", flush=True)
    for _ in sys.stdin:
        print(events, flush=True)
    return 0


def read_for_ever(read: Callable[[float], None]) -> None:
    """Go on reading."""
    while True:
        read(1)


if __name__ == "__main__":
    sys.exit(main())
