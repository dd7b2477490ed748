"""The channel between server and worker: frames that are damaged, in both directions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import signal
import tempfile
import threading
import types
from typing import Any, cast

from backline.runtime.call import Call, Reply
from backline.runtime.payload import Payload
from backline.runtime.worker import Results, Worker, WorkerPlan, WorkerState
from backline_worker import channel
from backline_worker.channel import Kind
from tests.fuzz.cases import Case, Wrong
from tests.fuzz.damage import NUMBERS, cut, damaged_bytes, damaged_document, damaged_tokens, pieces_of
from tests.fuzz.targets.tables import JSON_NASTY, JSON_TOKENS

_RECORD: dict[str, Any] = {
    "code": "decode_failed",
    "message": "m",
    "type": "DecodeError",
    "details": {},
    "traceback": None,
}
_SECONDS = {"decode": 0.1, "predict": 0.2}
_ANSWERS: tuple[tuple[Kind, dict[str, Any], bytes], ...] = (
    (Kind.ANSWER, {"content_type": "text/csv", "seconds": _SECONDS}, b"a\n1\n"),
    (Kind.ANSWER, {"content_type": "text/csv", "seconds": _SECONDS, "file": {"path": "@/answer-0", "length": 4}}, b""),
    (Kind.ANSWERS, {"content_type": "text/csv", "seconds": _SECONDS, "answers": [2, _RECORD]}, b"ab"),
    (Kind.ERROR, _RECORD, b""),
    (Kind.PROGRESS, {"rows": 5, "stage": "predict"}, b""),
    (Kind.METRICS, {"families": [{"name": "n", "kind": "counter", "samples": [[{}, 1.5]]}], "asked": True}, b""),
    (Kind.PONG, {}, b""),
    (Kind.HELLO, {"pid": 1, "python": "3.11"}, b""),
    (Kind.READY, {"description": {"chats": 1}, "warm_up": None, "load_seconds": 0.1}, b""),
    (Kind.LOAD_FAILED, _RECORD, b""),
    (Kind.STREAM, {"content_type": "text/event-stream"}, b"data: x\n\n"),
    (Kind.CHUNK, {}, b"data: y\n\n"),
    (Kind.STREAM_END, {"seconds": _SECONDS}, b""),
)
_NASTY = (b'"file"', b'"answers"', b"-1", b"[-1]", b"{}", b"null", *JSON_NASTY, *NUMBERS)


def damaged_frame(draw: random.Random, kind: int, request_id: int, header: dict[str, Any], payload: bytes) -> bytes:
    """Return a frame with its header, its lengths, its kind, its id, or any of its bytes wrong."""
    text = json.dumps(header).encode()
    how = draw.random()
    if how < 0.5:
        text = damaged_document(draw, header, ("file", "path", "answers", "code", "parts", "seconds"))
    elif how < 0.65:
        text = damaged_tokens(draw, text, re.compile(JSON_TOKENS.pattern), _NASTY)
    lengths = [len(text), len(payload)]
    if draw.random() < 0.1:
        lengths[draw.randrange(2)] = draw.choice((0, 1, 2**20, 2**31, 2**32 - 1, len(text) + 1, max(0, len(text) - 1)))
    if draw.random() < 0.1:
        kind = draw.randrange(30)
    if draw.random() < 0.1:
        request_id = draw.choice((0, 1, 2, 3, 2**64 - 1))
    frame = channel.PREFIX.pack(channel.VERSION, kind, 0, lengths[0], request_id, lengths[1]) + text + payload
    return damaged_bytes(draw, frame) if draw.random() < 0.15 else frame


class Frames:
    """The decoder of both ends: however the bytes are cut, the same frames, or a protocol error."""

    seconds = 2.0

    def make(self, draw: random.Random) -> Case:
        frames = [damaged_frame(draw, *_pick(draw)) for _ in range(draw.choice((1, 2, 3)))]
        body = b"".join(frames)
        return Case(body, {"cuts": [cut(draw, body), cut(draw, body)]})

    def check(self, case: Case) -> str:
        first, second = (self._read(pieces_of(case.body, cuts)) for cuts in case.options["cuts"])
        if first != second:
            raise Wrong(f"cut otherwise it is {second!r:.300} where it was {first!r:.300}")
        return "refused" if first is None else f"{len(first)} frames"

    @staticmethod
    def _read(pieces: list[bytes]) -> list[str] | None:
        decoder = channel.FrameDecoder()
        frames: list[channel.Frame] = []
        try:
            for piece in pieces:
                frames += decoder.feed(piece)
        except channel.ProtocolError:
            return None
        return [repr(frame) for frame in frames]  # NaN is not equal to itself


def _pick(draw: random.Random) -> tuple[int, int, dict[str, Any], bytes]:
    kind, header, payload = draw.choice(_ANSWERS)
    return int(kind), draw.choice((0, 1, 1, 2)), header, payload


class _Owner:
    """What the dispatcher is to a worker; counts how often each call is given back."""

    def __init__(self) -> None:
        self.given_back: list[Call] = []
        self.chats = self

    def calls_finished(self, worker: Worker, results: Results, seconds: float) -> None:
        for call, result in results:
            self.given_back.append(call)
            if isinstance(result, Reply):
                bytes(result.body)

    def worker_reported(self, worker: Worker, report: dict[str, Any]) -> None: ...

    def calls_lost(self, worker: Worker, calls: list[Call], stage: str) -> None:
        self.given_back += calls


class FramesToServer:
    """A worker that writes damaged frames: it is killed, or has answered; nothing is raised into the event loop."""

    seconds = 2.0

    def __init__(self) -> None:
        logging.disable(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        self._directory = tempfile.TemporaryDirectory()

    def make(self, draw: random.Random) -> Case:
        body = b"".join(damaged_frame(draw, *_pick(draw)) for _ in range(draw.choice((1, 1, 2, 4))))
        loading = draw.random() < 0.15
        return Case(body, {"cuts": cut(draw, body), "calls": draw.choice((0, 1, 1, 2)), "loading": loading})

    def check(self, case: Case) -> str:
        return self._loop.run_until_complete(self._check(case))

    async def _check(self, case: Case) -> str:
        owner = _Owner()
        plan = WorkerPlan(python="python", spec={}, payload_directory=self._directory.name)
        killed: list[str] = []

        class Watched(Worker):
            def _signal(self, number: signal.Signals) -> None:
                killed.append(number.name)

        worker: Worker = Watched(1, plan, owner, lambda _worker: _NoLog())  # type: ignore[arg-type, return-value]
        worker._transport = _Sent()  # type: ignore[assignment]
        if case.options["loading"]:
            worker.state = WorkerState.LOADING
        else:
            worker.state = WorkerState.READY
        calls = [_call(number) for number in range(1, case.options["calls"] + 1)]
        if calls and not case.options["loading"]:
            worker.calls = list(calls)
            worker.state = WorkerState.BUSY
        else:
            calls = []
        for piece in pieces_of(case.body, case.options["cuts"]):
            worker.data_received(piece)
            if killed:
                break
        if worker.ready.done():
            worker.ready.exception()
        given = len(owner.given_back)
        if given and (given != len(calls) or len(set(map(id, owner.given_back))) != given):
            raise Wrong(f"{given} results for {len(calls)} calls")
        return ("killed" if killed else "alive") + (", answered" if given else "")


def _call(number: int) -> Call:
    call = types.SimpleNamespace(id=number, payload=Payload(size=0, data=b""), progress=lambda _header: None)
    return cast("Call", call)


class _NoLog:
    def close(self) -> None: ...


class _Sent:
    def write(self, data: bytes) -> None: ...

    def is_closing(self) -> bool:
        return False


class FramesToWorker:
    """Damaged frames on the worker's own socket: its reader comes to an end, whatever they say."""

    seconds = 2.0
    _asked: tuple[tuple[Kind, dict[str, Any], bytes], ...] = (
        (Kind.REQUEST, {"operation": "predict", "parts": [["X", "text/csv", None, 4]], "accept": ""}, b"a\n1\n"),
        (
            Kind.REQUEST,
            {"operation": "chat", "parts": [["X", "", "f", 2]], "headers": {"a": "b"}, "query": {"q": ["1"]}},
            b"{}",
        ),
        (Kind.BATCH, {"sizes": [2, 2], "part_type": "text/csv", "filename": None, "accept": ""}, b"a\nb\n"),
        (Kind.CREDIT, {"bytes": 5}, b""),
        (Kind.PING, {}, b""),
        (Kind.STOP, {}, b""),
    )

    def make(self, draw: random.Random) -> Case:
        frames = []
        for _ in range(draw.choice((1, 2, 4))):
            kind, header, payload = draw.choice(self._asked)
            frames.append(damaged_frame(draw, int(kind), draw.choice((1, 2, 7)), header, payload))
        return Case(b"".join(frames), {})

    def check(self, case: Case) -> str:
        import socket

        from backline_worker.main import _Connection, _to_request, _to_requests

        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.settimeout(10)
            writer = threading.Thread(target=_write, args=(ours, case.body), daemon=True)
            writer.start()
            connection = _Connection(theirs)
            seen = 0
            try:
                while (frame := connection.receive()) is not None:
                    seen += 1
                    # What it cannot make sense of ends the worker, with the error in its log; the server replaces it.
                    with contextlib.suppress(LookupError, TypeError, ValueError, OSError, AttributeError):
                        if frame.kind is Kind.REQUEST:
                            _to_request(frame)
                        elif frame.kind is Kind.BATCH:
                            _to_requests(frame)
            except channel.ProtocolError:
                return "refused"
            finally:
                writer.join(10)
            return f"{seen} frames"


def _write(sock: Any, body: bytes) -> None:
    import socket

    with contextlib.suppress(OSError):
        sock.sendall(body)
        sock.shutdown(socket.SHUT_WR)
