"""Kills workers, stops servers and loads models anew, under load, and holds every answer against its request.

    python benchmarks/chaos.py kills --kills 10000        SIGKILL, SIGSEGV, SIGSTOP, out of memory, poisonous requests
    python benchmarks/chaos.py stops --times 200          SIGTERM at random moments, with streams under way
    python benchmarks/chaos.py reloads --times 200        two models take turns
    python benchmarks/chaos.py restore --times 200        how long a killed worker is missed, beside the load time

Each request carries a value of its own that its answer must match. A connection that ends without an answer is held
against what the model and the backend have noted: who was worked for must have got an answer. The report goes to
standard output as text and, with --json, into a file. The exit code is 1 where anything was lost or wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import dataclasses
import functools
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

PREDICTING = """
import ctypes
import os
import time

JOURNAL = os.open(os.environ["CHAOS_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
CODE = "{version}"


def load_model(code_dir):
    with open(os.path.join(code_dir, "weights")) as weights:
        return weights.read()


def poison_oom():
    return bytearray(1 << 30)


def poison_segfault():
    ctypes.string_at(0)


def poison_exit():
    os._exit(7)


def score_unstructured(model, data, query, **kwargs):
    os.write(JOURNAL, data.encode() + b"\\n")
    if "poison" in query:
        globals()["poison_" + query["poison"]]()
    time.sleep(float(query.get("seconds", 0)))
    return "%s %d %s %s" % (data, int(data) * 7 + 1, CODE, model)
"""
CHATTING = """
import os
import time

JOURNAL = os.open(os.environ["CHAOS_JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def load_model(code_dir):
    return None


def score(data, model, **kwargs):
    raise NotImplementedError


def chat(params, model):
    text = params["messages"][0]["content"]
    os.write(JOURNAL, text.encode() + b"\\n")
    number = int(text)
    for step in range(10):
        time.sleep(0.03)
        yield {
            "id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{"index": 0, "delta": {"content": "<%d>" % (number + step)}, "finish_reason": None}],
        }
"""
METADATA = "name: chaos\ntype: inference\ntargetType: {target}\n"
POISONS = {"oom": "out_of_memory", "segfault": "worker_died", "exit": "worker_died"}
CLIENT_TIMEOUT = 120.0


def write_model(folder: Path, version: str = "A", *, chat: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "custom.py").write_text(CHATTING if chat else PREDICTING.replace("{version}", version))
    (folder / "weights").write_text(version)
    target = "textgeneration\ninferenceModel:\n  targetName: answer" if chat else "unstructured"
    (folder / "model-metadata.yaml").write_text(METADATA.replace("{target}", target))
    return folder


def right_answer(number: int, version: str = "A") -> bytes:
    return f"{number} {number * 7 + 1} {version} {version}".encode()


# --- the server


class Server:
    """``backline serve`` in a process of its own, with its log in a file."""

    def __init__(self, folder: Path, work: Path, *flags: str) -> None:
        self.journal = work / "journal"
        self.log_file = work / f"server-{time.monotonic_ns()}.log"
        environment = dict(os.environ, CHAOS_JOURNAL=str(self.journal))
        command = [sys.executable, "-m", "backline", "serve", str(folder), "--address", "127.0.0.1:0", *flags]
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        self.port = 0

    async def wait_ready(self) -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            found = re.search(r"Listening on http://127\.0\.0\.1:(\d+)", self.log_file.read_text(errors="replace"))
            if found:
                self.port = int(found[1])
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    if (await self.get("/readyz")).status == 200:
                        return
            await asyncio.sleep(0.05)
        raise SystemExit(f"the server is not ready:\n{self.log_file.read_text(errors='replace')[-3000:]}")

    async def get(self, path: str) -> Answer:
        connection = await Connection.open(self.port)
        try:
            return await connection.ask("GET", path)
        finally:
            connection.close()

    def workers(self) -> list[int]:
        """Return the processes that the server has started: also those that load.

        Without those that are still copies of the server, between fork and exec: the kernel holds up the parent that
        long (vfork), so a SIGSTOP in that moment would stop the server itself.
        """
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [int(child) for child in children if is_worker(child)]

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def is_worker(pid: str) -> bool:
    try:
        return b"boot.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


# --- the clients


@dataclasses.dataclass
class Answer:
    status: int
    body: bytes


class Connection:
    """A connection that is kept, and the bytes that nobody has asked for: an answer too many would be seen."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.begun = False  # the present answer has begun
        self.keep = True

    @classmethod
    async def open(cls, port: int) -> Connection:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def ask(self, method: str, path: str, body: bytes = b"", content_type: str = "text/plain") -> Answer:
        self.begun = False
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}"
        self.writer.write(head.encode() + b"\r\n\r\n" + body)
        return await self.read()

    async def read(self) -> Answer:
        """Read the next answer."""
        head_bytes = await self.reader.readuntil(b"\r\n\r\n")
        self.begun = True
        status = int(head_bytes.split(b" ", 2)[1])
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in head_bytes.split(b"\r\n")[1:-2])
        }
        self.keep = headers.get(b"connection") != b"close"
        if headers.get(b"transfer-encoding") == b"chunked":
            pieces = []
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                pieces.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return Answer(status, b"".join(pieces))
        return Answer(status, await self.reader.readexactly(int(headers.get(b"content-length", b"0"))))

    def close(self) -> None:
        self.writer.close()


@dataclasses.dataclass
class Tally:
    """What the clients have seen."""

    right: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    told: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    refused: int = 0  # no answer, and nobody has worked for it
    wrong: list[str] = dataclasses.field(default_factory=list)
    unanswered: list[int] = dataclasses.field(default_factory=list)
    seconds: list[float] = dataclasses.field(default_factory=list)
    in_flight: dict[int, float] = dataclasses.field(default_factory=dict)

    @property
    def requests(self) -> int:
        return self.right.total() + self.told.total() + self.refused + len(self.wrong) + len(self.unanswered)


async def keep_asking(  # noqa: PLR0912  (one thing that can happen to a request after another)
    server: Server,
    tally: Tally,
    numbers: Iterator[int],
    going_on: Callable[[], bool],
    request: Callable[[int], tuple[str, bytes, str]],
    judge: Callable[[int, Answer], str | None],
    *,
    pause: float = 0.0,
) -> None:
    """Ask one thing after another while ``going_on``. ``judge`` returns what is wrong with an answer, or ``None``."""
    connection: Connection | None = None
    while going_on():
        number = next(numbers)
        path, body, kind = request(number)
        tally.in_flight[number] = started = time.monotonic()
        try:
            if connection is None:
                connection = await Connection.open(server.port)
            content_type = "application/json" if kind == "chat" else "text/plain"
            async with asyncio.timeout(CLIENT_TIMEOUT):
                answer = await connection.ask("POST", path, body, content_type)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as exc:
            if connection is not None and connection.begun:
                tally.wrong.append(f"{kind} {number}: the answer was cut off ({exc!r})")
            else:
                tally.unanswered.append(number)
            if connection is not None:
                connection.close()
            connection = None
            await asyncio.sleep(0.02)
        else:
            tally.seconds.append(time.monotonic() - started)
            if (problem := judge(number, answer)) is None:
                tally.right[kind] += 1
            elif problem.startswith("told "):
                tally.told[problem.removeprefix("told ")] += 1
            else:
                tally.wrong.append(f"{kind} {number}: {problem}")
            if not connection.keep:
                connection.close()
                connection = None
        finally:
            del tally.in_flight[number]
        if pause:
            await asyncio.sleep(random.expovariate(1 / pause))
    if connection is not None:
        connection.close()


def code_of(answer: Answer) -> str:
    with contextlib.suppress(ValueError, KeyError, TypeError):
        content = json.loads(answer.body)
        return str(content["error"]["code"] if "error" in content else content["code"])
    return ""


def words(answer: Answer) -> str:
    return f"{answer.status} {answer.body[:200]!r}"


# --- kills


async def run_kills(options: argparse.Namespace, work: Path) -> dict[str, Any]:  # noqa: C901, PLR0915  (told in one piece)
    server = Server(
        write_model(work / "model"),
        work,
        *("--workers", str(options.workers), "--memory-limit", "256MiB", "--max-restarts", "1000"),
        *("--restart-backoff", "0", "--poison-time", "1", "--logging-level", "info"),
    )
    tally, poisoned = Tally(), Tally()
    kills: collections.Counter[str] = collections.Counter()
    numbers = itertools.count(1)
    kinds = {"SIGKILL": 0.45, "SIGSEGV": 0.35, "SIGSTOP": 0.08, "oom": 0.06, "segfault": 0.03, "exit": 0.03}
    began = time.monotonic()
    try:
        await server.wait_ready()
        deadline = began + options.minutes * 60
        done = False

        def judge(number: int, answer: Answer) -> str | None:
            return None if (answer.status, answer.body) == (200, right_answer(number)) else words(answer)

        def request(number: int) -> tuple[str, bytes, str]:
            return "/predictUnstructured/?seconds=0.002", b"%d" % number, "predict"

        async def send_poison(kind: str) -> None:
            number = next(numbers)
            try:
                async with asyncio.timeout(CLIENT_TIMEOUT):
                    connection = await Connection.open(server.port)
                    answer = await connection.ask("POST", f"/predictUnstructured/?poison={kind}", b"%d" % number)
                    connection.close()
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                poisoned.unanswered.append(number)
                return
            if code_of(answer) == POISONS[kind]:
                poisoned.right[kind] += 1
            else:
                poisoned.wrong.append(f"{kind} {number}: {words(answer)}")

        async with asyncio.TaskGroup() as group:
            for _ in range(options.clients):
                group.create_task(
                    keep_asking(server, tally, numbers, lambda: not done, request, judge, pause=options.pause)
                )
            stopped: dict[int, set[int]] = {}  # with the requests that it may hold
            struck: set[int] = set()  # until they are gone: none is counted twice
            poisons: set[asyncio.Task[None]] = set()
            told = 0
            while kills.total() < options.kills and time.monotonic() < deadline and is_running(server.process):
                kind = random.choices(list(kinds), list(kinds.values()))[0]
                hit, answered = set(tally.in_flight), tally.right.total()
                if kind in POISONS:
                    poison = group.create_task(send_poison(kind))
                    poisons.add(poison)
                    poison.add_done_callback(poisons.discard)
                    kills[kind] += 2 if kind != "oom" else 1  # workers that it costs
                else:
                    children = set(server.workers())
                    struck &= children
                    workers = sorted(children - struck)
                    if not workers:
                        await asyncio.sleep(0.01)
                        continue
                    pid = random.choice(workers)
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, getattr(signal, kind))
                        kills[kind] += 1
                        struck.add(pid)
                        if kind == "SIGSTOP":
                            stopped[pid] = hit
                # No request is hit twice: it would be answered 500, as documented. One on a stopped worker waits until
                # that is noticed; this is not held against it, so it need not be waited for.
                patience = time.monotonic() + 10
                while time.monotonic() < patience:
                    alive = set(server.workers())
                    stopped = {pid: held for pid, held in stopped.items() if pid in alive}
                    pending = (hit & tally.in_flight.keys()) - set().union(*stopped.values())
                    # The load goes on: some are answered between two kills, and poison does not pile up.
                    if not pending and tally.right.total() >= answered + options.answers and len(poisons) < 3:
                        break
                    await asyncio.sleep(0.005)
                await asyncio.sleep(random.expovariate(1 / options.interval))
                if kills.total() // 500 > told:
                    told = kills.total() // 500
                    say(f"{kills.total()} kills, {tally.requests} requests, {len(tally.wrong)} wrong")
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            done = True
        front_alive = is_running(server.process)
        stats = json.loads((await server.get("/stats/")).body) if front_alive else {}
        page = (await server.get("/metrics")).body.decode() if front_alive else ""
    finally:
        code = server.stop()
    log = server.log_file.read_text(errors="replace")
    if not front_alive:
        say(f"the server has ended with {code}:\n{log[-3000:]}")
    ended = re.findall(r'^backline_worker_restarts_total\{.*?cause="(\w+)".*?\} (\d+)', page, re.MULTILINE)
    return {
        "proof": "kills",
        "kills": kills.total(),
        "kills_by_kind": dict(kills),
        "workers": options.workers,
        "clients": options.clients,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "requests": tally.requests,
        "right": tally.right.total(),
        "wrong": tally.wrong,
        "unanswered": tally.unanswered,
        "seconds": summary(tally.seconds),
        "poisonous": {
            "as_documented": dict(poisoned.right),
            "other": poisoned.wrong,
            "unanswered": poisoned.unanswered,
        },
        "front": {"same_process": front_alive, "exit_code": code, "faults": log.count("fault in the server")},
        "stats": {name: stats.get(name) for name in ("restarts", "recycled", "queue")},
        "ended_as_the_server_counts": {cause: int(count) for cause, count in ended},
        "failed": bool(
            tally.wrong or tally.unanswered or poisoned.wrong or poisoned.unanswered or not front_alive or code
        ),
    }


