"""A thousand clients that dawdle: what they cost the others, in memory, and how long the server puts up with them."""

from __future__ import annotations

import argparse
import collections
import contextlib
import dataclasses
import heapq
import json
import os
import platform
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.open_loop import Load, OpenLoop
from benchmarks.streams import free_port, percentile, process, resident, stats, wait_ready

KINDS = ("head", "body", "unread")
ANSWER_BYTES = 1 << 20  # what the clients of the kind "unread" ask for
HOOK = f"""
def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    return "x" * {ANSWER_BYTES} if data == "large" else data
"""
METADATA = "name: m\ntype: inference\ntargetType: unstructured\n"
PREDICT = "/predictUnstructured/"
POST = b"POST /predictUnstructured/ HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
SETTLE = 2.0  # seconds


def main() -> int:
    """Run the helper that the command line names, or else the measurement."""
    arguments = parse_arguments()
    if arguments.helper == "dawdle":
        return Dawdlers(arguments).run()
    print(
        f"{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores, {platform.machine()}, Python "
        f"{platform.python_version()}; {arguments.clients:,} slow clients, a byte every {arguments.pause:g} s each; "
        f"medians of {arguments.rounds} rounds of {arguments.seconds:g} s, {arguments.asked} requests a second to each "
        "route."
    )
    print(
        "\n| slow clients | `/livez` p50 / p99 ms without | with | `/predictUnstructured` p50 / p99 ms without | with "
        "| p99 ratios | memory of the server per client | given up, with |\n| " + "--- | " * 8
    )
    for kind in arguments.kinds:
        print(measure(kind, arguments), flush=True)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("helper", nargs="?", choices=["measure", "dawdle"], default="measure")
    parser.add_argument("--kinds", nargs="+", choices=[*KINDS, "mixed", "idle"], default=[*KINDS, "mixed"])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between two bytes of a client")
    parser.add_argument("--asked", type=int, default=100, help="requests a second to each of the measured routes")
    parser.add_argument("--rounds", type=int, default=5, help="each is once without slow clients and once with them")
    parser.add_argument("--seconds", type=float, default=6.0, help="length of one phase")
    parser.add_argument("--max-connections", type=int, default=0, help="the server's bound; 0 leaves the default")
    parser.add_argument("--port", type=int, default=0, help="of a helper")
    parser.add_argument("--server", nargs="+", default=[sys.executable, "-m", "backline"], help="the program")
    return parser.parse_args()


def measure(kind: str, arguments: argparse.Namespace) -> str:
    """Return the table's line of one kind."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running:
        folder, port = Path(name), free_port()
        (folder / "custom.py").write_text(HOOK)
        (folder / "model-metadata.yaml").write_text(METADATA)
        if arguments.max_connections:
            (folder / "backline.toml").write_text(f"[limits]\nmax_connections = {arguments.max_connections}\n")
        command = [*arguments.server, "serve", name, "--address", f"127.0.0.1:{port}"]
        server = running.enter_context(process(command, port))
        wait_ready(port)
        ask(port, 1.0, arguments.asked)  # warm-up
        without, with_them, sizes = [], [], []
        given_up: collections.Counter[str] = collections.Counter()
        for _ in range(arguments.rounds):
            without.append(ask(port, arguments.seconds, arguments.asked))
            before = resident(server)
            with dawdling(kind, port, arguments) as told:
                wait_worked_off(port)
                time.sleep(SETTLE)
                with_them.append(ask(port, arguments.seconds, arguments.asked))
                sizes.append((resident(server) - before) / arguments.clients)
                given_up.update(told())
            wait_released(port)
        print(json.dumps({"kind": kind, "without": without, "with": with_them}), file=sys.stderr)
        return line(kind, without, with_them, sizes[0], given_up)


def line(
    kind: str,
    without: list[dict[str, list[float]]],
    with_them: list[dict[str, list[float]]],
    size: float,
    given_up: collections.Counter[str],
) -> str:
    """Return the table's line."""

    def median(figures: list[dict[str, list[float]]], route: str, place: int) -> float:
        return statistics.median(figure[route][place] for figure in figures)

    cells, ratios = [kind], []
    for route in ("/livez", PREDICT):
        cells += [f"{median(f, route, 0):.2f} / {median(f, route, 1):.2f}" for f in (without, with_them)]
        ratios.append(f"{median(with_them, route, 1) / median(without, route, 1):.2f}")
    cells += [" and ".join(ratios), f"{size / 1024:.1f} KiB"]
    cells.append(", ".join(f"{count} of {what}" for what, count in sorted(given_up.items())) or "none yet")
    return f"| {' | '.join(cells)} |"


def ask(port: int, seconds: float, rate: int) -> dict[str, list[float]]:
    """Ask both routes in turn, so many times a second each; return median and 99th percentile in ms."""
    paths = ["/livez", PREDICT]
    load = Load(
        port=port, rate=2.0 * rate, seconds=seconds, connections=1000, paths=paths, body="hello",
        headers={"Content-Type": "text/plain"},
    )  # fmt: skip
    outcome = OpenLoop(load).run()
    found = {}
    for path in paths:
        assert all(status == 200 for _, status, _, _ in outcome.requests), outcome.codes
        times = [1000 * took for asked, _, _, took in outcome.requests if asked == path]
        found[path] = [percentile(times, 0.5), percentile(times, 0.99)]
    return found


