"""The shadow's agent: ``python -m backline.parity.shadow_agent FD``, started by ``shadow`` and ended by its socket.

It asks the shadow what the server was asked, compares the two answers and keeps them. What comes while too much waits
is dropped and counted: a shadow that is too slow sees a sample of the traffic. One that fails request after request is
told to the server, which asks it less until it answers again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from backline.errors import ConfigError, ParityError
from backline.parity.compare import Rules
from backline.parity.desk import StoreDesk, store_desk
from backline.parity.exchange import Answer, Call, Request
from backline.parity.peer import Peer, connected, unreachable
from backline.parity.redaction import Redaction
from backline.parity.run import judge
from backline.parity.served import served
from backline.parity.shadow import MIRRORED, read_frame
from backline.parity.store import Store

_CONCURRENCY = 8
_MAX_WAITING = 512
_MAX_WAITING_BYTES = 64 << 20
_TELL_EVERY = 0.5
_RETRY = 1.0  # seconds after which a shadow that could not be reached is tried again
_FINISH_TIMEOUT = 3.0
_FAILS_AFTER = 20  # failures in a row, after which a shadow counts as failing
_ANSWERS_AFTER = 3  # answers in a row, after which it no longer does


def main() -> None:
    """Run until the other end of the socket is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's, which closes the socket
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        asyncio.run(_run(channel))


async def _run(channel: socket.socket) -> None:
    channel.setblocking(False)
    reader, writer = await asyncio.open_unix_connection(sock=channel, limit=1 << 20)
    first = await read_frame(reader)
    if first is None:
        return
    settings: dict[str, Any] = first[0]
    counts: Counter[str] = Counter(same=0, different=0, failed=0, skipped=0, dropped=0)
    health = _Health()
    store = Path(settings["store"])
    async with store_desk(lambda: Store.create(store, max_bytes=settings["max_size"])) as desk:
        described = {"reference": {"where": settings["name"]}, "candidate": {"where": settings["target"]}}
        if settings["python"]:
            described["candidate"]["python"] = settings["python"]
        run = await desk.use(Store.add_run, "shadow", {**described, "rules": Rules().to_json()}, time.time())
        waiting = _Waiting(counts)
        async with asyncio.TaskGroup() as group:
            mirror = _Mirror(desk, run, settings, counts, waiting, health)
            tasks = [group.create_task(mirror.run()), group.create_task(_tell(writer, counts, health))]
            while (frame := await read_frame(reader)) is not None:
                waiting.put(frame)
            waiting.close()
            await asyncio.wait(tasks[:1], timeout=_FINISH_TIMEOUT)
            for task in tasks:
                task.cancel()
        await desk.use(Store.end_run, run, time.time())
        _write_counts(writer, counts, health)
    writer.close()


class _Health:
    """Whether the shadow fails: what it answers costs it and us time, and tells nothing new."""

    def __init__(self) -> None:
        self.is_failing = False
        self.changed = asyncio.Event()
        self._streak = 0

    def note(self, *, failed: bool) -> None:
        """Take note of what became of one request."""
        self._streak = self._streak + 1 if failed != self.is_failing else 0
        if self._streak >= (_ANSWERS_AFTER if self.is_failing else _FAILS_AFTER):
            self.is_failing = failed
            self._streak = 0
            self.changed.set()


