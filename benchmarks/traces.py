"""Proves the spans of a thousand mixed requests at a real receiver, and measures what traces and access log cost.

``python -m benchmarks.traces prove`` is the long form of ``tests/integration/test_traces.py``: requests of every kind,
each in a trace of its client's, and every one of them is looked up among the spans that the receiver got.
``python -m benchmarks.traces cost`` asks servers with and without traces and access log in turns, and gives the
processor time of the front for one request.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import http.client
import os
import statistics
import sys
import tempfile
import time
import urllib.parse
from pathlib import Path

from tests.integration.traced_traffic import Traffic, behave, check, expected_spans, make_model
from tests.otlp import Receiver, receiving
from tests.raw_http import running_backend
from tests.serving import Server, running_server

TICKS = os.sysconf("SC_CLK_TCK")
CLIENTS = 4
ECHO = "def score_unstructured(model, data, query):\n    return data\n"


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    prove_it = commands.add_parser("prove", help="look up every request among the spans")
    prove_it.add_argument("--requests", type=int, default=1000)
    prove_it.add_argument("--clients", type=int, default=16)
    measure = commands.add_parser("cost", help="measure what observing costs")
    measure.add_argument("--requests", type=int, default=3000, help="of each server and round")
    measure.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, receiving() as receiver:
        if arguments.command == "prove":
            prove(Path(name), receiver, arguments.requests, arguments.clients)
        else:
            cost(Path(name), receiver, arguments.requests, arguments.rounds)
    return 0


def prove(folder: Path, receiver: Receiver, number: int, clients: int) -> None:
    """Send the traffic, check its spans, and print how many there are of each."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.grpc_url}
    with running_backend(behave) as backend:
        flags = ["--target-type", "regression", "--batch", "on", "--batch-delay", "0.005", "--workers", "2"]
        flags += ["--backend", backend.url, "--backend-ready-path", "/ready"]
        with running_server(folder / "server.log", make_model(folder), *flags, env=env) as server:
            traffic = Traffic(server.url, receiver)
            began = time.monotonic()
            sent = traffic.send(number, clients=clients)
            took = time.monotonic() - began
            traffic.close()
            server.stop()
            spans = receiver.wait_for(lambda spans: len(spans) >= expected_spans(sent))
        seen = check(sent, spans, backend)
    print(
        f"{number} requests of {clients} clients in {took:.1f} s, {len(spans)} spans; every request has one server span"
    )
    for what, count in seen.items():
        print(f"{count:7} {what}")
    for status, count in sorted(collections.Counter(each.status for each in sent).items()):
        print(f"{count:7} answered {status}")


def cost(folder: Path, receiver: Receiver, number: int, rounds: int) -> None:
    """Print the front's processor time for one request, by what it does besides."""
    (folder / "custom.py").write_text(ECHO)
    on = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.grpc_url}
    servers: dict[str, tuple[dict[str, str], list[str]]] = {
        "nothing": ({}, []),
        "access log": ({"BACKLINE_LOG_FORMAT": "json"}, ["--access-log", "all"]),
        "traces, none sampled": (on | {"OTEL_TRACES_SAMPLER": "always_off"}, []),
        "traces, one in a hundred": (
            on | {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.01"},
            [],
        ),
        "traces, all": (on, []),
    }
    figures: dict[str, list[float]] = {name: [] for name in servers}
    with contextlib.ExitStack() as running:
        started = {
            name: running.enter_context(
                running_server(folder / f"{number}.log", folder, "--target-type", "unstructured", *flags, env=env)
            )
            for number, (name, (env, flags)) in enumerate(servers.items())
        }
        for server in started.values():
            ask(server, 200)
        for _ in range(rounds):
            for name, server in started.items():
                before = processor_seconds(server.process.pid)
                ask(server, number)
                figures[name].append((processor_seconds(server.process.pid) - before) / number * 1e6)
    print(f"processor time of the front, µs a request: median (least to most) of {rounds} rounds of {number} requests")
    for name, values in figures.items():
        print(f"{statistics.median(values):8.1f}  ({min(values):.1f} to {max(values):.1f})  {name}")


def ask(server: Server, number: int) -> None:
    """Send so many small requests on a few connections."""
    parts = urllib.parse.urlsplit(server.url)

    def share(count: int) -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
        for _ in range(count):
            connection.request("POST", "/predictUnstructured/", b"hello", {"content-type": "text/plain"})
            assert connection.getresponse().read() == b"hello"
        connection.close()

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(share, [number // CLIENTS] * CLIENTS))


def processor_seconds(pid: int) -> float:
    """Return the processor time that a process has taken, of the kernel for it, too."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


if __name__ == "__main__":
    sys.exit(main())