def wait_released(port: int) -> None:
    """Wait until the server holds nothing of the slow clients any more."""
    deadline = time.monotonic() + 60
    while (queue := stats(port)["queue"])["waiting"] or queue["bytes_in_flight"]:
        if time.monotonic() > deadline:
            sys.exit("something is left of the slow clients")
        time.sleep(0.05)


def wait_worked_off(port: int) -> None:
    """Wait until the model has answered those that will not read it: until then they are load like any other."""
    deadline = time.monotonic() + 60
    while (now := stats(port))["queue"]["waiting"] or any(worker["state"] == "busy" for worker in now["workers"]):
        if time.monotonic() > deadline:
            sys.exit("the model does not come to an end")
        time.sleep(0.1)


@contextlib.contextmanager
def dawdling(kind: str, port: int, arguments: argparse.Namespace) -> Iterator[Any]:
    """Have slow clients for the block; yields what tells with which status, or none, they were given up."""
    command = [sys.executable, "-m", "benchmarks.slow_clients", "dawdle", "--kinds", kind, "--port", str(port)]
    command += ["--clients", str(arguments.clients), "--pause", str(arguments.pause)]
    clients = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert clients.stdin is not None
    assert clients.stdout is not None
    pipes = clients.stdin, clients.stdout
    try:
        if pipes[1].readline() != "open\n":
            sys.exit("the slow clients could not connect")

        def told() -> Any:
            pipes[0].write("\n")
            pipes[0].flush()
            return json.loads(pipes[1].readline())

        yield told
    finally:
        clients.kill()
        clients.wait()


@dataclasses.dataclass(slots=True)
class _Dawdler:
    kind: str
    sock: socket.socket
    begun: float
    sent: int = 0


class Dawdlers:
    """The slow clients: each sends a byte now and then, or never reads; one that is given up comes again."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        [kind] = arguments.kinds
        self._kinds = KINDS if kind == "mixed" else (kind,)
        self._arguments = arguments
        self._poll = select.epoll()
        self._all: dict[int, _Dawdler] = {}
        self._due: list[tuple[float, int, int]] = []
        self._given_up: collections.Counter[str] = collections.Counter()
        self._opened = 0

    def run(self) -> int:
        """Dawdle until standard input ends; tell what came of it for each line of it."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        for _ in range(self._arguments.clients):
            self._open()
            self._turn(0.001)
        self._poll.register(sys.stdin.fileno(), select.EPOLLIN)
        print("open", flush=True)
        while self._turn(self._due[0][0] - time.monotonic() if self._due else 1.0):
            pass
        return 0

    def _open(self) -> None:
        kind = self._kinds[self._opened % len(self._kinds)]
        self._opened += 1
        sock = socket.socket()
        if kind == "unread":
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", self._arguments.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = self._all[sock.fileno()] = _Dawdler(kind, sock, time.monotonic())
        if kind == "head":
            sock.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\nX-Slow: ")
        elif kind == "body":
            sock.sendall(POST % 100_000)
        elif kind == "unread":
            sock.sendall(POST % 5 + b"large")
        if kind == "unread":
            self._poll.register(sock, select.EPOLLRDHUP)  # it never reads, but it notices when it is cut off
        else:
            self._poll.register(sock, select.EPOLLIN)
            if kind != "idle":
                self._later(client, self._opened / self._arguments.clients % 1 * self._arguments.pause)

    def _later(self, client: _Dawdler, seconds: float) -> None:
        heapq.heappush(self._due, (time.monotonic() + seconds, client.sock.fileno(), id(client)))

    def _turn(self, timeout: float) -> bool:
        for descriptor, _ in self._poll.poll(min(max(timeout, 0.0), 1.0)):
            if descriptor == sys.stdin.fileno():
                if not sys.stdin.readline():
                    return False
                print(json.dumps(self._given_up), flush=True)
                continue
            self._end(self._all[descriptor])
        while self._due and self._due[0][0] <= time.monotonic():
            _, descriptor, identity = heapq.heappop(self._due)
            client = self._all.get(descriptor)
            if client is None or id(client) != identity:
                continue  # it was given up; another one has its descriptor
            try:
                client.sock.send(b"x")
            except OSError:
                continue  # the poll tells
            self._later(client, self._arguments.pause)
        return True

    def _end(self, client: _Dawdler) -> None:
        status = "no answer"
        if client.kind != "unread":
            with contextlib.suppress(OSError):
                data = client.sock.recv(1 << 16, socket.MSG_DONTWAIT)
                status = data[9:12].decode() or status
        after = round(time.monotonic() - client.begun)
        self._given_up[f"{client.kind} {status} after {after} s"] += 1
        self._poll.unregister(client.sock)
        del self._all[client.sock.fileno()]
        client.sock.close()
        self._open()


if __name__ == "__main__":
    sys.exit(main())
