"""A small LLM backend as a process of its own, with the bad habits that its arguments name.

``python tiny_backend.py PORT [--load SECONDS] [--late] [--die-when-ready] [--exit CODE] [--ignore-term] [--flood LINES]
[--say TEXT] [--progress] [--child]``; ``POST /die`` kills it at work.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

arguments = argparse.ArgumentParser()
arguments.add_argument("port", type=int)
arguments.add_argument("--load", type=float, default=0.0, help="seconds until /health says 200")
arguments.add_argument("--late", action="store_true", help="listen only then")
arguments.add_argument("--die-when-ready", action="store_true")
arguments.add_argument("--exit", type=int, help="end at once, with this code")
arguments.add_argument("--ignore-term", action="store_true")
arguments.add_argument("--flood", type=int, default=0)
arguments.add_argument("--say", default="")
arguments.add_argument("--progress", action="store_true", help="show a bar that does not end its line")
arguments.add_argument("--child", action="store_true", help="start a process that would go on for ever")
given = arguments.parse_args()

started = time.monotonic()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base class's name)
        pass

    def answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path in ("/health", "/v1/health/ready"):
            ready = time.monotonic() - started >= given.load
            self.answer({}, 200 if ready else 503)
            if ready and given.die_when_ready:
                threading.Timer(0.3, os._exit, [7]).start()
        elif self.path == "/v1/models":
            self.answer({"object": "list", "data": [{"id": "tiny"}]})
        else:
            self.answer({"error": {"message": f"no {self.path}"}}, 404)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/die":
            print("about to die", flush=True)
            os._exit(9)
        asked = json.loads(body)
        if not asked.get("stream"):
            message = {"role": "assistant", "content": f"pid {os.getpid()}"}
            self.answer({"choices": [{"message": message}], "usage": {"total_tokens": 1}})
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(int(asked.get("events", 3))):
            event = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
            self.wfile.flush()
            time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")


def flood() -> None:
    for number in range(given.flood):
        print(f"line {number}")


if given.say:
    print(given.say, flush=True)
if given.progress:
    for percent in (10, 20):
        print(f"\rLoading weights: {percent}%", end="", file=sys.stderr, flush=True)
if given.ignore_term:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if given.child:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(f"child {child.pid}", flush=True)
if given.exit is not None:
    sys.exit(given.exit)
if given.late:
    time.sleep(given.load)
if given.flood:
    threading.Thread(target=flood, daemon=True).start()
server = ThreadingHTTPServer(("127.0.0.1", given.port), Handler)
server.daemon_threads = True
server.serve_forever()
