"""Clients for tests under load: each answer is checked, and what came instead is kept."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Answer:
    """A response as the test looks at it."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def post(url: str, body: bytes, *, headers: dict[str, str] | None = None, timeout: float = 60) -> Answer:
    """Send one POST on a connection of its own."""
    return request("POST", url, body, headers=headers, timeout=timeout)


def request(
    method: str, url: str, body: bytes | None = None, *, headers: dict[str, str] | None = None, timeout: float = 60
) -> Answer:
    """Send one request on a connection of its own."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
    try:
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


@dataclass
class Load:
    """What the clients have seen: how many right answers, and everything else."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    progress: threading.Condition = field(default_factory=threading.Condition)

    def wait_for(self, more: int, timeout: float = 60) -> None:
        """Wait until ``more`` further right answers have come: then the server is known to answer now."""
        with self.progress:
            goal = self.right + more
            assert self.progress.wait_for(lambda: self.right >= goal, timeout), f"stalled at {self.right}: {self.wrong}"

    def note(self, problem: str | None) -> None:
        with self.progress:
            if problem is None:
                self.right += 1
            else:
                self.wrong.append(problem)
            self.progress.notify_all()


@contextlib.contextmanager
def running_load(
    url: str, clients: int, make: Callable[[int], bytes], check: Callable[[int, Any], bool], *, timeout: float = 60
) -> Iterator[Load]:
    """Run ``clients`` threads until the block ends, each sending one request after another, every one different."""
    load = Load()
    stop = threading.Event()
    numbers = itertools.count()
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname

    def client() -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
        while not stop.is_set():
            number = next(numbers)
            try:
                connection.request("POST", parts.path, make(number), {"Content-Type": "text/csv"})
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException) as exc:
                load.note(f"request {number}: {exc!r}")
                connection.close()
                time.sleep(0.01)  # a closed port must not make this a busy loop
                continue
            if response.status != 200:
                load.note(f"request {number}: {response.status} {body[:300]!r}")
            elif not check(number, json.loads(body)):
                load.note(f"request {number}: wrong answer {body[:300]!r}")
            else:
                load.note(None)
        connection.close()

    with _running(client, clients, stop, timeout):
        yield load


@contextlib.contextmanager
def asking(clients: int, problem_of: Callable[[str], str | None]) -> Iterator[list[str]]:
    """Run ``clients`` threads until the block ends, each asking all the time with a text of its own.

    ``problem_of`` asks with a text, and returns what is wrong with the answer; yields all that was.
    """
    wrong: list[str] = []
    stop = threading.Event()
    numbers = itertools.count()

    def client() -> None:
        while not stop.is_set():
            try:
                problem = problem_of(f"text-{next(numbers)}")
            except (OSError, http.client.HTTPException) as exc:
                problem = repr(exc)
            if problem is not None:
                wrong.append(problem)

    with _running(client, clients, stop, 60):
        yield wrong


@contextlib.contextmanager
def _running(client: Callable[[], None], clients: int, stop: threading.Event, timeout: float) -> Iterator[None]:
    """Run threads for the block; they end when ``stop`` is set."""
    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(timeout)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    """Wait for what nothing tells of when it happens, with a deadline; ``what`` says it in words."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.01)
