"""One worker process as the server sees it: its state, its channel, the call it is busy with.

::

    STARTING ──connected──▶ LOADING ──READY frame──▶ READY ⇄ BUSY
        │                      │                       │      │
        │                      │                       └──────┴──stop()──▶ DRAINING
        └──────────────────────┴───────── process gone ──────────────────────┴──▶ DEAD

``state`` is changed by ``_change`` only. A worker dies once; its call, if it had one, is then handed back to the owner.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import functools
import logging
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from backline.errors import ModelLoadFailed, WorkerReported
from backline.runtime.call import Call, CallState, Reply
from backline.runtime.chats import ChatStream
from backline.runtime.confinement import UNCONFINED, Confinement
from backline.runtime.launch import Launched, launch
from backline.runtime.process import WorkerProcess
from backline_worker import channel
from backline_worker.channel import Kind
from backline_worker.status import StatusPage

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from backline.observe.tracing import BatchTrace
    from backline.observe.worker_log import WorkerLog
    from backline.runtime.chats import Chats

logger = logging.getLogger("backline.runtime")

_LAST_OUTPUT_TIMEOUT = 1.0  # seconds for the last lines after the process is gone
_LAST_FRAMES_TIMEOUT = 0.5  # seconds for what is left in the channel: a child of the model may hold it open
_CONNECT_TIMEOUT = 30.0
_READ_BYTES = 64 << 10
_NOTICE_TIMEOUT = 0.1  # seconds from the end of the channel until it is looked whether the process is gone
_REAP_TIMEOUT = 1.0  # seconds for a process that was killed to be gone
_RECENT_CALLS = 64


class WorkerState(enum.Enum):
    """The life of a worker; see the picture above."""

    STARTING = "starting"
    LOADING = "loading"
    READY = "ready"
    BUSY = "busy"
    DRAINING = "draining"
    DEAD = "dead"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What a worker said when it was ready."""

    description: dict[str, Any]
    warm_up: dict[str, Any] | None
    load_seconds: float


