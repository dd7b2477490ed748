"""Whether a real Prometheus sees exactly what clients have seen, while workers are killed and the model is loaded anew.

``python -m benchmarks.exact_metrics`` runs a server, a Prometheus (the programs ``prometheus`` and ``promtool`` have to
be installed) and clients for ``--seconds``, compares at the end, prints what it found, and exits with 1 where a total
is wrong. The short form of it is in ``tests/integration/test_metrics.py`` and ``test_deploy.py``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import http.client
import itertools
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

MODEL = """
import time

from backline_worker import metrics

CHECKS = metrics.Counter("proof_checks", "Calls that this model has answered.", labels=["outcome"])
SIZE = metrics.Histogram("proof_digits", "Digits of the number.", buckets=[1, 2, 3, 4, 5, 6])


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    SIZE.observe(len(data))
    time.sleep(0.001)
    if data.endswith("13"):
        CHECKS.inc(outcome="unlucky")
        raise ValueError("unlucky")
    CHECKS.inc(outcome="good")
    return data
"""
PATH = "/predictUnstructured"
DEADLINE = 60.0  # seconds, of every wait in here


class Clients:
    """Threads that ask one question after another and count what comes back."""

    def __init__(self, address: str, number: int) -> None:
        self.statuses: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self._address = address
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(number)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(DEADLINE)

    def _ask(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=DEADLINE)
        while not self._stop.is_set():
            body = str(next(self._numbers))
            try:
                connection.request("POST", PATH, body, {"Content-Type": "text/plain"})
                answer = connection.getresponse()
                text = answer.read().decode()
            except (OSError, http.client.HTTPException) as exc:
                with self._lock:
                    self.wrong.append(f"{body}: {exc!r}")
                connection.close()
                continue
            with self._lock:
                self.statuses[str(answer.status)] += 1
                if (answer.status == 200 and text != body) or answer.status != (500 if body.endswith("13") else 200):
                    self.wrong.append(f"{body}: {answer.status} {text[:200]}")
        connection.close()


def get(address: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Return status and body."""
    connection = http.client.HTTPConnection(address, timeout=DEADLINE)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def query(address: str, text: str) -> float:
    """Ask Prometheus for one number; that of nothing is 0."""
    status, body = get(address, f"/api/v1/query?{urllib.parse.urlencode({'query': text})}")
    content = json.loads(body)
    if status != 200 or content["status"] != "success":
        raise SystemExit(f"Prometheus: {text}: {content}")
    return sum(float(each["value"][1]) for each in content["data"]["result"])


def workers(address: str) -> list[dict[str, Any]]:
    """Return the workers that serve."""
    found = json.loads(get(address, "/stats")[1])["workers"]
    return [worker for worker in found if worker["state"] in ("ready", "busy")]


def wait_for(condition: Any, what: str) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + DEADLINE
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise SystemExit(f"timed out waiting until {what}")
        time.sleep(0.1)


