"""An hour of good and bad traffic against real servers: what grows, what leaks, what slows down.

::

    python -m benchmarks.soak                         an hour
    python -m benchmarks.soak --seconds 300           a rehearsal
    python -m benchmarks.soak --page docs/benchmarks/soak.md --plots ENVIRONMENT/bin/python

Two servers: one with a scikit-learn pipeline, two workers and a backend that streams behind it; one whose model streams
chats. Every good answer is held against the library's. Before and after the load, when all clients have left, memory,
file descriptors and threads of each process are compared; while it runs they are sampled into a file. Growth is counted
from after a warm-up. Ctrl-C ends the load early and still judges. The exit code is 1 where something is not as it
should be.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import collections
import contextlib
import dataclasses
import datetime as dt
import json
import logging
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from benchmarks.chaos import (
    CLIENT_TIMEOUT,
    Answer,
    Connection,
    Server,
    code_of,
    running_backend,
    say,
    summary,
    words,
    write_model,
)
from benchmarks.machine import describe

GROWTH_LIMIT = 8.0  # MiB
SLOWER_LIMIT = 1.5  # times
MOST_BODY = 256 * 1024
RIGHT_WITHIN = 1e-12  # relative, as in client.py
SAMPLE_EVERY, SCRAPE_EVERY = 10.0, 5.0
SETTLE_LOOKS = 24
AT_ONCE = 8  # streams of each kind at the end of a load, so that all threads and connections that are kept are there
SHARES = {"predict": 0.62, "proxy stream": 0.05, "chat stream": 0.05, "bad": 0.28}

PREPARE = """
import base64, io, json, sys
import joblib
import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

folder = sys.argv[1]
rng = np.random.default_rng(0)
numeric, words = ["n%d" % i for i in range(12)], ["c0", "c1"]
frame = pd.DataFrame(rng.normal(size=(4000, 12)).round(6), columns=numeric)
for name in words:
    frame[name] = rng.choice(["red", "green", "blue", "grey"], len(frame)).astype(object)
    frame[name] = frame[name].astype(object)
labels = (frame["n0"] + frame["n1"] * frame["n2"] + (frame["c0"] == "red") > 0.3).astype(int)
encode = ColumnTransformer([("n", StandardScaler(), numeric), ("c", OneHotEncoder(handle_unknown="ignore"), words)])
model = make_pipeline(encode, LogisticRegression(max_iter=300)).fit(frame, labels)
joblib.dump(model, folder + "/model.pkl")
with open(folder + "/model-metadata.yaml", "w") as file:
    file.write("name: soak\\ntype: inference\\ntargetType: binary\\ninferenceModel:\\n  targetName: y\\n"
               "  positiveClassLabel: '1'\\n  negativeClassLabel: '0'\\n")
requests, start = [], 0
for number in range(400):
    rows = 1 if rng.random() < 0.8 else int(rng.integers(2, 60))
    part = frame.iloc[start : start + rows].reset_index(drop=True)
    start = (start + rows) % 3900
    kind = ["csv", "json", "arrow", "multipart"][number % 4]
    if kind == "json":
        content_type, body = "application/json", json.dumps(part.to_dict("records")).encode()
        read = pd.DataFrame(json.loads(body))
    elif kind == "arrow":
        try:
            import pyarrow
        except ImportError:
            continue
        content_type, sink = "application/vnd.apache.arrow.stream", io.BytesIO()
        table = pyarrow.Table.from_pandas(part, preserve_index=False)
        with pyarrow.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        body, read = sink.getvalue(), part
    else:
        content_type, body = "text/csv", part.to_csv(index=False).encode()
        read = pd.read_csv(io.BytesIO(body))
    if kind == "multipart":
        head = b'--frontier\\r\\nContent-Disposition: form-data; name="X"; filename="x.csv"\\r\\nContent-Type: text/csv'
        body = head + b"\\r\\n\\r\\n" + body + b"\\r\\n--frontier--\\r\\n"
        content_type = "multipart/form-data; boundary=frontier"
    expected = model.predict_proba(read)[:, ::-1].tolist()
    requests.append({"kind": kind, "type": content_type, "body": base64.b64encode(body).decode(), "expected": expected})
