"""Direct access beside the backend itself and beside nginx, in one run, over each HTTP client. See README.md."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proxy_backend import CHUNKS

HERE = Path(__file__).resolve().parent
CLIENTS = ("http1", "aiohttp", "httpx2", "httpx")
START_TIMEOUT = 30.0
NGINX = """
worker_processes 1;
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  upstream backend {{ server 127.0.0.1:{backend}; keepalive 64; }}
  server {{
    listen 127.0.0.1:{port};
    location /directAccess/ {{
      proxy_pass http://backend/; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


def main() -> int:
    """Run the rounds, keep the raw figures, print the tables."""
    arguments = parse_arguments()
    for tool in ("wrk", "nginx"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is needed: apt-get install wrk nginx-light")
    figures: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as running, arguments.output.open("w") as raw:
        urls = start_all(Path(name), arguments.clients, running)
        for url in urls.values():
            load(f"{url}/x", 8, 1)  # warm-up
        for number in range(arguments.rounds):
            # Turn about, so that a drift of the machine falls on everyone.
            for contender in list(urls)[:: 1 if number % 2 == 0 else -1]:
                url = urls[contender]
                figure = {
                    "round": number,
                    "contender": contender,
                    "alone": load(f"{url}/x", 1, arguments.seconds),
                    "json": load(f"{url}/x", 32, arguments.seconds),
                    "stream": load(f"{url}/stream", 16, arguments.seconds),
                }
                figures.append(figure)
                raw.write(json.dumps(figure) + "\n")
                print(json.dumps(figure), file=sys.stderr, flush=True)
    print(table(figures, arguments))
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement")
    parser.add_argument("--clients", nargs="+", default=CLIENTS, choices=CLIENTS, help="of --backend-client")
    parser.add_argument("--output", type=Path, default=Path("proxy.jsonl"), help="raw figures, JSON lines")
    return parser.parse_args()


def start_all(directory: Path, clients: list[str], running: contextlib.ExitStack) -> dict[str, str]:
    """Start the backend and everything before it; return the URLs to ask. All run through the whole measurement."""
    backend, nginx = free_port(), free_port()
    uvicorn = [sys.executable, "-m", "uvicorn", "proxy_backend:app", "--port", str(backend)]
    running.enter_context(process([*uvicorn, "--no-access-log", "--log-level", "warning"], backend))
    (directory / "nginx.conf").write_text(NGINX.format(directory=directory, backend=backend, port=nginx))
    running.enter_context(process(["nginx", "-c", str(directory / "nginx.conf")], nginx))
    urls = {"direct": f"http://127.0.0.1:{backend}", "nginx": f"http://127.0.0.1:{nginx}/directAccess"}
    for client in clients:
        port = free_port()
        command = [sys.executable, "-m", "backline", "serve", "--backend", urls["direct"], "--backend-client", client]
        running.enter_context(process([*command, "--address", f"127.0.0.1:{port}"], port))
        urls[client] = f"http://127.0.0.1:{port}/directAccess"
    for url in urls.values():
        check(url)
    return urls


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


@contextlib.contextmanager
def process(command: list[str], port: int) -> Iterator[None]:
    """Run a server for the block, from when it listens."""
    with (HERE / os.devnull).open("w") as log:
        server = subprocess.Popen(command, cwd=HERE, stdout=log, stderr=log)
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
        yield
    finally:
        server.terminate()
        server.wait(30)


def check(url: str) -> None:
    """Stop the run unless the answers are the backend's."""
    with urllib.request.urlopen(f"{url}/x", timeout=10) as answer:
        assert json.load(answer)["choices"], url
    with urllib.request.urlopen(f"{url}/stream", timeout=10) as answer:
        assert answer.read().count(b"data: ") == CHUNKS, url


def load(url: str, clients: int, seconds: int) -> dict[str, float]:
    """Let wrk ask for some seconds; returns requests a second, and the median and 99th percentile in ms."""
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}", "-s", str(HERE / "post.lua"), url]
    environment = {**os.environ, "BODY": str(HERE / "chat.json"), "CONTENT_TYPE": "application/json"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    figure: dict[str, float] = json.loads(re.findall(r"^\{.*\}$", done.stdout, re.MULTILINE)[-1])
    if figure["bad"]:
        sys.exit(f"wrong answers from {url}: {figure}")
    return {"per_second": figure["requests"] / figure["seconds"], **figure}


def table(figures: list[dict[str, Any]], arguments: argparse.Namespace) -> str:
    """Return the report: the median of each figure over the rounds, and what it is of nginx's and the backend's."""

    def median(contender: str, measurement: str, name: str) -> float:
        return statistics.median(f[measurement][name] for f in figures if f["contender"] == contender)

    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    columns = (
        "",
        "1 client: p50 / p99 ms (added)",
        "32 clients: requests/s (of nginx)",
        "32 clients: p50 / p99 ms",
        "16 streams: chunks/s (of nginx)",
    )
    lines = [
        f"{datetime.now(UTC):%Y-%m-%d}: {machine}; medians of {arguments.rounds} rounds of {arguments.seconds} s.",
        "",
        f"| {' | '.join(columns)} |",
        "| --- | --- | --- | --- | --- |",
    ]
    for contender in dict.fromkeys(figure["contender"] for figure in figures):
        alone = {name: median(contender, "alone", name) for name in ("p50_ms", "p99_ms")}
        added = {name: alone[name] - median("direct", "alone", name) for name in alone}
        rate, chunks = (median(contender, kind, "per_second") for kind in ("json", "stream"))
        of_nginx = [value / median("nginx", kind, "per_second") for kind, value in (("json", rate), ("stream", chunks))]
        lines.append(
            f"| {contender} | {alone['p50_ms']:.3f} / {alone['p99_ms']:.3f} "
            f"({added['p50_ms']:+.3f} / {added['p99_ms']:+.3f}) | {rate:,.0f} ({of_nginx[0]:.2f}) | "
            f"{median(contender, 'json', 'p50_ms'):.2f} / {median(contender, 'json', 'p99_ms'):.2f} | "
            f"{chunks * CHUNKS:,.0f} ({of_nginx[1]:.2f}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
