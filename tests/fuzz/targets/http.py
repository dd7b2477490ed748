"""HTTP as it comes from clients and from backends, and the events in it."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
import logging
import random
import re
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from backline.api.connections import Guard, GuardedHttp
from backline.config.settings import LimitSettings
from backline.errors import BackendBroken
from backline.observe.usage import find_usage
from backline.parity.compare.events import assembled
from backline.proxy.http1_client import _Connection
from backline.proxy.port import BackendRequest
from tests.fuzz.cases import Case, Wrong
from tests.fuzz.damage import NUMBERS, TEXTS, cut, damaged, pieces_of

_TOKENS = re.compile(rb"\r\n|[\r\n :,;=/?]|[0-9]+|[^\r\n :,;=/?0-9]+")
_NASTY = (
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b" ", b":", b"\0", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/9.9", b"HTTP/2.0", b"0",
    b"Content-Length: 3\r\n", b"Content-Length: 4\r\n", b"Content-Length: -1\r\n", b"Content-Length: 1e3\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: xchunked\r\n",
    b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n", b"Expect: 100-continue\r\n",
    b"ffffffff", b"ffffffffffffffff1", b"3;x=y", b"GET / HTTP/1.1\r\n\r\n", b"\t", b"x" * 300, b" folded",
    b"Host: a\r\n", *TEXTS, *NUMBERS,
)  # fmt: skip
_REQUESTS = (
    b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /predict/ HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 8\r\n\r\na,b\n1,2\n",
    (
        b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n5;e=1\r\ndefgh\r\n0\r\nT: u\r\n\r\n"
    ),
    b"HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: x\r\nAccept: */*\r\nX-A: \r\n\r\n",
    b"PUT http://h:80/x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
)
_ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nX-T: u\r\n\r\n",
    b"HTTP/1.0 404 Not Found\r\nServer: s\r\n\r\nuntil the end",
    b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 204 No Content\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nETag: x\r\nContent-Length: 12\r\n\r\n",
)


class _Transport(asyncio.Transport):
    """Keeps what is written, as a socket would take it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self._protocol: Any = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self.closed:
            self.written += data

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> Any:
        return self._protocol

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)}.get(name, default)