json.dump(requests, open(folder + "/../requests.json", "w"))
"""


# --- what the processes hold


@dataclasses.dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: sizes in MiB."""

    role: str
    rss: float
    pss: float
    own: float
    fds: int
    threads: int


def look(servers: dict[str, Server]) -> dict[int, Held]:
    """Return what each process of the servers holds now."""
    found = {}
    for name, server in servers.items():
        for role, pid in [("front", server.process.pid), *(("worker", pid) for pid in server.workers())]:
            with contextlib.suppress(OSError):
                found[pid] = _held(f"{name}, {role}", pid)
    return found


def _held(role: str, pid: int) -> Held:
    folder = Path("/proc") / str(pid)
    sizes = re.findall(r"^(\w+):\s+(\d+)", (folder / "smaps_rollup").read_text(), re.MULTILINE)
    kib = {name: int(value) for name, value in sizes}
    threads = int(re.findall(r"^Threads:\s+(\d+)", (folder / "status").read_text(), re.MULTILINE)[0])
    own = kib["Private_Clean"] + kib["Private_Dirty"]
    return Held(role, kib["Rss"] / 1024, kib["Pss"] / 1024, own / 1024, len(list((folder / "fd").iterdir())), threads)


# --- the traffic


@dataclasses.dataclass(frozen=True, slots=True)
class Good:
    """A request with the library's answer."""

    kind: str
    wire: bytes
    expected: list[list[float]]


def post(path: str, body: bytes, content_type: str, *headers: str, length: int | None = None) -> bytes:
    """Return the bytes of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {content_type}", *headers]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def read_requests(file: Path) -> list[Good]:
    """Return what ``PREPARE`` has written."""
    return [
        Good(each["kind"], post("/predict/", base64.b64decode(each["body"]), each["type"]), each["expected"])
        for each in json.loads(file.read_text())
    ]


def is_right(answer: Answer, expected: list[list[float]]) -> bool:
    """Whether every number of every row is the library's."""
    if answer.status != 200:
        return False
    rows = json.loads(answer.body)["predictions"]
    return len(rows) == len(expected) and all(
        abs(row[label] - number) <= RIGHT_WITHIN * abs(number)
        for row, numbers in zip(rows, expected, strict=True)
        for label, number in zip("10", numbers, strict=True)
    )