@contextlib.contextmanager
def server(folder: Path, count: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run a Backline server; give its address and process."""
    model = folder / "model"
    model.mkdir()
    (model / "custom.py").write_text(MODEL)
    (model / "model-metadata.yaml").write_text("name: proof\ntype: inference\ntargetType: unstructured\n")
    command = [sys.executable, "-m", "backline", "serve", str(model), "--workers", str(count)]
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen([*command, "--address", "127.0.0.1:0"], stdout=output, stderr=output)
    try:
        wait_for(lambda: "Listening on http://" in log.read_text(), "the server listens")
        found = re.search(r"Listening on http://([0-9.:]+)", log.read_text())
        assert found is not None
        wait_for(lambda: len(workers(found[1])) == count, "all workers are ready")
        yield found[1], process
    finally:
        process.terminate()
        process.wait(DEADLINE)


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """Run a Prometheus that scrapes the server every second; give its address."""
    home = folder / "prometheus"
    home.mkdir()
    (home / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\n"
        f"scrape_configs: [{{job_name: backline, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["prometheus", "--config.file=prometheus.yml", f"--web.listen-address={address}"]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen([*command, "--storage.tsdb.path=data"], cwd=home, stdout=log, stderr=log)
    try:
        wait_for(lambda: query(address, "up") == 1, "Prometheus has scraped the server")
        yield address
    finally:
        process.kill()
        process.wait(DEADLINE)


def trouble(address: str, process: subprocess.Popen[bytes], arguments: argparse.Namespace) -> tuple[int, int]:
    """Kill workers and load the model anew until the time is over; return how often."""
    chance = random.Random(arguments.seed)
    end = time.monotonic() + arguments.seconds
    next_reload = time.monotonic() + arguments.reload_every
    kills = reloads = 0
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, arguments.kill_every))
        serving = workers(address)
        if serving and arguments.kill_every < arguments.seconds:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(serving)["pid"], signal.SIGKILL)
                kills += 1
        if time.monotonic() >= next_reload:
            next_reload += arguments.reload_every
            process.send_signal(signal.SIGHUP)
            reloads += 1
    return kills, reloads


def main() -> int:
    """Run, compare, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--kill-every", type=float, default=1.0, metavar="SECONDS")
    parser.add_argument("--reload-every", type=float, default=10.0, metavar="SECONDS")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        raise SystemExit("the programs prometheus and promtool are needed; Debian has them in the package prometheus")
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        address, process = stack.enter_context(server(folder, arguments.workers))
        monitor = stack.enter_context(prometheus(folder, address))
        with Clients(address, arguments.clients) as clients:
            kills, reloads = trouble(address, process, arguments)
        wait_for(lambda: len(workers(address)) == arguments.workers, "all workers are back")
        time.sleep(3)  # three scrapes
        seen = compare(monitor, clients)
        started = time.perf_counter()
        _, page = get(address, "/metrics")
        took = time.perf_counter() - started
        checked = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
        ends = query(monitor, "sum(backline_worker_restarts_total)")
        scrapes = query(monitor, "count_over_time(up[1h])")
        slowest = query(monitor, "max_over_time(scrape_duration_seconds[1h])")
        mean = query(monitor, "avg_over_time(scrape_duration_seconds[1h])")
    asked = sum(clients.statuses.values())
    print(f"{asked:,} requests by {arguments.clients} clients in {arguments.seconds:g} s, {arguments.workers} workers,")
    print(f"{kills} workers killed, {reloads} reloads asked for, {ends:.0f} workers ended, {scrapes:.0f} scrapes")
    for what, (clients_saw, prometheus_saw) in seen.items():
        mark = "ok   " if clients_saw == prometheus_saw else "WRONG"
        print(f"  {mark} {what}: {clients_saw:,} and {prometheus_saw:,.0f}")
    print(
        f"  scrapes of Prometheus: {1e3 * mean:.1f} ms on average, {1e3 * slowest:.1f} ms at most; {len(page):,} bytes"
    )
    print(f"  a scrape without load: {1e3 * took:.1f} ms; promtool: {checked.stderr.decode().strip() or 'accepts it'}")
    for problem in clients.wrong[:10]:
        print(f"  wrong answer: {problem}")
    good = not clients.wrong and checked.returncode == 0 and all(a == b for a, b in seen.values())
    return 0 if good else 1


def compare(monitor: str, clients: Clients) -> dict[str, tuple[int, float]]:
    """Return by what it is: what clients have counted, and what Prometheus says."""
    asked = sum(clients.statuses.values())
    good, unlucky = clients.statuses["200"], clients.statuses["500"]
    return {
        "answered 200": (good, query(monitor, 'sum(backline_requests_total{status="200"})')),
        "answered 500": (unlucky, query(monitor, 'sum(backline_requests_total{status="500"})')),
        "requests in all": (asked, query(monitor, "sum(backline_requests_total)")),
        "times of requests": (asked, query(monitor, "sum(backline_request_seconds_count)")),
        "calls of the model": (asked, query(monitor, "sum(backline_batch_requests_sum)")),
        "errors hook_failed": (unlucky, query(monitor, 'sum(backline_errors_total{code="hook_failed"})')),
        "the model's own counter, good": (good, query(monitor, 'sum(proof_checks_total{outcome="good"})')),
        "the model's own counter, unlucky": (unlucky, query(monitor, 'sum(proof_checks_total{outcome="unlucky"})')),
        "the model's own histogram": (asked, query(monitor, "sum(proof_digits_count)")),
        "counters that went back": (
            0,
            query(monitor, "sum(resets(backline_requests_total[1h])) + sum(resets(proof_checks_total[1h]))"),
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
