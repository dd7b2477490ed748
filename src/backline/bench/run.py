"""One run: the server, if it is ours to start, the steps, and its memory meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import os
import platform
import time
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from backline.bench.load import Generator, Target, to_wire
from backline.bench.result import Result, Step, step_of
from backline.errors import ConfigError
from backline.parity.served import served
from backline.runtime.memory import usable_cores
from backline.trial.sample import Sample, read_sample
from backline_worker.codecs.formats import CSV

_MEMORY_EVERY = 0.5
_GAIN = 1.05  # a step that brings less than this is past the knee
_PAST_KNEE = 2  # steps
_SIZES = ((0, 100), (100_000, 50), (10_000_000, 5), (50_000_000, 1))
"""Bytes of the body (0: one row) and how often, as the contract's perf-test has them."""
_WHOLE_TYPES = {".json": "application/json", ".txt": "text/plain", ".csv": "text/csv", ".jsonl": "application/x-ndjson"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BenchJob:
    """What to measure.

    Without ``clients``, ``rates`` and ``sizes`` the load is raised to the knee, and then put on at ``shares`` of the
    best rate.
    """

    input: Path
    folder: Path | None = None
    serve_flags: tuple[str, ...] = ()
    url: str | None = None
    path: str = "/predict/"
    rows: int = 1
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    clients: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    sizes: bool = False
    seconds: float = 5.0
    warm_up: float = 1.0
    timeout: float = 60.0
    most_clients: int = 256
    shares: tuple[float, ...] = (0.5, 0.8)


Tell = Callable[[str], None]


async def measure(job: BenchJob, tell: Tell, step_done: Callable[[Step], None]) -> Result:
    """Measure and return the result. ``tell`` is told what is being done, ``step_done`` gets each step.

    Raises ``ConfigError`` for what cannot be used and a target that is not there, ``ParityError`` for a folder that
    cannot be served.
    """
    bodies, told = _bodies(job)
    async with _target(job, tell) as url:
        headers = [("Accept", "application/json"), *job.headers]
        wires = tuple(to_wire(url, job.path, body, content_type, headers) for body, content_type in bodies)
        result = Result(
            target=str(job.folder) if job.folder is not None else url,
            requests=f"POST {job.path}, {told}",
            started=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            machine=f"{platform.machine()}, {usable_cores()} cores, Python {platform.python_version()}",
        )
        watch = _MemoryWatch(url, job.headers, result)
        try:
            async with (
                asyncio.TaskGroup() as group,
                Generator(Target(url=url, wires=wires), timeout=job.timeout) as load,
            ):
                watching = group.create_task(watch.run())
                run = _Run(job, load, result, tell, step_done)
                try:
                    if job.sizes:
                        await run.sizes(url, headers, watch)
                    elif job.clients or job.rates:
                        await run.given()
                    else:
                        await run.ramp()
                finally:
                    watching.cancel()
        except BaseExceptionGroup as errors:
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise
    return result


class _Run:
    """The steps of one run."""

    def __init__(
        self, job: BenchJob, load: Generator, result: Result, tell: Tell, step_done: Callable[[Step], None]
    ) -> None:
        self._job = job
        self._load = load
        self._result = result
        self._tell = tell
        self._step_done = step_done

    async def given(self) -> None:
        """The loads that were asked for."""
        for clients in self._job.clients:
            await self._closed(clients)
        for rate in self._job.rates:
            await self._open(rate)

    async def ramp(self) -> None:
        """Double the clients until that brings no more answers, then put shares of the best rate on."""
        best, flat, clients = 0.0, 0, 1
        while clients <= self._job.most_clients and flat < _PAST_KNEE:
            step = await self._closed(clients)
            if not step.good:
                raise ConfigError(f"no good answer from {self._result.target}: {_first_status(step)}")
            flat = 0 if step.rate > best * _GAIN else flat + 1
            best = max(best, step.rate)
            clients *= 2
        closed = [step for step in self._result.steps if step.kind == "closed"]
        self._result.knee = next(step.amount for step in closed if step.rate * _GAIN >= best)
        for share in self._job.shares:
            await self._open(best * share)

    async def sizes(self, url: str, headers: Sequence[tuple[str, str]], watch: _MemoryWatch) -> None:
        """Growing bodies, one after another, as the contract's perf-test sends them."""
        sample = read_sample(self._job.input, 10_000, self._job.content_type)
        for size, iterations in _SIZES:
            body = _grown(sample, size)
            self._tell(f"{len(body) / 1e6:.1f} MB, {iterations} times")
            target = Target(url=url, wires=(to_wire(url, self._job.path, body, sample.content_type, headers),))
            async with Generator(target, timeout=self._job.timeout) as load:
                measured = await load.closed(1, iterations * self._job.timeout, most=iterations)
            self._keep(step_of("size", size, measured))
            await watch.look()

    async def _closed(self, clients: int) -> Step:
        self._tell(f"{clients} clients")
        if self._job.warm_up:
            await self._load.closed(clients, self._job.warm_up)
        return self._keep(step_of("closed", clients, await self._load.closed(clients, self._job.seconds)))

    async def _open(self, rate: float) -> Step:
        self._tell(f"{rate:,.0f} requests/s")
        if self._job.warm_up:
            await self._load.open(rate, self._job.warm_up)
        return self._keep(step_of("open", rate, await self._load.open(rate, self._job.seconds)))

    def _keep(self, step: Step) -> Step:
        self._result.steps.append(step)
        self._step_done(step)
        return step


def _first_status(step: Step) -> str:
    statuses = ", ".join(f"{count} x {status}" for status, count in step.statuses.items() if status != "0")
    return statuses or "every connection was lost or timed out"


@contextlib.asynccontextmanager
async def _target(job: BenchJob, tell: Tell) -> AsyncIterator[str]:
    if job.url is not None:
        yield job.url.rstrip("/")
        return
    assert job.folder is not None
    tell(f"starting a server for {job.folder}")
    async with served(job.folder, flags=job.serve_flags, headers=job.headers) as url:
        yield url


def _bodies(job: BenchJob) -> tuple[list[tuple[bytes, str]], str]:
    """Return bodies with their content types, and the same in words. Raises ``ConfigError``."""
    if not job.input.is_file():
        raise ConfigError(f"--input {job.input}: there is no such file")
    if job.rows == 0:
        body = job.input.read_bytes()
        kind = job.content_type or _WHOLE_TYPES.get(job.input.suffix.lower(), "application/octet-stream")
        return [(body, kind)], f"{job.input.name} as it is, {len(body):,} bytes of {kind}"
    sample = read_sample(job.input, 10_000, job.content_type)
    rows = sample.rows
    cut = [rows[place : place + job.rows] for place in range(0, len(rows), job.rows)]
    cut = [piece for piece in cut if len(piece) == job.rows] or [rows]
    told = f"{len(cut)} different bodies of {len(cut[0])} row{'' if len(cut[0]) == 1 else 's'} of {job.input.name}"
    return [(sample.body(piece), sample.content_type) for piece in cut], told


def _grown(sample: Sample, size: int) -> bytes:
    """Return a body of about this size made of the sample's rows over and over; 0 is one row."""
    if size == 0:
        return sample.body(sample.rows[:1])
    body = sample.body()
    if len(body) >= size:
        rows = max(1, len(sample.rows) * size // len(body))
        return sample.body(sample.rows[:rows])
    if sample.content_type == CSV:
        head, _, lines = body.partition(b"\n")
        return head + b"\n" + lines * max(1, size // max(1, len(lines)))
    return sample.body(list(sample.rows) * (size // len(body)))


class _MemoryWatch:
    """Asks a Backline server for its memory now and then; any other server has no such route, and is left alone."""

    def __init__(self, url: str, headers: Sequence[tuple[str, str]], result: Result) -> None:
        self._url = url
        self._headers = headers
        self._result = result
        self._began = time.monotonic()

    async def run(self) -> None:
        while await self.look():  # noqa: ASYNC110  (what another server takes is no event of ours)
            await asyncio.sleep(_MEMORY_EVERY)

    async def look(self) -> bool:
        """Note the memory; return whether the server says it."""
        try:
            async with asyncio.timeout(5):
                stats = await asyncio.to_thread(_get_json, f"{self._url}/stats/", self._headers)
        except (OSError, ValueError, TimeoutError):
            return bool(self._result.memory)  # busy, or no Backline at all
        memory = stats.get("mem_info", {})
        if "server_resident_bytes" not in memory:
            return False
        server, total = memory["server_resident_bytes"], memory["total_resident_bytes"]
        self._result.memory.append((time.monotonic() - self._began, server, total - server))
        return True


def _get_json(url: str, headers: Sequence[tuple[str, str]]) -> dict[str, dict[str, int]]:
    import http.client

    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=5)
    try:
        connection.request("GET", parts.path, headers=dict(headers))
        content = connection.getresponse().read()
    except http.client.HTTPException as exc:
        raise OSError(str(exc)) from exc
    finally:
        connection.close()
    answer: dict[str, dict[str, int]] = json.loads(content)
    return answer


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where it is installed: the generator is to take as little of the machine as it can."""
    if os.name != "posix":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