# --- stops


@contextlib.asynccontextmanager
async def running_backend(seen: set[int]) -> AsyncIterator[int]:
    """An LLM backend that streams: ten pieces that say which request they belong to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if b"/stream" not in head.split(b"\r\n", 1)[0]:
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    continue
                number = int(body)
                seen.add(number)
                writer.write(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n\r\n"
                )
                for step in range(10):
                    piece = b"<%d>" % (number + step)
                    writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
                    await asyncio.sleep(0.03)
                writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def is_running(process: subprocess.Popen[bytes]) -> bool:
    return process.poll() is None


async def run_stops(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    models = {"predict": write_model(work / "model"), "chat": write_model(work / "chat", chat=True)}
    total, codes, dropped = Tally(), collections.Counter[int](), []
    numbers = itertools.count(1)
    slowest = 0.0
    seen_by_backend: set[int] = set()

    def pieces(number: int) -> bytes:
        return b"".join(b"<%d>" % (number + step) for step in range(10))

    def judge(number: int, answer: Answer) -> str | None:
        if answer.status == 503 and code_of(answer) == "draining":
            return "told draining"
        if answer.status != 200:
            return words(answer)
        if answer.body in (right_answer(number), pieces(number)):
            return None
        told = b"".join(part.encode() for part in re.findall(r'"content": ?"([^"]*)"', answer.body.decode()))
        return None if told == pieces(number) and answer.body.rstrip().endswith(b"data: [DONE]") else words(answer)

    def predict(number: int) -> tuple[str, bytes, str]:
        return "/predictUnstructured/?seconds=0.01", b"%d" % number, "predict"

    def chat(number: int) -> tuple[str, bytes, str]:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": str(number)}]}
        return "/chat/completions", json.dumps(body).encode(), "chat"

    def stream(number: int) -> tuple[str, bytes, str]:
        return "/directAccess/stream", b"%d" % number, "proxy stream"

    async with running_backend(seen_by_backend) as backend:
        for turn in range(options.times):
            kind = ("predict", "chat")[turn % 2]
            delay = (0.0, 0.3)[turn // 2 % 2]
            flags = ["--backend", f"http://127.0.0.1:{backend}", "--drain-delay", f"{delay}s", "--workers", "1"]
            server = Server(models[kind], work, *flags)
            tally = Tally()
            try:
                await server.wait_ready()
                running = server.process
                async with asyncio.TaskGroup() as group:
                    for ask in [{"predict": predict, "chat": chat}[kind]] * 4 + [stream] * 3:
                        going_on = functools.partial(is_running, running)
                        group.create_task(keep_asking(server, tally, numbers, going_on, ask, judge))
                    await asyncio.sleep(random.uniform(0.05, 1.0))
                    server.process.terminate()
                    stopping = time.monotonic()
                    code = await asyncio.to_thread(server.process.wait, 60)
                    slowest = max(slowest, time.monotonic() - stopping)
                codes[code] += 1
            finally:
                server.stop()
            worked_for = {int(line) for line in server.journal.read_text().split()} | seen_by_backend
            for number in tally.unanswered:
                if number in worked_for:
                    dropped.append(number)
                else:
                    total.refused += 1
            total.right.update(tally.right)
            total.told.update(tally.told)
            total.wrong += tally.wrong
            server.journal.unlink()
            if (turn + 1) % 20 == 0:
                say(f"{turn + 1} stops, {total.requests} requests, {len(dropped)} dropped, {len(total.wrong)} wrong")
    return {
        "proof": "stops",
        "times": options.times,
        "exit_codes": {str(code): count for code, count in codes.items()},
        "answered": dict(total.right),
        "told": dict(total.told),
        "connections_closed_before_anybody_worked_for_them": total.refused,
        "dropped": dropped,
        "wrong": total.wrong,
        "slowest_stop_seconds": round(slowest, 2),
        "failed": bool(dropped or total.wrong or set(codes) != {0}),
    }


# --- reloads


async def run_reloads(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    folders = {version: write_model(work / version, version) for version in "AB"}
    link = work / "current"
    link.symlink_to(folders["A"])
    server = Server(link, work, "--workers", str(options.workers), "--min-ready", str(options.workers))
    tally = Tally()
    numbers = itertools.count(1)
    versions: collections.Counter[str] = collections.Counter()
    took = []

    def judge(number: int, answer: Answer) -> str | None:
        for version in "AB":
            if (answer.status, answer.body) == (200, right_answer(number, version)):
                versions[version] += 1
                return None
        return words(answer)

    def request(number: int) -> tuple[str, bytes, str]:
        return "/predictUnstructured/?seconds=0.002", b"%d" % number, "predict"

    stale = 0
    try:
        await server.wait_ready()
        done = False
        async with asyncio.TaskGroup() as group:
            for _ in range(options.clients):
                group.create_task(
                    keep_asking(server, tally, numbers, lambda: not done, request, judge, pause=options.pause)
                )
            for turn in range(options.times):
                version = "BA"[turn % 2]
                (work / "new").symlink_to(folders[version])
                (work / "new").rename(link)
                began = time.monotonic()
                server.process.send_signal(signal.SIGHUP)
                while True:
                    told = json.loads((await server.get("/info/")).body)["reload"]
                    if told["generation"] == turn + 2 and not told["reloading"]:
                        break
                    if time.monotonic() - began > 120:
                        raise SystemExit(f"the reload does not end: {told}")
                    await asyncio.sleep(0.02)
                took.append(time.monotonic() - began)
                # From now on nothing old may come.
                number = next(numbers)
                connection = await Connection.open(server.port)
                stale += (await connection.ask("POST", "/predictUnstructured/", b"%d" % number)).body != right_answer(
                    number, version
                )
                connection.close()
                if (turn + 1) % 20 == 0:
                    say(f"{turn + 1} reloads, {tally.requests} requests, {len(tally.wrong)} wrong")
            done = True
        stats = json.loads((await server.get("/stats/")).body)
    finally:
        code = server.stop()
    return {
        "proof": "reloads",
        "times": options.times,
        "workers": options.workers,
        "requests": tally.requests,
        "answered_by": dict(versions),
        "wrong": tally.wrong,
        "unanswered": tally.unanswered,
        "answers_of_the_old_model_after_a_reload": stale,
        "reload_seconds": summary(took),
        "request_seconds": summary(tally.seconds),
        "worker_restarts": stats["restarts"],
        "exit_code": code,
        "failed": bool(tally.wrong or tally.unanswered or stale or code),
    }


# --- restore


async def run_restore(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    server = Server(
        options.model or write_model(work / "model"),
        work,
        *("--workers", str(options.workers), "--min-ready", str(options.workers)),
        *("--max-restarts", "1000", "--restart-backoff", "0"),  # nobody asks, so they die before they have answered
        *(["--python", options.python] if options.python else []),
    )
    missed, loads = [], []
    try:
        await server.wait_ready()
        for _ in range(options.times):
            stats = json.loads((await server.get("/stats/")).body)
            victim = random.choice([worker["pid"] for worker in stats["workers"]])
            began = time.monotonic()
            os.kill(victim, signal.SIGKILL)
            while True:
                stats = json.loads((await server.get("/stats/")).body)
                serving = [each["pid"] for each in stats["workers"] if each["state"] in ("ready", "busy")]
                if victim not in serving and len(serving) == options.workers:
                    break
                await asyncio.sleep(0.005)
            missed.append(time.monotonic() - began)
        log = server.log_file.read_text(errors="replace")
        loads = [float(seconds) for seconds in re.findall(r"is ready after ([\d.]+) s", log)]
        info = json.loads((await server.get("/info/")).body)
    finally:
        code = server.stop()
    return {
        "proof": "restore",
        "times": options.times,
        "workers": options.workers,
        "model": str(options.model or "hooks without numpy"),
        "library": info["model"].get("library"),
        "seconds_until_full_capacity": summary(missed),
        "seconds_of_the_models_load": summary(loads),
        "failed": bool(code),
    }


# --- words


def summary(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {}
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": round(cuts[49], 4), "p99": round(cuts[98], 4), "max": round(max(seconds), 4)}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def report(result: dict[str, Any]) -> str:
    lines = [f"{'FAILED' if result['failed'] else 'passed'}: {result['proof']}"]
    for name, value in result.items():
        if name in ("proof", "failed"):
            continue
        if isinstance(value, list):
            value = f"{len(value)}{': ' if value else ''}{'; '.join(map(str, value[:10]))}"  # noqa: PLW2901
        elif isinstance(value, dict):
            value = ", ".join(f"{key} {inner}" for key, inner in value.items()) or "none"  # noqa: PLW2901
        lines.append(f"  {name.replace('_', ' '):<36} {value}")
    return "\n".join(lines)


RUNS: dict[str, Callable[[argparse.Namespace, Path], Awaitable[dict[str, Any]]]] = {
    "kills": run_kills,
    "stops": run_stops,
    "reloads": run_reloads,
    "restore": run_restore,
}


def main(arguments: list[str] | None = None) -> int:
    """Run one of the proofs; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proof", choices=RUNS)
    parser.add_argument("--kills", type=int, default=10_000, help="kills: how many workers to kill")
    parser.add_argument("--minutes", type=float, default=120, help="kills: how long at most")
    parser.add_argument("--interval", type=float, default=0.05, help="kills: mean seconds between two")
    parser.add_argument("--answers", type=int, default=3, help="kills: right answers between two, at least")
    parser.add_argument("--times", type=int, default=200, help="stops, reloads, restore: how many")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--pause", type=float, default=0.01, help="mean seconds between two requests of a client")
    parser.add_argument("--model", type=Path, help="restore: a model folder in place of the built-in one")
    parser.add_argument("--python", help="restore: its interpreter")
    parser.add_argument("--json", type=Path, help="a file for the report")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, and the servers would inherit that
    with tempfile.TemporaryDirectory(prefix="chaos-") as work:
        result = asyncio.run(RUNS[options.proof](options, Path(work)))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    print(report(result))
    return int(result["failed"])


if __name__ == "__main__":
    sys.exit(main())