class Traffic:
    """All clients, and what they have seen."""

    def __init__(self, servers: dict[str, Server], good: list[Good], rate: float, *, slow: bool = True) -> None:
        self.right: collections.Counter[str] = collections.Counter()
        self.bad: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self.wrong: list[str] = []
        self.times: list[tuple[float, float]] = []  # when a good prediction was answered, and after how long
        self.predicted = 0
        self.scrapes = 0
        self.stopping = asyncio.Event()
        self._servers = servers
        self._good = good
        self._rate = rate
        self._number = 0
        self._kept: list[Connection] = []  # idle connections of good clients
        self._kinds = self._bad_kinds()
        if not slow:
            del self._kinds["slow headers"], self._kinds["slow body"]

    async def run(self, seconds: float) -> None:
        """Put the load on, and return when everybody has left."""
        end = time.monotonic() + seconds
        kinds, shares = list(SHARES), list(SHARES.values())
        ways = {
            "predict": self._predict,
            "proxy stream": self._proxy_stream,
            "chat stream": self._chat_stream,
            "bad": self._bad,
        }
        async with asyncio.TaskGroup() as group:
            group.create_task(self._scrape(end))
            while time.monotonic() < end and not self.stopping.is_set():
                way = ways[random.choices(kinds, shares)[0]]
                group.create_task(way())
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(random.expovariate(self._rate)):
                        await self.stopping.wait()
        await asyncio.gather(*(way() for way in (self._proxy_stream, self._chat_stream) for _ in range(AT_ONCE)))
        for connection in self._kept:
            connection.close()
        self._kept.clear()

    # --- good ones

    async def _predict(self) -> None:
        request = random.choice(self._good)
        try:
            while self._kept and self._kept[-1].reader.at_eof():  # the server closes what lies idle
                self._kept.pop().close()
            connection = self._kept.pop() if self._kept else await Connection.open(self._servers["pipeline"].port)
            started = time.monotonic()
            async with asyncio.timeout(CLIENT_TIMEOUT):
                connection.writer.write(request.wire)
                answer = await connection.read()
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as exc:
            self.wrong.append(f"{request.kind}: {exc!r}")
            return
        now = time.monotonic()
        self.times.append((now, now - started))
        self.predicted += answer.status == 200
        if is_right(answer, request.expected):
            self.right[request.kind] += 1
        else:
            self.wrong.append(f"{request.kind}: {words(answer)}")
        if connection.keep and len(self._kept) < 8:
            self._kept.append(connection)
        else:
            connection.close()

    def _next(self) -> int:
        self._number += 1
        return self._number

    async def _proxy_stream(self) -> None:
        number = self._next()
        await self._stream(
            "proxy stream", "pipeline", post("/directAccess/stream", b"%d" % number, "text/plain"), number
        )

    async def _chat_stream(self) -> None:
        number = self._next()
        await self._stream("chat stream", "chat", chat_wire(number), number)

    async def _stream(self, kind: str, server: str, wire: bytes, number: int) -> None:
        try:
            connection = await Connection.open(self._servers[server].port)
            async with asyncio.timeout(CLIENT_TIMEOUT):
                connection.writer.write(wire)
                answer = await connection.read()
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as exc:
            self.wrong.append(f"{kind}: {exc!r}")
            return
        connection.close()
        told = "".join(re.findall(r"<\d+>", answer.body.decode()))
        if answer.status == 200 and told == "".join(f"<{number + step}>" for step in range(10)):
            self.right[kind] += 1
        else:
            self.wrong.append(f"{kind}: {words(answer)}")

    async def _scrape(self, end: float) -> None:
        while time.monotonic() < end and not self.stopping.is_set():
            for server in self._servers.values():
                self.scrapes += b"backline_requests_total" in (await server.get("/metrics")).body
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SCRAPE_EVERY):
                    await self.stopping.wait()

    # --- bad ones

    async def _bad(self) -> None:
        kind = random.choice(list(self._kinds))
        if kind.startswith("slow") and random.random() > 0.3:  # they stay for long
            return
        do, allowed = self._kinds[kind]
        try:
            async with asyncio.timeout(CLIENT_TIMEOUT):
                seen = await do()
        except (ConnectionError, asyncio.IncompleteReadError):
            seen = "closed"
        except TimeoutError:
            seen = "no answer"
        self.bad[kind][seen] += 1
        if seen not in allowed:
            self.wrong.append(f"{kind}: {seen}")

    async def _connect(self, server: str = "pipeline") -> Connection:
        return await Connection.open(self._servers[server].port)

    def _bad_kinds(self) -> dict[str, tuple[Callable[[], Awaitable[str]], set[str]]]:
        """Return what is done, with what may come of it.

        One who asks for an answer within a microsecond is told that it is too late, or that there is no time for it; or
        the answer comes in the same look at the sockets as the end of its time.
        """
        csv = next(each for each in self._good if each.kind == "csv").wire.partition(b"\r\n\r\n")[2]
        header, row = csv.split(b"\n")[:2]
        rest = row.split(b",", 1)[1]
        boundary = "multipart/form-data; boundary=frontier"

        def asks(wire: Callable[[], bytes], *allowed: str) -> tuple[Callable[[], Awaitable[str]], set[str]]:
            async def do() -> str:
                return await self._ask(wire())

            return do, set(allowed)

        def predict(body: bytes, content_type: str = "text/csv", *headers: str) -> Callable[[], bytes]:
            return lambda: post(
                "/predictions/", body, content_type, *headers
            )  # /predict/ is for those that are counted

        def odd() -> str:
            return f"{random.getrandbits(64):x}"

        return {
            "a column is missing": asks(predict(header.split(b",", 1)[1] + b"\n" + rest + b"\n"), "422"),
            "text for a number": asks(predict(header + b"\nabc," + rest + b"\n"), "422"),
            "an open quote": asks(predict(header + b'\n"' + row + b"\n"), "422"),
            "not JSON": asks(predict(b'[{"n0": 1.5,', "application/json"), "422"),
            "deep JSON": asks(predict(b"[" * 50_000, "application/json"), "422"),
            "not Arrow": asks(predict(os.urandom(300), "application/vnd.apache.arrow.stream"), "422"),
            "no body": asks(predict(b""), "422"),
            "an unknown type": asks(lambda: post("/predictions/", csv, f"application/x-{odd()}"), "415"),
            "multipart that does not end": asks(predict(b"--frontier\r\nContent-Disp", boundary), "400"),
            "multipart without a boundary": asks(predict(csv, "multipart/form-data"), "400"),
            "too large": asks(predict(b"x" * (MOST_BODY + 1)), "413", "closed"),
            "too large by its word": asks(lambda: post("/predictions/", b"", "text/csv", length=1 << 40), "413"),
            "huge headers": asks(predict(csv, "text/csv", "X-Large: " + "x" * 100_000), "431", "closed"),
            "an unknown route": asks(lambda: post(f"/{odd()}/{odd()}", csv, "text/csv"), "404"),
            "a wrong method": asks(lambda: b"DELETE /predict/ HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
            "an odd method": asks(
                lambda: b"X%s / HTTP/1.1\r\nHost: x\r\n\r\n" % odd().encode(), "400", "405", "closed"
            ),
            "not HTTP": asks(lambda: os.urandom(200) + b"\r\n\r\n", "400", "closed"),
            "a deadline that has passed": asks(
                predict(csv, "text/csv", "X-Request-Timeout: 0.000001"), "504", "503", "200"
            ),
            "a deadline that is none": asks(predict(csv, "text/csv", "X-Request-Timeout: soon"), "400"),
            "a route of the backend that is not there": asks(
                lambda: b"GET /directAccess/%s HTTP/1.1\r\nHost: x\r\n\r\n" % odd().encode(), "200"
            ),
            "a chat that is none": (self._bad_chat, {"400", "422"}),
            "garbage behind a request": (self._pipelined_garbage, {"200 400", "200 closed", "400 closed"}),
            "a body that is cut off": (self._cut_off, {"left"}),
            "leaves at once": (self._leaves, {"left"}),
            "leaves in the midst of a proxied stream": (self._leaves_proxy_stream, {"left"}),
            "leaves in the midst of a chat": (self._leaves_chat, {"left"}),
            "resets the connection": (self._resets, {"left"}),
            "does not read its answer": (self._never_reads, {"left"}),
            "slow headers": (self._slow_headers, {"408", "closed"}),
            "slow body": (self._slow_body, {"408", "closed"}),
        }

    async def _ask(self, wire: bytes, server: str = "pipeline") -> str:
        connection = await self._connect(server)
        try:
            connection.writer.write(wire)
            answer = await connection.read()
        finally:
            connection.close()
        if answer.status not in (200, 404, 405, 400, 431) and not code_of(answer):
            return f"{answer.status} without a code"
        return str(answer.status)

    async def _bad_chat(self) -> str:
        return await self._ask(post("/chat/completions", b'{"messages": [', "application/json"), "chat")

    async def _pipelined_garbage(self) -> str:
        wire = random.choice(self._good).wire.replace(b"/predict/", b"/predictions/", 1)
        connection = await self._connect()
        try:
            connection.writer.write(wire + os.urandom(100) + b"\r\n\r\n")
            first = await connection.read()
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                return f"{first.status} {(await connection.read()).status}"
        finally:
            connection.close()
        return f"{first.status} closed"

    async def _write_and_leave(self, wire: bytes, seconds: float, server: str = "pipeline") -> str:
        connection = await self._connect(server)
        connection.writer.write(wire)
        await asyncio.sleep(random.uniform(0, seconds))
        connection.close()
        return "left"

    async def _cut_off(self) -> str:
        return await self._write_and_leave(post("/predictions/", b"n0,n1\n1,2\n", "text/csv", length=1000), 0.5)

    async def _leaves(self) -> str:
        wire = random.choice(self._good).wire.replace(b"/predict/", b"/predictions/", 1)
        return await self._write_and_leave(wire, 0.004)

    async def _leaves_proxy_stream(self) -> str:
        wire = post("/directAccess/stream", b"%d" % self._next(), "text/plain")
        return await self._write_and_leave(wire, 0.3)

    async def _leaves_chat(self) -> str:
        return await self._write_and_leave(chat_wire(self._next()), 0.3, "chat")

    async def _resets(self) -> str:
        connection = await self._connect()
        connection.writer.write(random.choice(self._good).wire.replace(b"/predict/", b"/predictions/", 1))
        await asyncio.sleep(random.uniform(0, 0.01))
        connection.writer.transport.abort()
        return "left"

    async def _never_reads(self) -> str:
        connection = await self._connect()
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport, too
        for _ in range(20):
            connection.writer.write(random.choice(self._good).wire.replace(b"/predict/", b"/predictions/", 1))
        await asyncio.sleep(3)
        connection.writer.transport.abort()
        return "left"

    async def _slow_headers(self) -> str:
        return await self._trickle(b"POST /predictions/ HTTP/1.1\r\nHost: x\r\nX-Slow: ", "x")

    async def _slow_body(self) -> str:
        return await self._trickle(post("/predictions/", b"n0,", "text/csv", length=100_000), "1")

    async def _trickle(self, wire: bytes, more: str) -> str:
        connection = await self._connect()
        try:
            connection.writer.write(wire)
            async with asyncio.TaskGroup() as group:
                answer = group.create_task(_read_or_lose(connection))
                while not answer.done():
                    connection.writer.write(more.encode())
                    await asyncio.wait([answer], timeout=0.5)
            return answer.result()
        finally:
            connection.close()


async def _read_or_lose(connection: Connection) -> str:
    try:
        return str((await connection.read()).status)
    except (ConnectionError, asyncio.IncompleteReadError):
        return "closed"


def chat_wire(number: int) -> bytes:
    """Return the request for a streamed chat."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": str(number)}]}
    return post("/chat/completions", json.dumps(body).encode(), "application/json")


# --- the run


async def settle(servers: dict[str, Server], seconds: float) -> dict[int, Held]:
    """Wait while the servers get done with the last clients; return the least that is held in the last half."""
    seen = []
    for _ in range(SETTLE_LOOKS):
        seen.append(look(servers))
        await asyncio.sleep(seconds / SETTLE_LOOKS)
    last = seen[SETTLE_LOOKS // 2 :]
    return {
        pid: dataclasses.replace(
            held,
            fds=min(each[pid].fds for each in last if pid in each),
            threads=min(each[pid].threads for each in last if pid in each),
        )
        for pid, held in last[-1].items()
    }


async def sample(servers: dict[str, Server], file: TextIO, started: float) -> None:
    """Write a line for each process every ``SAMPLE_EVERY`` seconds, until cancelled."""
    while True:
        for pid, held in look(servers).items():
            line = {"at": round(time.monotonic() - started, 1), "pid": pid, **dataclasses.asdict(held)}
            file.write(json.dumps(line) + "\n")
        file.flush()
        await asyncio.sleep(SAMPLE_EVERY)


async def run(options: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run the whole of it; return the figures."""
    (work / "pipeline").mkdir()
    command = [options.python, "-c", PREPARE, str(work / "pipeline")]
    await asyncio.to_thread(subprocess.run, command, check=True)
    good = read_requests(work / "requests.json")
    servers: dict[str, Server] = {}
    async with running_backend(set()) as backend:
        try:
            servers["pipeline"] = Server(
                work / "pipeline",
                work,
                *("--workers", str(options.workers), "--min-ready", str(options.workers), "--python", options.python),
                *("--max-body", str(MOST_BODY), "--backend", f"http://127.0.0.1:{backend}"),
            )
            servers["chat"] = Server(write_model(work / "chat", chat=True), work, "--threads", "4")
            for server in servers.values():
                await server.wait_ready()
            return await soak(options, servers, Traffic(servers, good, options.rate, slow=not options.mechanism))
        finally:
            codes = {name: server.stop() for name, server in servers.items()}
            if options.logs is not None:
                for name, server in servers.items():
                    (options.logs / f"{name}.log").write_bytes(server.log_file.read_bytes())
            if any(codes.values()):
                say(f"exit codes of the servers: {codes}")


async def soak(options: argparse.Namespace, servers: dict[str, Server], traffic: Traffic) -> dict[str, Any]:
    """Warm up, look, put the load on, look again, compare."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, traffic.stopping.set)
    say(f"warming up for {options.warm_up:g} s")
    await traffic.run(options.warm_up)
    before = await settle(servers, options.settle)
    traffic.times.clear()
    say(f"load for {options.seconds:g} s")
    began, started = dt.datetime.now(dt.UTC), time.monotonic()
    cpu = {pid: _cpu(pid) for pid in before}
    with options.samples.open("w") as file:
        async with asyncio.TaskGroup() as group:
            sampler = group.create_task(sample(servers, file, started))
            await traffic.run(options.seconds)
            sampler.cancel()
    took = time.monotonic() - started
    cpu = {pid: (_cpu(pid) - seconds) / took for pid, seconds in cpu.items()}
    after = await settle(servers, options.settle)
    pages = {name: (await server.get("/metrics")).body.decode() for name, server in servers.items()}
    return judge(options, traffic, before, after, pages, cpu) | {
        "began": began.isoformat(timespec="seconds"),
        "seconds": round(took),
        "rate": options.rate,
        "workers": options.workers,
        "machine": describe(),
        "python": sys.version.split()[0],
        "served_until_the_end": {name: server.process.poll() is None for name, server in servers.items()},
    }


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def judge(
    options: argparse.Namespace,
    traffic: Traffic,
    before: dict[int, Held],
    after: dict[int, Held],
    pages: dict[str, str],
    cpu: dict[int, float],
) -> dict[str, Any]:
    """Say what has become of each process and of the clients."""
    processes: list[dict[str, Any]] = []
    for pid, old in before.items():
        new = after.get(pid)
        processes.append(
            {
                "role": old.role,
                "pid": pid,
                "before": dataclasses.asdict(old),
                "after": dataclasses.asdict(new) if new else None,
                "growth_mib": round(new.rss - old.rss, 2) if new else None,
                "cpu_share": round(cpu.get(pid, 0.0), 3),
            }
        )
    counted = sum(
        int(float(count))
        for labels, count in re.findall(r"^backline_requests_total\{(.*?)\} (\S+)", pages["pipeline"], re.MULTILINE)
        if re.search(r'route="/predict/?"', labels) and 'status="200"' in labels
    )
    restarts = sum(
        float(count)
        for page in pages.values()
        for count in re.findall(r"^backline_worker_restarts_total\{.*?\} (\S+)", page, re.MULTILINE)
    )
    first = traffic.times[0][0] if traffic.times else 0.0
    span = (traffic.times[-1][0] - first) / 4 if len(traffic.times) > 1 else 1.0
    quarters: list[list[float]] = [[], [], [], []]
    for at, seconds in traffic.times:
        quarters[min(3, int((at - first) / span))].append(seconds)
    summaries = [summary(quarter) for quarter in quarters]
    slower = summaries[3]["p99"] / summaries[0]["p99"] if summaries[0] and summaries[3] else 0.0
    grown: dict[str, float] = collections.defaultdict(float)  # by server
    for each in processes:
        grown[each["role"].partition(",")[0]] += each["growth_mib"] or 0.0
    verdicts = {
        "answers": not traffic.wrong,
        "counters": counted == traffic.predicted,
        "same processes": set(before) == set(after) and not restarts,
        "memory": all(growth < GROWTH_LIMIT for growth in grown.values()),
        "file descriptors": all(each["after"] and each["after"]["fds"] <= each["before"]["fds"] for each in processes),
        "threads": all(each["after"] and each["after"]["threads"] <= each["before"]["threads"] for each in processes),
        "speed": slower <= SLOWER_LIMIT,
    }
    judged = {name: held for name, held in verdicts.items() if not (options.mechanism and name in ("memory", "speed"))}
    return {
        "verdicts": verdicts,
        "failed": not all(judged.values()),
        "right": dict(traffic.right),
        "bad": {kind: dict(seen) for kind, seen in sorted(traffic.bad.items())},
        "wrong": traffic.wrong[:50],
        "wrong_in_all": len(traffic.wrong),
        "predictions_answered": traffic.predicted,
        "predictions_counted_by_the_server": counted,
        "scrapes": traffic.scrapes,
        "metrics_lines": {name: page.count("\n") for name, page in pages.items()},
        "processes": processes,
        "growth_mib": {name: round(growth, 1) for name, growth in grown.items()},
        "quarters": summaries,
        "p99_of_the_last_quarter_to_the_first": round(slower, 2),
    }


# --- words


def table(result: dict[str, Any]) -> str:
    """Return the tables of the page."""
    lines = ["| process | RSS before / after MiB | growth | own memory | file descriptors | threads | of a core |"]
    lines.append("| --- | --- | --- | --- | --- | --- | --- |")
    for each in result["processes"]:
        old, new = each["before"], each["after"] or dict.fromkeys(each["before"], float("nan"))
        lines.append(
            f"| {each['role']} | {old['rss']:.1f} / {new['rss']:.1f} | {new['rss'] - old['rss']:+.1f} "
            f"| {old['own']:.1f} / {new['own']:.1f} | {old['fds']} / {new['fds']} "
            f"| {old['threads']} / {new['threads']} | {100 * each['cpu_share']:.0f} % |"
        )
    lines += ["", "| quarter | p50 ms | p99 ms | slowest ms |", "| --- | --- | --- | --- |"]
    for number, each in enumerate(result["quarters"], 1):
        if each:
            lines.append(f"| {number} | {1e3 * each['p50']:.1f} | {1e3 * each['p99']:.1f} | {1e3 * each['max']:.0f} |")
    lines += ["", "| bad request | what came of it |", "| --- | --- |"]
    for kind, seen in result["bad"].items():
        lines.append(f"| {kind} | {', '.join(f'{what} ({count:,})' for what, count in sorted(seen.items()))} |")
    return "\n".join(lines)


def verdict_lines(result: dict[str, Any]) -> str:
    """Return a line for each thing that is judged."""
    good, bad = sum(result["right"].values()), sum(sum(seen.values()) for seen in result["bad"].values())
    growth = ", ".join(f"{name} {grown:+.1f}" for name, grown in result["growth_mib"].items())
    said = {
        "answers": f"{good:,} good requests answered right, {bad:,} bad ones as they should be, "
        f"{result['wrong_in_all']} otherwise",
        "counters": f"{result['predictions_answered']:,} predictions seen by clients, "
        f"{result['predictions_counted_by_the_server']:,} counted by `/metrics`",
        "same processes": "no process ended, none was replaced",
        "memory": f"{growth} MiB resident, front and workers together; limit {GROWTH_LIMIT:g} for a server",
        "file descriptors": "none more than before in any process",
        "threads": "none more than before in any process",
        "speed": f"p99 of the last quarter {result['p99_of_the_last_quarter_to_the_first']:.2f} times that of the "
        f"first; limit {SLOWER_LIMIT:g}",
    }
    lines = ["| what | seen | |", "| --- | --- | --- |"]
    lines += [
        f"| {name} | {said[name]} | {'held' if held else '**not held**'} |" for name, held in result["verdicts"].items()
    ]
    return "\n".join(lines)


def series(samples: Path) -> dict[str, list[list[float]]]:
    """Return what each process has grown by, over minutes."""
    lines: dict[str, list[list[float]]] = {}
    first: dict[int, float] = {}
    for text in samples.read_text().splitlines():
        each = json.loads(text)
        growth = each["rss"] - first.setdefault(each["pid"], each["rss"])
        lines.setdefault(f"{each['role']} {each['pid']}", []).append([each["at"] / 60, growth])
    return {re.sub(r" \d+$", f" {number}", label): points for number, (label, points) in enumerate(lines.items(), 1)}


def write_page(result: dict[str, Any], options: argparse.Namespace) -> None:
    """Write the page, and the plot where there is matplotlib."""
    text = PAGE.format(
        kind="An hour" if result["seconds"] >= 3590 else f"{result['seconds'] / 60:.0f} minutes",
        note=f"\n{options.note}\n" if options.note else "",
        warm_up=f"{options.warm_up:g}",
        verdicts=verdict_lines(result),
        tables=table(result),
        plot="\n![Growth of resident memory](soak-memory.svg)\n" if options.plots else "",
        **{name: result[name] for name in ("began", "machine", "python", "rate", "workers", "seconds")},
    )
    options.page.write_text(text)
    if options.plots:
        plot = {
            "file": "soak-memory.svg",
            "title": "Growth of resident memory under good and bad traffic",
            "x": "minutes",
            "y": "MiB",
            "linear": True,
            "lines": series(options.samples),
        }
        command = [options.plots, str(Path(__file__).with_name("plots.py")), str(options.page.parent)]
        subprocess.run(command, input=json.dumps([plot]), text=True, check=True)


PAGE = """# Soak

{kind} of good and bad traffic against two servers: what grows, what leaks, what slows down.
Made by `python -m benchmarks.soak`; [how it measures](../../benchmarks/README.md#soak).

{began}; {machine}; Python {python}; {rate:g} requests a second for {seconds:,} s, {workers} workers.
{note}
{verdicts}

## In figures

Before: after a warm-up of {warm_up} s of the same load, when all clients had left.
After: at the end, when all clients had left.
*Own memory* is what the process shares with no other.
{plot}
{tables}
"""


def report(result: dict[str, Any]) -> str:
    """Return what is printed at the end."""
    head = f"{'FAILED' if result['failed'] else 'passed'}: soak of {result['seconds']} s"
    wrong = "\n".join(f"  {each}" for each in result["wrong"])
    return "\n\n".join(part for part in (head, verdict_lines(result), table(result), wrong) if part)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--warm-up", type=float, default=120, help="seconds of the same load before the first look")
    parser.add_argument("--rate", type=float, default=50, help="requests a second, good and bad, in all (default 50)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--python", default=sys.executable, help="the model's interpreter: scikit-learn and pyarrow")
    parser.add_argument("--samples", type=Path, default=Path("soak.jsonl"), help="file for the samples of memory")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    parser.add_argument("--from-json", type=Path, help="only write the page, from the figures of a run")
    parser.add_argument("--page", type=Path, help="the page of the documentation to write")
    parser.add_argument("--plots", help="an interpreter with matplotlib, to draw the plot beside the page")
    parser.add_argument("--note", default="", help="a line for the page: what else ran on the machine")
    parser.add_argument("--logs", type=Path, help="a folder that the servers' logs are kept in")
    parser.add_argument("--settle", type=float, default=24, help="seconds without clients before each look")
    parser.add_argument(
        "--mechanism", action="store_true", help="no slow clients, and memory and speed are told, not judged"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, report; return the exit code."""
    options = parse(arguments)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # our backend writes to clients that have left
    if options.from_json is not None:
        result = json.loads(options.from_json.read_text())
    else:
        with tempfile.TemporaryDirectory(prefix="soak-") as work:
            result = asyncio.run(run(options, Path(work)))
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    if options.page is not None:
        write_page(result, options)
    print(report(result))
    return int(result["failed"])


if __name__ == "__main__":
    sys.exit(main())