Results = list[tuple[Call, Reply | WorkerReported]]
"""What became of each call of a frame."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPlan:
    """How to start a worker: the same for every worker of a model."""

    python: str
    spec: dict[str, Any]
    payload_directory: str
    math_threads: int | None = None  # what the numeric libraries of each may use
    generation: int = 1  # how many models the server has loaded, one after another
    confinement: Confinement = UNCONFINED
    preload: bool = False
    """Whether workers are forked from a process that has loaded the model (``zygote.py``)."""


class WorkerOwner(Protocol):
    """Told by a worker, from the event loop, when something has changed."""

    def calls_finished(self, worker: Worker, results: Results, seconds: float) -> None:
        """The worker has answered all its calls, after ``seconds``, and is free again."""

    def worker_reported(self, worker: Worker, report: dict[str, Any]) -> None:
        """User code in the worker has counted something; the report is as it came, so it may hold anything."""

    def calls_lost(self, worker: Worker, calls: list[Call], stage: str) -> None:
        """The worker is dead, and these calls were in its hands, at ``stage``; ``"idle"``: not yet started."""

    @property
    def chats(self) -> Chats:
        """Told of the chats in the same way."""


class Worker(asyncio.Protocol):
    """Owns one worker process from start to end."""

    def __init__(
        self,
        number: int,
        plan: WorkerPlan,
        owner: WorkerOwner,
        make_log: Callable[[Worker], WorkerLog],
        *,
        launched: Launched | None = None,
        fork: Callable[[], Awaitable[Launched]] | None = None,
        is_zygote: bool = False,
    ) -> None:
        """``launched``: a process of this plan that was started already; the worker's from here on.

        ``fork`` makes one out of a process that has the model loaded; ``is_zygote`` says that this is such a one, which
        takes no calls.
        """
        self.number = number
        self.is_forked = fork is not None
        self.is_zygote = is_zygote
        self.state = WorkerState.STARTING
        self.calls: list[Call] = []  # what it works on: one call, or a batch
        self.chats: dict[int, Call] = {}  # by the channel's id; they run beside each other and beside the calls
        self.answered = 0  # requests
        self.frames = 0  # calls of the model that answered them: fewer, where batches form
        self.pid: int | None = None
        self.death_reason: str | None = None
        self.death_cause = ""  # the same in a word that metrics can have as a label, as soon as it is dead
        self.died_working = False  # on a call that it had begun with
        self.innocent = False  # it had to die, whatever it worked on: no call is to blame
        self.private_bytes = 0  # memory of its own, as last looked at
        self.loaded_bytes = 0  # the same, when it had just loaded
        self._descriptor: int | None = None  # of the channel, owned by the transport
        self.forked_bytes = 0  # of one that was forked: with what it shares, when it was ready
        self.heard_at = time.monotonic()  # when it last gave a sign of life
        self.pinged_at: float | None = None  # when it was asked for one that it owes
        self.retiring = False  # takes no further call; its replacement is on the way
        self.ready: asyncio.Future[Ready] = asyncio.get_running_loop().create_future()
        # By the channel's id, what lines of output are logged with; also for those that arrive after the answer.
        self.recent: dict[int, Mapping[str, str]] = {}
        self.log = make_log(self)
        self.started_at = time.monotonic()
        self.last_started = 0.0  # when it was given its last calls (time.monotonic)
        self._chats_at_once = 0
        self._reported: asyncio.Future[None] | None = None
        self._disconnected = asyncio.Event()
        self._answer_files = f"{plan.payload_directory}/answer-"
        self._batch_trace: BatchTrace | None = None
        self._unburdened = asyncio.Event()  # set when it has no call
        self.plan = plan
        self.takes_batches = False  # whether its model may be given several calls at once; the dispatcher's note
        self._owner = owner
        self._decoder = channel.FrameDecoder()
        self._transport: asyncio.WriteTransport | None = None
        self._launched = launched
        self._fork = fork
        self._process: WorkerProcess | None = None
        self._status: StatusPage | None = None
        self._status_path = Path(plan.payload_directory, f"status-{id(self):x}-{time.monotonic_ns():x}")

    # --- life

    async def run(self) -> None:
        """Start the process; return when it is gone and everything of it is cleaned up. Cancelling kills it."""
        try:
            self._status = StatusPage(str(self._status_path), create=True)
            self.plan.confinement.give(str(self._status_path))
            launched, self._launched = self._launched, None
            if launched is None:
                launched = self._launch() if self._fork is None else await self._fork()
            self._process = WorkerProcess(launched)
            self.pid = self._process.pid
            # It was stopped, or given up, before there was a process.
            if self.state is WorkerState.DRAINING or self.death_reason is not None:
                self._signal(signal.SIGKILL)
            await self._attend(self._process)
            # A child process of the model may still hold a pipe open, so the wait for the last lines is bounded.
            await self._process.end_output(_LAST_OUTPUT_TIMEOUT)
        except OSError as exc:
            user = self.plan.confinement.user
            who = "" if user is None else f" as {user.name}, who has to be able to reach it"
            how = "be forked" if self.is_forked else f"start {self.plan.python}{who}"
            self.death_reason = f"cannot {how}: {exc}"
            self.death_cause = "spawn"
        except Exception:  # a fault of ours ends this worker, which is replaced, and never the server
            logger.exception("worker %d: fault in the server's own code", self.number)
            self.death_reason = "a fault in the server's own code; see the log"
            self.death_cause = "fault"
        finally:
            self._bury()

    def _launch(self) -> Launched:
        plan = self.plan
        return launch(plan.python, plan.spec, plan.confinement, math_threads=plan.math_threads)

    async def _attend(self, process: WorkerProcess) -> None:
        try:
            await process.read_output(self.log.reader(), self.log.reader())
            await process.connect(self, accept_timeout=_CONNECT_TIMEOUT)
            await asyncio.shield(process.exited)
            # What it wrote last, after it was told to stop, may not be read yet.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST_FRAMES_TIMEOUT):
                    await self._disconnected.wait()
        finally:
            # Also on cancellation; and whatever the model started must not outlive it.
            self._signal(signal.SIGKILL)
            if self._transport is not None:
                self._transport.abort()
            await asyncio.wait([process.exited], timeout=_REAP_TIMEOUT)

    def _bury(self) -> None:
        """Note the death, hand the call back, free what the server held for the process."""
        self._change(WorkerState.DEAD)
        self.log.close()
        if self.death_reason is None:
            self.death_reason, self.death_cause = self._describe_exit()
        if not self.ready.done():
            self.ready.set_exception(ModelLoadFailed(self._describe_failed_start()))
            self.ready.exception()  # retrieved: whoever waits sees it all the same
        stage = self._stage_of_calls()
        calls, self.calls = self.calls, []
        self._end_batch(self.death_reason)
        chats, self.chats = list(self.chats.values()), {}
        last_chat = 0 if self._status is None else self._status.read_last_chat()
        self.died_working = (bool(calls) and stage != "idle") or any(chat.id <= last_chat for chat in chats)
        self._unburdened.set()
        try:
            if calls:
                self._owner.calls_lost(self, calls, stage)
            if chats:
                self._owner.chats.lost(self, chats, last_chat)
        finally:
            if self._status is not None:
                self._status.close()
                self._status = None
            self._status_path.unlink(missing_ok=True)
            if self._process is not None:
                self._process.close()
            for left in Path(self.plan.payload_directory).glob(f"answer-{self.pid}-*"):
                left.unlink(missing_ok=True)

    async def stop(self, grace: float) -> None:
        """Ask the worker to end, then make it; ``run`` returns soon after. ``grace`` in seconds."""
        if self.state is WorkerState.DEAD:
            return
        self._change(WorkerState.DRAINING)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(channel.encode_prefix(Kind.STOP, 0, {}, 0))
        if self._process is None:
            return
        if not self.ready.done():
            self._signal(signal.SIGTERM)  # a frame is not read before the model is loaded, which may take minutes
        for signal_number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await asyncio.shield(self._process.exited)
                return
            self._signal(signal_number)

    async def retire(self, grace: float) -> None:
        """Take no further call, finish the one in hand, then stop; a call's own deadline bounds the wait."""
        self.retiring = True
        if self.calls or self.chats:
            await self._unburdened.wait()
        await self.stop(grace)

    def ping(self) -> None:
        """Ask for a sign of life; the loop that answers requests gives it."""
        if self._transport is not None and not self._transport.is_closing():
            self.pinged_at = time.monotonic()
            self._transport.write(channel.encode_prefix(Kind.PING, 0, {}, 0))

    def kill(self, reason: str, *, cause: str, innocent: bool = False) -> None:
        """Kill the process at once; ``reason`` is for the log and for the error of its call, ``cause`` for metrics.

        ``innocent``: what it works on has nothing to do with it, and may be tried again.
        """
        if self.state is not WorkerState.DEAD and self.death_reason is None:
            self.innocent = innocent
            self.death_reason, self.death_cause = reason, cause
            self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        # The process leads its own group, so its children go with it.
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def describe(self) -> dict[str, Any]:
        """Return what there is to know of it, for ``/stats/``."""
        return {
            "worker": self.number,
            "pid": self.pid,
            "state": (WorkerState.DRAINING if self.retiring else self.state).value,
            "generation": self.plan.generation,
            "private_bytes": self.private_bytes,
            "answered": self.answered,
            "model_calls": self.frames,
        }

    # --- calls

    def is_free(self) -> bool:
        """Whether it can take a call now."""
        return self.state is WorkerState.READY and not self.retiring and self.death_reason is None

    def start(self, calls: list[Call]) -> None:
        """Hand over one call, or a batch of calls with one batch key and their payloads in memory; it must be free."""
        assert self.is_free()
        assert self._transport is not None
        self.calls = calls
        self.last_started = time.monotonic()
        self._unburdened.clear()
        self._change(WorkerState.BUSY)
        for call in calls:
            call.started = self.last_started
            call.worked_on_by = self.number
        first = calls[0]
        others = f"+{len(calls) - 1}" if len(calls) > 1 else ""
        self.recent[first.id] = _log_ids(first, others)
        if len(self.recent) > _RECENT_CALLS:
            del self.recent[next(iter(self.recent))]
        if len(calls) == 1:
            self._send(_request_frame(first))
        else:
            if first.trace is not None:
                self._batch_trace = _begin_batch(calls, self.number)
            self._send(_batch_frame(calls, self._batch_trace))

    def _end_batch(self, failure: str | None = None) -> None:
        if self._batch_trace is not None:
            self._batch_trace.end(failure)
            self._batch_trace = None

    def look_for_answer(self) -> None:
        """Take an answer that is there already, without waiting for the event loop's round to end.

        In a round with a thousand requests that are refused, the worker would else wait for all of them.
        """
        if self._descriptor is None or self._transport is None or self._transport.is_closing():
            return
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except OSError:
            return  # there is nothing; what is wrong the loop will find, too
        if data:
            self.data_received(data)

    def _send(self, data: bytes) -> None:
        """Write to the channel at once: uvloop would keep it to the end of its round."""
        assert self._transport is not None
        if (
            self._descriptor is not None
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        ):
            with contextlib.suppress(OSError):  # full, or broken, which the transport will find, too
                data = data[os.write(self._descriptor, data) :]
        if data:
            self._transport.write(data)

    async def report(self, seconds: float) -> None:
        """Let an idle worker tell what user code has counted, for some ``seconds``; a busy one will with its answer.

        Called by one task at a time.
        """
        if self.state is not WorkerState.READY or self._transport is None or self._transport.is_closing():
            return
        self._reported = asyncio.get_running_loop().create_future()
        self._transport.write(channel.encode_prefix(Kind.REPORT, 0, {}, 0))
        await asyncio.wait([self._reported], timeout=seconds)

    def takes_chats(self) -> bool:
        """Whether it can take one more chat now."""
        return (
            self.state in (WorkerState.READY, WorkerState.BUSY)
            and not self.retiring
            and self.death_reason is None
            and len(self.chats) < self._chats_at_once
        )

    def has_running_chat(self) -> bool:
        """Whether somebody waits for one of its chats."""
        return any(chat.state is CallState.RUNNING for chat in self.chats.values())

    def has_running_call(self) -> bool:
        """Whether somebody waits for what it works on beside its chats."""
        return any(call.state is CallState.RUNNING for call in self.calls)

    def start_chat(self, call: Call) -> None:
        """Hand over a chat; there must be room for it."""
        assert self._transport is not None
        call.started, call.worked_on_by = time.monotonic(), self.number
        self.chats[call.id] = call
        self._unburdened.clear()
        self.recent[call.id] = _log_ids(call)
        while len(self.recent) > _RECENT_CALLS + len(self.chats):
            del self.recent[next(iter(self.recent))]
        self._transport.write(_request_frame(call))

    def cancel_chat(self, call: Call) -> None:
        """Ask it to stop a chat; its last frame comes all the same, when the hook has stopped."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(channel.encode_prefix(Kind.CANCEL, call.id, {}, 0))

    def _grant(self, request_id: int, size: int) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(channel.encode_prefix(Kind.CREDIT, request_id, {"bytes": size}, 0))

    def _stage_of_calls(self) -> str:
        if self._status is None or not self.calls:
            return "idle"
        request_id, stage = self._status.read()
        return stage if request_id == self.calls[0].id else "idle"

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not subclasses of asyncio's.
        self._transport = cast("asyncio.WriteTransport", transport)
        sock = transport.get_extra_info("socket")
        self._descriptor = None if sock is None or os.name != "posix" else sock.fileno()
        self._change(WorkerState.LOADING)
        attach = {"payload_directory": self.plan.payload_directory, "status_page": str(self._status_path)}
        unsent = b"" if self._process is None else self._process.unsent
        self._transport.write(unsent + channel.encode_prefix(Kind.ATTACH, 0, attach, 0))

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._handle(frame)
            if self.chats:
                self._owner.chats.deliver()
        except channel.ProtocolError as exc:
            self.kill(f"it broke the channel: {exc}", cause="channel")
        except Exception as exc:
            logger.exception("worker %d: a frame that cannot be handled", self.number)
            self.kill(f"it broke the channel: {type(exc).__name__}; see the log", cause="channel")

    def connection_lost(self, exc: Exception | None) -> None:
        # The channel is gone, so the process is of no further use, even if it lives (a hook that closes descriptors).
        del exc
        self._disconnected.set()
        if self.state not in (WorkerState.DEAD, WorkerState.DRAINING):
            self._change(WorkerState.DRAINING)
            self._signal(signal.SIGKILL)
            asyncio.get_running_loop().call_later(_NOTICE_TIMEOUT, self.look_for_exit)

    def look_for_exit(self) -> None:
        """Look whether the process is gone, without waiting to be told."""
        if self._process is not None:
            self._process.look_for_exit()

    def _handle(self, frame: channel.Frame) -> None:
        if frame.request_id in self.chats:
            self._handle_chat(frame, self.chats[frame.request_id])
            return
        match frame.kind:
            case Kind.ANSWER | Kind.ANSWERS | Kind.ERROR:
                self._finish(frame)
            case Kind.READY if self.state is WorkerState.LOADING and not self.ready.done():
                ready = Ready(**frame.header)
                self._change(WorkerState.READY)
                self._chats_at_once = ready.description.get("chats", 0)
                self.ready.set_result(ready)
            case Kind.LOAD_FAILED:
                if not self.ready.done():
                    record = frame.header
                    self.ready.set_exception(LoadRefused(record["message"], traceback=record["traceback"]))
            case Kind.METRICS:
                self._owner.worker_reported(self, frame.header)
                if frame.header.get("asked") and self._reported is not None and not self._reported.done():
                    self._reported.set_result(None)
            case Kind.HELLO:
                pass
            case Kind.PONG:
                self.pinged_at, self.heard_at = None, time.monotonic()
            case Kind.PROGRESS:
                if self.calls and frame.request_id == self.calls[0].id:
                    self.calls[0].progress(frame.header)
            case _:
                raise channel.ProtocolError(f"a worker cannot send {frame.kind.name} now")

    def _handle_chat(self, frame: channel.Frame, call: Call) -> None:
        match frame.kind:
            case Kind.CHUNK if call.stream is not None or call.state is CallState.ABANDONED:
                if call.stream is not None:
                    self._owner.chats.piece_came(call.stream, bytes(frame.payload))
            case Kind.STREAM if call.stream is None:
                grant = functools.partial(self._grant, call.id)
                stream = ChatStream(frame.header["content_type"], grant, call.future.get_loop())
                stream.feed(bytes(frame.payload))
                self._owner.chats.started(call, stream)
            case Kind.ANSWER | Kind.ERROR | Kind.STREAM_END:
                del self.chats[call.id]
                self.answered += 1
                result = None if frame.kind is Kind.STREAM_END else _result(frame, self._answer_files)
                if not self.calls and not self.chats:
                    self._unburdened.set()
                self._owner.chats.finished(self, call, result)
            case _:
                raise channel.ProtocolError(f"a worker cannot send {frame.kind.name} for a chat now")

    def _finish(self, frame: channel.Frame) -> None:
        calls = self.calls
        if not calls or frame.request_id != calls[0].id or (len(calls) > 1) != (frame.kind is Kind.ANSWERS):
            raise channel.ProtocolError(f"an answer to request {frame.request_id}, which it was not asked")
        if frame.kind is Kind.ANSWERS:
            results = _results_of_batch(calls, frame)
        else:
            results = [(calls[0], _result(frame, self._answer_files))]
        self.calls = []
        self._end_batch()
        if not self.chats:
            self._unburdened.set()
        self.answered += len(calls)
        self.frames += 1
        self.heard_at = time.monotonic()
        if self.state is WorkerState.BUSY:
            self._change(WorkerState.READY)
        self._owner.calls_finished(self, results, self.heard_at - self.last_started)

    # --- words

    def _change(self, state: WorkerState) -> None:
        if self.state is not state:
            if state not in (WorkerState.READY, WorkerState.BUSY) or self.state is WorkerState.LOADING:
                logger.debug("worker %d (pid %s): %s -> %s", self.number, self.pid, self.state.value, state.value)
            self.state = state

    def _describe_exit(self) -> tuple[str, str]:
        """Return why it is dead, in words and as a cause."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return "it was never started", "spawn"
        if code < 0:
            try:
                name = signal.Signals(-code).name
            except ValueError:
                name = f"signal {-code}"
            return f"killed by {name}", name.replace(" ", "_")
        return f"exited with code {code}", "exit"

    def _describe_failed_start(self) -> str:
        text = f"the worker ended before the model was loaded: {self.death_reason}"
        if self.log.tail:
            text += "\nLast output of the worker:\n" + "\n".join(f"  {line}" for line in self.log.tail)
        return text


