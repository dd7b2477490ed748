"""What the tests of ``backline parity`` share: an old server to compare with, and the command itself."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

_LISTENING = re.compile(r"Listening on (http://\S+)")
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


class OldServer(BaseHTTPRequestHandler):
    """Adds up the numbers of a JSON list; some paths answer in ways of their own. ``asked`` notes what came."""

    protocol_version = "HTTP/1.1"
    asked: ClassVar[list[tuple[str, str, dict[str, str], bytes]]] = []

    def log_message(self, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self.do_POST()

    def do_POST(self) -> None:
        body = self._read()
        self.asked.append((self.command, self.path, dict(self.headers.items()), body))
        path = self.path.partition("?")[0]
        if path == "/chance":
            self._answer(200, {"sum": sum(json.loads(body)), "noise": random.random()})
        elif path == "/hostile":
            self._answer(200, {"text": HOSTILE, HOSTILE: 1})
        elif path == "/stream":
            self._stream()
        elif path == "/slow":
            time.sleep(30)
        elif path == "/secret":
            self._answer(200, {"ok": True}, {"set-cookie": "session=s3cret", "x-plain": "seen"})
        else:
            try:
                self._answer(200, {"sum": sum(json.loads(body or b"[]")), "mean": 0.1 + 0.2})
            except (ValueError, TypeError):
                self._answer(400, {"error": "no list of numbers"})

    def _read(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            pieces = []
            while size := int(self.rfile.readline(), 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number in range(5):
            piece = f"data: {number}\n\n".encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


@contextlib.contextmanager
def old_server() -> Iterator[str]:
    """Run the old server for the block; yields its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), OldServer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def parity(*words: str | Path, timeout: float = 120.0) -> subprocess.CompletedProcess[str]:
    """Run ``backline parity`` with these words."""
    command = [sys.executable, "-m", "backline", "parity", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


@contextlib.contextmanager
def recording(target: str, output: Path, *flags: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run ``backline parity record`` for the block; yields its address. SIGTERM ends it."""
    command = [sys.executable, "-m", "backline", "parity", "record", "--target", target, "--output", str(output)]
    process = subprocess.Popen(
        [*command, "--address", "127.0.0.1:0", *flags], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = _LISTENING.match(line)
        assert found, line + process.stderr.read()
        yield found[1], process
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0, process.stderr.read()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def write_requests(path: Path, requests: list[dict[str, Any]]) -> Path:
    """Write requests as JSON lines."""
    path.write_text("".join(json.dumps(each) + "\n" for each in requests))
    return path
