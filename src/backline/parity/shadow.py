"""The server's side of a shadow: hands copies of requests and answers to the agent, and counts what it reports.

::

    caller ◀──answer── server ──copies, over a socket that may fill up──▶ agent ──▶ shadow
                          ◀──────────── counts ────────────────────────   │ compares, keeps

The agent is a process of its own that gets processor time only when nobody else wants any. All that a mirrored request
costs the server is one write after its answer has left. Where the socket is full, the copy is dropped and counted.
While the agent says that the shadow fails, it is asked a few times a second only, and the rest is skipped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import random
import signal
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.config.kinds import BACKEND_URL
from backline.config.problems import ValueProblem
from backline.errors import ConfigError

if TYPE_CHECKING:
    from backline.config.settings import ShadowSettings

logger = logging.getLogger("backline.parity")

MAX_BODY = 4 << 20  # bytes of request and answer together; larger ones are not mirrored
MIRRORED = b"x-backline-shadow"
"""The header that every mirrored request carries."""
OUTCOMES = ("same", "different", "failed", "skipped", "dropped", "too_large")
_MAX_BUFFERED = 16 << 20  # bytes on their way to the agent, of which it has not taken any
_PREFIX = struct.Struct("!III")  # bytes of header, request and answer
_STOP_TIMEOUT = 5.0
_FIRST_RESTART, _LAST_RESTART = 1.0, 30.0
_TELL_EVERY = 60.0
_ASK_FAILING_EVERY = 0.1  # seconds between two requests that a failing shadow is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirrored:
    """One request with its answer, as it was on the wire. ``seconds`` is what the answer took, ``at`` since 1970."""

    method: str
    raw_path: bytes
    query: bytes
    headers: Sequence[tuple[bytes, bytes]]
    request: bytes
    status: int
    answer_headers: Sequence[tuple[bytes, bytes]]
    answer: bytes
    seconds: float
    at: float


def encode(call: Mirrored) -> tuple[bytes, bytes, bytes]:
    """Return the pieces of a frame."""
    target = call.raw_path + (b"?" + call.query if call.query else b"")
    header = json.dumps(
        [call.method, target.decode("latin-1"), _texts(call.headers), call.status, _texts(call.answer_headers),
         call.seconds, call.at]
    ).encode()  # fmt: skip
    return _PREFIX.pack(len(header), len(call.request), len(call.answer)) + header, call.request, call.answer


async def read_frame(reader: asyncio.StreamReader) -> tuple[Any, bytes, bytes] | None:
    """Return header, request and answer of the next frame, or ``None`` at the end."""
    try:
        sizes = _PREFIX.unpack(await reader.readexactly(_PREFIX.size))
        header, request, answer = [await reader.readexactly(size) for size in sizes]
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return json.loads(header), request, answer


def check_shadow(settings: ShadowSettings) -> None:
    """Raise ``ConfigError`` for a shadow that cannot be, before anything is served."""
    target = settings.target
    assert target is not None
    if "://" in target:
        try:
            BACKEND_URL.parse(target)
        except ValueProblem as exc:
            raise ConfigError(f"--shadow {target}: {exc}") from exc
    elif not Path(target).is_dir():
        raise ConfigError(
            f"--shadow {target}: there is no such directory; a server that runs is named by its URL, as "
            "http://127.0.0.1:8080"
        )
    from backline.parity.store import Store  # late: SQLite is not for servers without a shadow

    try:
        Store.create(settings.store).close()
    except ConfigError as exc:
        raise ConfigError(f"{exc.message}; name another file with --shadow-store") from exc


class Shadow:
    """Takes copies, and knows how many had which outcome; works while ``running`` does."""

    def __init__(self, settings: ShadowSettings, *, name: str) -> None:
        assert settings.target is not None
        self._settings = settings
        self._name = name
        self._chance = random.Random().random  # noqa: S311 - a sample, no secret
        self._transport: asyncio.WriteTransport | None = None
        self._counted: Counter[str] = Counter()  # by us
        self._by_agent: Counter[str] = Counter()  # by the present one
        self._by_ended: Counter[str] = Counter()  # by agents that have ended
        self._is_failing = False
        self._ask_failing_at = 0.0
        self._told = (0, 0)
        self._told_failing: float | None = None
        self._stopping = asyncio.Event()

    def takes_one(self) -> bool:
        """Whether the request that has just come is to be mirrored."""
        if self._settings.sample < 1 and self._chance() >= self._settings.sample:
            return False
        if not self._is_failing:
            return True
        now = time.monotonic()
        if now < self._ask_failing_at:
            self._counted["skipped"] += 1
            return False
        self._ask_failing_at = now + _ASK_FAILING_EVERY
        return True

    def too_large(self) -> None:
        """Count a request that is too large to be mirrored."""
        self._counted["too_large"] += 1

    def offer(self, call: Mirrored) -> None:
        """Hand a copy to the agent, or drop it; never waits."""
        transport = self._transport
        if transport is None or transport.is_closing() or transport.get_write_buffer_size() > _MAX_BUFFERED:
            self._counted["dropped"] += 1
            return
        transport.writelines(encode(call))

    def counts(self) -> dict[str, int]:
        """Return how many requests had which outcome, since the server started."""
        return {name: self._counted[name] + self._by_agent[name] + self._by_ended[name] for name in OUTCOMES}

    def describe(self) -> dict[str, Any]:
        """Return what ``/info`` tells."""
        return {
            "target": self._settings.target,
            "sample": self._settings.sample,
            "store": str(self._settings.store),
            "failing": self._is_failing,
            **self.counts(),
        }

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep an agent running for the block, and start another where it dies."""
        async with asyncio.TaskGroup() as group:
            keeper = group.create_task(self._keep_running())
            try:
                yield
            finally:
                self._stopping.set()
                if self._transport is not None:
                    self._transport.write_eof()  # it finishes what it has, and ends
                _, late = await asyncio.wait([keeper], timeout=_STOP_TIMEOUT)
                for task in late:
                    task.cancel()

    async def _keep_running(self) -> None:
        pause = _FIRST_RESTART
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started = loop.time()
            try:
                await self._run_agent()
            except OSError as exc:
                logger.warning("the shadow's agent cannot be started: %s", exc)
            if self._stopping.is_set():
                return
            pause = _FIRST_RESTART if loop.time() - started > _LAST_RESTART else min(2 * pause, _LAST_RESTART)
            logger.warning("the shadow's agent has ended; another one starts in %g s", pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_agent(self) -> None:
        """Run one agent until it ends."""
        ours, theirs = socket.socketpair()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "backline.parity.shadow_agent", str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        try:
            _yield_to_others(process.pid)
            await self._talk(ours)
            await process.wait()
        finally:
            self._by_ended.update(self._by_agent)
            self._by_agent.clear()
            self._is_failing = False
            # The whole session: a model that it serves must not outlive it.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            await asyncio.shield(process.wait())

    async def _talk(self, channel: socket.socket) -> None:
        """Tell the agent what to do, and take what it counts until it closes its end."""
        channel.setblocking(False)
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().create_unix_connection(
            lambda: asyncio.StreamReaderProtocol(reader), sock=channel
        )
        try:
            start = json.dumps(self._for_agent()).encode()
            transport.write(_PREFIX.pack(len(start), 0, 0) + start)
            self._transport = transport
            while line := await reader.readline():
                self._take_counts(json.loads(line))
        finally:
            self._transport = None
            transport.close()

    def _take_counts(self, told: dict[str, Any]) -> None:
        """Take what the present agent has counted since it started, and whether the shadow fails."""
        self._by_agent = Counter(told["counts"])
        if told["failing"] != self._is_failing:
            self._is_failing = told["failing"]
            self._tell_failing()
        self._tell()

    def _tell_failing(self) -> None:
        now = asyncio.get_running_loop().time()
        if not self._is_failing:
            logger.info("the shadow %s answers again", self._settings.target)
        elif self._told_failing is None or now - self._told_failing >= _TELL_EVERY:
            self._told_failing = now
            logger.warning(
                "the shadow %s fails: request after request gets no answer or a status of 500 and more; until it "
                "answers again it is asked at most %g times a second",
                self._settings.target,
                1 / _ASK_FAILING_EVERY,
            )

    def _tell(self) -> None:
        now = int(asyncio.get_running_loop().time())
        told, last = self._told
        counts = self.counts()
        if counts["different"] > told and (last == 0 or now - last >= _TELL_EVERY):
            self._told = (counts["different"], now)
            logger.warning(
                "the shadow %s answers differently: %d of %d; backline parity report %s tells where",
                self._settings.target,
                counts["different"],
                counts["different"] + counts["same"],
                self._settings.store,
            )

    def _for_agent(self) -> dict[str, Any]:
        settings = self._settings
        return {
            "name": self._name,
            "target": settings.target,
            "python": settings.python,
            "store": str(settings.store.absolute()),
            "max_size": settings.max_size,
            "timeout": settings.timeout,
        }


def _yield_to_others(pid: int) -> None:
    """Give a process, and those that it will start, processor time only when nobody else wants any."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, 19)
    if hasattr(os, "SCHED_IDLE"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def _texts(headers: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