def _log_ids(call: Call, others: str = "") -> Mapping[str, str]:
    ids = {"request_id": call.request_id + others}
    return ids if call.trace is None else {**ids, **call.trace.ids}


def _request_frame(call: Call) -> bytes:
    payload = call.payload
    if payload.data is not None:
        return channel.encode_prefix(call.kind, call.id, call.header, payload.size) + payload.data
    header = {**call.header, "file": {"path": payload.path, "length": payload.size}}
    return channel.encode_prefix(call.kind, call.id, header, 0)


def _begin_batch(calls: list[Call], worker: int) -> BatchTrace | None:
    """Start the span of a batch, linked to those of its requests."""
    traces = [call.trace for call in calls]
    tracing = next(trace.tracing for trace in traces if trace is not None)
    attributes = {"backline.worker": worker, "backline.batch.rows": sum(call.rows for call in calls)}
    return tracing.begin_batch(traces, attributes)


def _batch_frame(calls: list[Call], trace: BatchTrace | None = None) -> bytes:
    key = calls[0].batch_key
    assert key is not None
    header: dict[str, Any] = {**key._asdict(), "sizes": [call.payload.size for call in calls]}
    if trace is not None:
        header["trace"] = trace.carrier
    body = b"".join([call.payload.data or b"" for call in calls])
    return channel.encode_prefix(Kind.BATCH, calls[0].id, header, len(body)) + body