class _Waiting:
    """What was handed over and is not asked yet; bounded."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._frames: deque[tuple[Any, bytes, bytes]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = asyncio.Event()

    def put(self, frame: tuple[Any, bytes, bytes]) -> None:
        """Add a frame, or drop it where there is no room."""
        size = len(frame[1]) + len(frame[2])
        if len(self._frames) >= _MAX_WAITING or self._bytes + size > _MAX_WAITING_BYTES:
            self._counts["dropped"] += 1
            return
        self._frames.append(frame)
        self._bytes += size
        self._changed.set()

    def close(self) -> None:
        """Nothing more will come."""
        self._closed = True
        self._changed.set()

    def clear(self) -> int:
        """Let go of all that waits; return how many they were."""
        gone = len(self._frames)
        self._frames.clear()
        self._bytes = 0
        return gone

    async def take(self) -> tuple[Any, bytes, bytes] | None:
        """Return the next frame; ``None`` once there will be none."""
        while not self._frames:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        frame = self._frames.popleft()
        self._bytes -= len(frame[1]) + len(frame[2])
        return frame


class _Mirror:
    """Asks the shadow, several requests at a time, and has the answers compared."""

    def __init__(
        self,
        desk: StoreDesk,
        run: int,
        settings: dict[str, Any],
        counts: Counter[str],
        waiting: _Waiting,
        health: _Health,
    ) -> None:
        self._desk = desk
        self._run = run
        self._settings = settings
        self._counts = counts
        self._waiting = waiting
        self._health = health
        self._rules = Rules()
        self._redaction = Redaction()

    async def run(self) -> None:
        """Keep a shadow at hand, and ask it, until nothing more comes."""
        while True:
            try:
                async with self._shadow() as peer:
                    done = await self._ask_all(peer)
            except ConfigError as exc:
                _say(f"the shadow cannot be asked: {exc.message}")
                done = False
            if done:
                return
            # What comes meanwhile fails: a dead shadow is told by its count.
            if await self._fail_for(_RETRY):
                return

    @contextlib.asynccontextmanager
    async def _shadow(self) -> AsyncIterator[Peer]:
        target, headers = self._settings["target"], [(MIRRORED.decode(), "1")]
        async with contextlib.AsyncExitStack() as stack:
            if "://" not in target:
                folder = served(Path(target), python=self._settings["python"], own_session=False)
                target = await stack.enter_async_context(folder)
            yield await stack.enter_async_context(connected(target, headers=headers))

    async def _ask_all(self, peer: Peer) -> bool:
        """Return ``True`` at the end; raises ``ParityError`` as soon as the shadow cannot be reached."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(_CONCURRENCY):
                    group.create_task(self._ask(peer))
        except BaseExceptionGroup as errors:
            raise unreachable(errors) from None
        return True

    async def _ask(self, peer: Peer) -> None:
        while (frame := await self._waiting.take()) is not None:
            (method, target, headers, status, answer_headers, seconds, at), body, answer_body = frame
            request = Request(method=method, target=target, headers=_pairs(headers), body=body)
            reference = Answer(status=status, headers=_pairs(answer_headers), body=answer_body, seconds=seconds)
            try:
                candidate = await peer.ask(request, timeout=self._settings["timeout"])
            except ParityError:
                self._counts["failed"] += 1
                raise
            verdict = await self._desk.use(self._keep, request, reference, candidate, at)
            self._counts["failed" if candidate.error is not None else verdict] += 1
            self._health.note(failed=candidate.error is not None or (candidate.status >= 500 > status))
            if self._health.is_failing:
                self._counts["skipped"] += self._waiting.clear()

    def _keep(self, store: Store, request: Request, reference: Answer, candidate: Answer, at: float) -> str:
        redacted = Request(
            method=request.method, target=self._redaction.target(request.target),
            headers=self._redaction.headers(request.headers), body=request.body,
        )  # fmt: skip
        call = store.add_call(Call(request=redacted, at=at))
        store.add_answer(call, reference, side="reference", run=self._run)
        store.add_answer(call, candidate, side="candidate", run=self._run)
        is_same = judge(store, self._run, (call, 0), self._rules)
        store.commit()
        return "same" if is_same else "different"

    async def _fail_for(self, seconds: float) -> bool:
        """Count all that comes for a while as failed; return whether nothing more will come."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while await self._waiting.take() is not None:
                    self._counts["failed"] += 1
                return True
        return False


async def _tell(writer: asyncio.StreamWriter, counts: Counter[str], health: _Health) -> None:
    """Tell the server what was counted, whenever it has changed, and at once whether the shadow fails."""
    told: dict[str, int] = {}
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(health.changed.wait(), _TELL_EVERY)
        if health.changed.is_set() or told != counts:
            health.changed.clear()
            told = dict(counts)
            _write_counts(writer, counts, health)


def _write_counts(writer: asyncio.StreamWriter, counts: Counter[str], health: _Health) -> None:
    writer.write(json.dumps({"counts": counts, "failing": health.is_failing}).encode() + b"\n")


def _pairs(given: list[list[str]]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in given]


def _say(text: str) -> None:
    sys.stderr.write(f"shadow: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