class _OnLoop:
    """A target on one event loop: whatever the loop is told of that nobody caught is a finding."""

    seconds = 4.0

    def __init__(self) -> None:
        logging.disable(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        self._uncaught: list[dict[str, Any]] = []
        self._loop.set_exception_handler(lambda _loop, context: self._uncaught.append(context))

    def run(self, work: Callable[[Case], Awaitable[str]], case: Case) -> str:
        self._uncaught.clear()
        outcome = self._loop.run_until_complete(asyncio.wait_for(work(case), 20))
        if self._uncaught:
            raise Wrong(repr(self._uncaught)) from self._uncaught[0].get("exception")
        return outcome


class RequestHeads(_OnLoop):
    """A client's connection: the answers are HTTP, nothing raises, and what is wrong is a 4xx."""

    def __init__(self) -> None:
        super().__init__()
        limits = dataclasses.replace(LimitSettings(), max_head=2000)
        self._guard = Guard(limits=limits, max_connections=100, probes=frozenset({"/livez"}))
        self._statuses: list[int] = []
        self._config = uvicorn.Config(
            self._app,
            http=functools.partial(GuardedHttp, guard=self._guard),  # type: ignore[arg-type]
            ws="none",
            interface="asgi3",
            proxy_headers=False,
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        self._config.load()

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        size = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        json.dumps([scope["path"], scope["method"], scope["raw_path"].decode("latin-1"), size])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    def make(self, draw: random.Random) -> Case:
        body = damaged(draw, b"".join(draw.choices(_REQUESTS, k=draw.choice((1, 1, 2)))), _TOKENS, _NASTY)
        return Case(body, {"cuts": cut(draw, body)})

    def check(self, case: Case) -> str:
        return self.run(self._check, case)

    async def _check(self, case: Case) -> str:
        transport = _Transport()
        state = uvicorn.server.ServerState()
        make: Any = self._config.http_protocol_class
        protocol = make(config=self._config, server_state=state, app_state={})
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        for piece in pieces_of(case.body, case.options["cuts"]):
            if transport.closed:
                break
            protocol.data_received(piece)
            for _ in range(3):
                await asyncio.sleep(0)
        protocol.look(self._loop.time())
        protocol.eof_received()
        protocol.connection_lost(None)
        for _ in range(4):
            await asyncio.sleep(0)
        if state.tasks:
            raise Wrong(f"tasks that go on without a client: {state.tasks}")
        statuses = [int(each) for each in re.findall(rb"(?:^|ok|\}|\r\n\r\n)HTTP/1\.1 (\d{3}) ", transport.written)]
        if any(status >= 500 for status in statuses) or (transport.written and not statuses):
            raise Wrong(f"{transport.written!r}")
        return " ".join(map(str, statuses[:3])) or "nothing"


class BackendAnswers(_OnLoop):
    """A backend's connection: an answer or ``BackendBroken``, the same in whatever pieces it comes."""

    def make(self, draw: random.Random) -> Case:
        body = damaged(draw, draw.choice(_ANSWERS), _TOKENS, _NASTY)
        method = draw.choice(("GET", "GET", "POST", "HEAD"))
        return Case(body, {"cuts": cut(draw, body), "method": method})

    def check(self, case: Case) -> str:
        return self.run(self._check, case)

    async def _check(self, case: Case) -> str:
        whole = await self._answer([case.body], case.options["method"])
        pieces = await self._answer(pieces_of(case.body, case.options["cuts"]), case.options["method"])
        if whole[0] != pieces[0] and "broken" not in (whole[0], pieces[0]):
            raise Wrong(f"whole: {whole}\nin pieces: {pieces}")
        if whole[2] and pieces[2] and whole != pieces:
            raise Wrong(f"whole: {whole}\nin pieces: {pieces}")
        return whole[0] + ("" if whole[2] else ", broken off")

    async def _answer(self, pieces: list[bytes], method: str) -> tuple[str, bytes, bool]:
        """Return status, body, and whether it was complete."""
        released: list[bool] = []
        connection = _Connection(self._loop, "http://b", lambda _connection, *, reusable: released.append(reusable))
        transport = _Transport()
        connection.connection_made(transport)
        exchange = self._loop.create_task(connection.exchange(BackendRequest(method, b"/", [(b"host", b"b")])))
        await asyncio.sleep(0)
        for piece in pieces:
            if transport.closed:
                break
            if piece:
                connection.data_received(piece)
            await asyncio.sleep(0)
        if not transport.closed:
            connection.eof_received()
            connection.connection_lost(None)
        try:
            await exchange
        except BackendBroken:
            return "broken", b"", False
        body, complete = b"", False
        try:
            while not connection.at_end:
                body += await connection.read()
            complete = True
        except BackendBroken:
            pass
        for name, value in connection.headers:
            if re.search(rb"[\r\n\0]", name + value):
                raise Wrong(f"a header {name!r}: {value!r}")
        await connection.aclose()
        return str(connection.status), body, complete


class Events:
    """Streams of events, as the comparison puts them together."""

    seconds = 4.0

    def make(self, draw: random.Random) -> Case:
        return Case(damaged(draw, draw.choice(_STREAMS), _EVENT_TOKENS, _EVENT_NASTY), {})

    def check(self, case: Case) -> str:
        usage = find_usage(case.body)
        if usage is not None and min(usage) < 0:
            raise Wrong(f"{usage}")
        whole = assembled(case.body.decode("utf-8", "replace"))
        json.dumps(whole)
        return "message" if "message" in whole else "events"


_EVENT_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|\n+|data: |[\[\]{}:,]|[^\n"\[\]{}:,]+|"', re.DOTALL)
_EVENT_NASTY = (
    b"\n", b"\n\n", b"\r", b"data: ", b"data: [DONE]\n\n", b"event: x\n", b": ping\n\n", b"null", b"[]",
    b"{}", b'"usage"',
    b'"prompt_tokens":99999999999', b'"index":-1', b'"delta":null', b'"choices":{}', b'"tool_calls":[{"index":"a"}]',
    b'"index":999999999', b"[" * 3000, *TEXTS, *NUMBERS,
)  # fmt: skip


def _stream(*documents: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in documents) + b"data: [DONE]\n\n"


def _chunk(delta: Any, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": None}
    return {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [choice], **more}


_TOOL = {"index": 0, "id": "t", "type": "function", "function": {"name": "f", "arguments": "{"}}
_STREAMS = (
    _stream(_chunk({"role": "assistant", "content": ""}), _chunk({"content": "Hel"}), _chunk({"content": "lo"})),
    _stream(_chunk({"tool_calls": [_TOOL]}), _chunk({"tool_calls": [_TOOL]}, usage={"prompt_tokens": 3})),
    _stream({"object": "text_completion", "choices": [{"text": "a", "index": 0}, {"text": "b", "index": 1}]}),
    b"event: response.created\ndata: {}\n\n: keep-alive\n\nevent: x\ndata: 1\ndata: 2\n\n",
)