def _result(frame: channel.Frame, files: str) -> Reply | WorkerReported:
    """Return what a frame says; ``files``: how the path of an answer in a file begins."""
    header = frame.header
    if frame.kind is Kind.ERROR:
        return _reported(header)
    path = header["file"]["path"] if "file" in header else None
    if path is not None and (not path.startswith(files) or "/" in path[len(files) :]):
        raise channel.ProtocolError(f"the answer is said to lie in {path!r}")  # it would be unlinked
    body = channel.take_payload(frame)
    if path is not None:
        Path(path).unlink()
    return Reply(header.get("content_type", ""), body, header.get("headers", {}), header.get("seconds", {}), header)


def _results_of_batch(calls: list[Call], frame: channel.Frame) -> Results:
    header = frame.header
    content_type, seconds = header["content_type"], header["seconds"]
    results: Results = []
    offset = 0
    for call, answer in zip(calls, header["answers"], strict=True):
        if isinstance(answer, int):
            body = frame.payload[offset : offset + answer]
            offset += answer
            results.append((call, Reply(content_type, body, {}, seconds, {})))
        else:
            results.append((call, _reported(answer)))
    return results


def _reported(record: dict[str, Any]) -> WorkerReported:
    return WorkerReported(
        record["code"],
        record["message"],
        error_type=record["type"],
        details=record["details"],
        traceback=record["traceback"],
    )


class LoadRefused(ModelLoadFailed):
    """The worker itself said why the model does not load: trying again changes nothing."""
