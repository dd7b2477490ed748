"""A headless Chromium that opens one page and tells what is on it and what it wanted to load."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_LISTENING = re.compile(r"DevTools listening on (ws://\S+)")
_TIMEOUT = 60.0


class Page:
    """A page in the browser, by the DevTools protocol. ``requests`` are the addresses that it asked for."""

    def __init__(self, socket: ClientConnection) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._socket = socket
        self._ids = itertools.count(1)
        self._loaded = False
        target = self._call("Target.createTarget", {"url": "about:blank"})["targetId"]
        attached = self._call("Target.attachToTarget", {"targetId": target, "flatten": True})
        self._session: str | None = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self._call(f"{domain}.enable", {})

    _session: str | None = None

    def open(self, path: Path, query: str = "") -> None:
        """Load a file and wait until it and all that it loads are there; ``query`` is what stands behind its name."""
        self._loaded = False
        self._call("Page.navigate", {"url": path.absolute().as_uri() + query})
        deadline = time.monotonic() + _TIMEOUT
        while not self._loaded:
            self._take(deadline)

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self._call("Runtime.evaluate", {"expression": script, "returnByValue": True})
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Wait until an expression in the page is true; a page that leads to another one has no answer for a moment."""
        deadline = time.monotonic() + _TIMEOUT
        while True:
            answer = self._ask("Runtime.evaluate", {"expression": script, "returnByValue": True})
            if answer.get("result", {}).get("result", {}).get("value") is True:
                return
            assert time.monotonic() < deadline, f"{script} has not become true: {answer}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """Return the text of the one element that the selector names, as it is shown."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).innerText"))

    def table(self, selector: str) -> list[list[str]]:
        """Return the cells of a table's body."""
        rows: list[list[str]] = self.evaluate(
            f"[...document.querySelectorAll({json.dumps(selector + ' tbody tr')})]"
            ".map(row => [...row.cells].map(cell => cell.innerText))"
        )
        return rows

    def _call(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        answer = self._ask(method, params)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def _ask(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        deadline = time.monotonic() + _TIMEOUT
        while (answer := self._take(deadline)).get("id") != number:
            pass
        return answer

    def _take(self, deadline: float) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self._socket.recv(timeout=max(0.1, deadline - time.monotonic())))
        match message.get("method"):
            case "Page.loadEventFired":
                self._loaded = True
            case "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            case "Runtime.exceptionThrown" | "Log.entryAdded" | "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(message["params"]))
            case _:
                pass
        return message


@contextlib.contextmanager
def browser_page() -> Iterator[Page]:
    """Run a browser for the block; skips the test where there is none."""
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser on PATH: one of {', '.join(_NAMES)}")
    # The browser may still write into its profile when it is told to go.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [
            found, "--headless", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-first-run",
            "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        ]  # fmt: skip
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # it refuses to run as root otherwise; the pages are our own
        log = Path(profile) / "stderr"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True
            )
        try:
            deadline = time.monotonic() + _TIMEOUT
            while (address := _LISTENING.search(log.read_text(errors="replace"))) is None:
                assert process.poll() is None, log.read_text(errors="replace")
                assert time.monotonic() < deadline, log.read_text(errors="replace")
                time.sleep(0.05)
            with connect(address[1], max_size=None, open_timeout=_TIMEOUT) as socket:
                yield Page(socket)
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # its renderers and helpers, too
            process.wait()
