"""Direct access to an LLM backend: any method and body, WebSockets too, byte for byte, streamed both ways."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Coroutine
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from backline.api.endpoint import Endpoint, Headers
from backline.api.error_table import render_error
from backline.api.observed import note_error, observation_of
from backline.api.one_write import corkable, leave_date_to_us, sender_at_once
from backline.errors import BackendBroken, BackendDown, BackendError, BacklineError, BadRequest, ServerDraining
from backline.observe.access_log import log_passed_on
from backline.observe.observer import CLIENT_LEFT, SILENT_STREAM
from backline.observe.usage import TAIL_BYTES, find_usage
from backline.proxy.headers import request_headers, response_headers
from backline.proxy.port import BackendRequest
from backline.proxy.target import backend_target
from backline.proxy.websocket import HandshakeRefused, connect

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send
    from websockets.asyncio.client import ClientConnection

    from backline.api.state import ApiState
    from backline.observe.observer import StreamObserver
    from backline.proxy.port import BackendAddress, BackendResponse
    from backline.proxy.service import Backend, Exchange

logger = logging.getLogger("backline.api")

_LARGEST_STATUS = 599
_SWITCHING_PROTOCOLS = 101
_STREAMS = frozenset({b"text/event-stream", b"application/x-ndjson", b"application/stream+json"})
_TELL_TOKENS = _STREAMS | {b"application/json"}
# Close codes that stand for "none was sent" and "the connection broke": neither can be sent on.
_NO_CODE, _BROKEN = 1005, 1006
_NORMAL, _GOING_AWAY, _BAD_GATEWAY = 1000, 1001, 1014


class _ClientLeft(Exception):
    """The client left before its body was complete."""


class DirectAccess(Endpoint):
    """Everything below ``mount``, which is ``/directAccess`` or ``/nim`` after the prefix, for HTTP and WebSockets."""

    any_method = True

    def __init__(self, state: ApiState, mount: str) -> None:
        super().__init__(state)
        self._mount = mount.encode()
        self._template = mount.removeprefix(state.settings.server.url_prefix)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or serve one WebSocket (ASGI)."""
        if scope["type"] == "websocket":
            self.observer.request_begun()
            status = CLIENT_LEFT
            try:
                status = await self._serve_socket(scope, receive, send)
            finally:
                self.observer.socket_ended(self.route(scope), status)
        else:
            await super().__call__(scope, receive, send)

    def route(self, scope: Scope) -> str:
        """See ``Endpoint``."""
        return self._template or super().route(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Pass one request on, and its answer back."""
        backend = self._backend()
        begun = time.perf_counter()
        target, headers = self._head(scope, backend)
        exchange = backend.admit(functools.partial(_wait_left, receive))
        answer: BackendResponse | None = None
        try:
            body = await _take_body(scope, receive, headers, exchange)
            answer = await backend.client.send(BackendRequest(scope["method"], target, headers, body))
            try:
                await self._pass_back(answer, scope, send, exchange, self.answer_headers(scope, request_id), begun)
            except BackendError as exc:
                if not exchange.answered:
                    raise
                self._tell_cut_off(scope, exc, answer.status, request_id)
            finally:
                await answer.aclose()
        except BackendDown:
            backend.suspect()
            raise
        except (asyncio.CancelledError, _ClientLeft, BackendBroken):
            # A client that leaves in the middle of its body ends the upload, which the client library may report as an
            # error of its own.
            status = 0 if answer is None else answer.status
            if not self._is_over(scope, exchange, status, request_id):
                raise
            return CLIENT_LEFT if exchange.client_left else status
        finally:
            backend.release(exchange)
        if answer.status >= 400:
            log_passed_on(
                method=scope["method"],
                path=scope["path"],
                status=answer.status,
                request_id=request_id,
                access=self.state.settings.log.access,
            )
        return answer.status

    def _is_over(self, scope: Scope, exchange: Exchange, status: int, request_id: str) -> bool:
        """Whether an exception was our own way of ending the request, with nothing left to answer.

        Raises the reason where there is one to be told.
        """
        if not exchange.client_left and exchange.failure is None:
            # At the end of the drain time: the status is out, so the connection ends without the rest.
            return exchange.answered and self.state.draining
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            task.uncancel()
        if exchange.failure is not None:
            if not exchange.answered:
                raise exchange.failure from None
            self._tell_cut_off(scope, exchange.failure, status, request_id)
        return True

    def no_backend(self) -> BacklineError:
        """Return what a client is told where no backend is configured."""
        return BadRequest(
            "no LLM backend is configured, so there is nothing to access directly; start the server with --backend"
        )

    def place(self, scope: Scope, address: BackendAddress) -> tuple[bytes, bytes, bytes]:
        """Return the path that was asked for, what of it is the mount, and the backend's path in place of that."""
        return scope["raw_path"], self._mount, address.base_path

    def answer_headers(self, scope: Scope, request_id: str) -> Headers:
        """Return headers for the answer, each where the backend's answer has none of that name."""
        return []

    async def _pass_back(
        self,
        answer: BackendResponse,
        scope: Scope,
        send: Send,
        exchange: Exchange,
        added: Headers,
        begun: float,
    ) -> None:
        status = answer.status
        if not 200 <= status <= _LARGEST_STATUS:
            raise BackendBroken(f"the backend answered with status {status}, which is none that can be passed on")
        headers = response_headers(answer.headers, status)
        if added:
            there = {name for name, _ in headers}
            headers += [header for header in added if header[0] not in there]
        if leave_date_to_us(send) and not any(name == b"date" for name, _ in headers):
            headers.append((b"date", _date()))  # RFC 9110 section 6.6.1: who passes an answer on adds it
        transport = corkable(send)
        if transport is not None:
            # What is here of the body leaves with the head; where nothing is, the head leaves in this turn of the loop.
            transport.cork()
            asyncio.get_running_loop().call_soon(transport.uncork)
        exchange.answered = True
        await send({"type": "http.response.start", "status": status, "headers": headers})
        content_type = _content_type(headers)
        route = self.route(scope)
        stream = self.observer.stream_opened(route, begun) if content_type in _STREAMS else SILENT_STREAM
        try:
            tail = await _Body(answer, send, exchange, stream).pass_on()
        finally:
            stream.closed()
        if content_type in _TELL_TOKENS and status < 300:
            tokens = find_usage(tail)
            if tokens is not None:
                self.observer.tokens_used(route, *tokens)

    def _tell_cut_off(self, scope: Scope, exc: BacklineError, status: int, request_id: str) -> None:
        note_error(scope, exc)
        self.observer.error_answered(self.route(scope), exc, status, request_id)
        logger.error("answer cut off: %s: %s", exc.code, exc.message, extra={"request_id": request_id})

    def _backend(self) -> Backend:
        backend = self.state.backend
        if backend is None:
            raise self.no_backend()
        if self.state.draining:
            raise ServerDraining("the server is shutting down; send the request to another one", retry_after=1)
        if self.state.backend_process is not None:
            self.state.backend_process.check_accepting()
        return backend

    def _head(self, scope: Scope, backend: Backend) -> tuple[bytes, Headers]:
        address = backend.address
        path, mount, base_path = self.place(scope, address)
        target = backend_target(path, scope["query_string"], mount=mount, base_path=base_path)
        headers = self.request_headers(scope, backend)
        observation = observation_of(scope)
        if observation is not None:
            headers = observation.asks_backend(scope, headers, address)
        return target, headers

    def request_headers(self, scope: Scope, backend: Backend) -> Headers:
        """Return the headers for the backend."""
        client = scope["client"]
        return request_headers(
            scope["headers"],
            authority=backend.address.authority,
            client=client[0] if client else None,
            scheme=b"https" if scope["scheme"] in ("https", "wss") else b"http",
        )

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Return the status that the handshake was answered with."""
        await receive()  # websocket.connect
        request_id = self.state.request_id(dict(scope["headers"]).get(b"x-request-id"))
        try:
            backend = self._backend()
            target, headers = self._head(scope, backend)
            with backend.place():
                timeout = backend.settings.timeout or None
                opening = connect(backend.address, target, headers, scope["subprotocols"], timeout=timeout)
                connection = await _unless_client_leaves(opening, receive)
                if connection is None:
                    return CLIENT_LEFT
                try:
                    await _accept(connection, send)
                    await _relay_messages(connection, receive, send)
                finally:
                    connection.transport.abort()  # where the closing handshake was done, nothing is left to abort
        except HandshakeRefused as exc:
            headers = [header for header in response_headers(exc.headers, exc.status) if header[0] != b"date"]
            await _refuse_socket(receive, send, exc.status, headers, exc.body)
            return exc.status
        except BacklineError as exc:
            note_error(scope, exc)
            answer = render_error(exc, family="native", request_id=request_id, show_stacktrace=False)
            self.observer.error_answered(self.route(scope), exc, answer.status, request_id)
            await _refuse_socket(receive, send, answer.status, answer.headers, answer.body)
            return answer.status
        return _SWITCHING_PROTOCOLS


# HTTP


async def _take_body(
    scope: Scope, receive: Receive, headers: Headers, exchange: Exchange
) -> bytes | AsyncIterator[bytes]:
    """Return the body if it is here already, with its length in ``headers``, or else an iterator of its pieces."""
    framing = [header for header in scope["headers"] if header[0] in (b"content-length", b"transfer-encoding")]
    if not framing or framing[0][1] == b"0":
        return b""
    first, more = await _receive_body(receive, exchange)
    if more:
        return _pieces(first, receive, exchange)
    if framing[0][0] == b"transfer-encoding":
        headers.append((b"content-length", b"%d" % len(first)))
    return first


async def _receive_body(receive: Receive, exchange: Exchange) -> tuple[bytes, bool]:
    """Return the next piece of the body, and whether there is more. Raises ``_ClientLeft``."""
    exchange.uploading = exchange.waits_for_client = True
    message = await receive()
    exchange.waits_for_client = False
    exchange.moved += 1
    if message["type"] == "http.disconnect":
        exchange.client_left = True
        raise _ClientLeft
    more: bool = message.get("more_body", False)
    exchange.uploading = more
    return message.get("body", b""), more


async def _pieces(first: bytes, receive: Receive, exchange: Exchange) -> AsyncIterator[bytes]:
    piece, more = first, True
    while True:
        if piece:
            yield piece
        if not more:
            return
        piece, more = await _receive_body(receive, exchange)


class _Body:
    """The body of an answer on its way to the client."""

    def __init__(self, answer: BackendResponse, send: Send, exchange: Exchange, stream: StreamObserver) -> None:
        self._answer = answer
        self._send = send
        self._send_at_once = sender_at_once(send)
        self._exchange = exchange
        self._stream = stream
        self._before = self._last = b""  # the pieces that the body ends with, up to now

    async def pass_on(self) -> bytes:
        """Pass the body on and return its end."""
        answer, send = self._answer, self._send
        if self._send_at_once is not None:
            answer.offer_to(self._take)
        more = not answer.at_end
        while more:
            self._exchange.moved += 1
            piece = await answer.read()
            more = not answer.at_end
            if piece:
                self._note(piece)
            if piece or not more:
                await send({"type": "http.response.body", "body": piece, "more_body": more})
            if not more:
                break
        else:
            await send({"type": "http.response.body", "body": b""})
        last = self._last
        return (self._before + last if len(last) < TAIL_BYTES else last)[-TAIL_BYTES:]

    def _take(self, piece: bytes) -> bool:
        """Pass a piece on without the task; see ``BackendResponse.offer_to``."""
        assert self._send_at_once is not None
        self._exchange.moved += 1
        if not self._send_at_once({"type": "http.response.body", "body": piece, "more_body": True}):
            return False
        self._note(piece)
        return True

    def _note(self, piece: bytes) -> None:
        self._before, self._last = self._last, piece
        self._stream.piece_sent()


def _content_type(headers: Headers) -> bytes:
    for name, value in headers:
        if name == b"content-type":
            return value.partition(b";")[0].strip().lower()
    return b""


async def _wait_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _date() -> bytes:
    return _date_of(int(time.time()))


@functools.lru_cache(maxsize=1)
def _date_of(second: int) -> bytes:
    return formatdate(second, usegmt=True).encode()


# WebSockets


async def _unless_client_leaves(
    opening: Coroutine[Any, Any, ClientConnection], receive: Receive
) -> ClientConnection | None:
    """Return the connection, or ``None`` where the client has left before it was open."""
    connecting = asyncio.ensure_future(opening)  # noqa: TID251  (both are cancelled below)
    leaving = asyncio.ensure_future(receive())  # noqa: TID251  (before it is accepted a client can say nothing else)
    try:
        await asyncio.wait({connecting, leaving}, return_when=asyncio.FIRST_COMPLETED)
        return connecting.result() if connecting.done() else None
    finally:
        leaving.cancel()
        connecting.cancel()


async def _accept(connection: ClientConnection, send: Send) -> None:
    answer = connection.response
    assert answer is not None
    raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.raw_items()]
    headers = [
        header
        for header in response_headers(raw, 101)
        if header[0] != b"date" and not header[0].startswith(b"sec-websocket-")
    ]
    await send({"type": "websocket.accept", "subprotocol": connection.subprotocol, "headers": headers})


async def _refuse_socket(receive: Receive, send: Send, status: int, headers: Headers, body: bytes) -> None:
    headers = [header for header in headers if header[0] != b"content-length"]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})
    # uvicorn logs an error unless the connection has ended when we return: it ends with the second of these.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1):
            await receive()
            await receive()


async def _relay_messages(connection: ClientConnection, receive: Receive, send: Send) -> None:
    async with asyncio.TaskGroup() as group:
        upward = group.create_task(_relay_up(connection, receive))
        downward = group.create_task(_relay_down(connection, send))
        await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
        upward.cancel()
        downward.cancel()


async def _relay_up(connection: ClientConnection, receive: Receive) -> None:
    from websockets.exceptions import ConnectionClosed

    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            code = message.get("code", _NO_CODE)
            if code in (_NO_CODE, _BROKEN):
                return  # the connection is gone; that of the backend is aborted
            await connection.close(code, message.get("reason") or "")
            return
        text = message.get("text")
        try:
            await connection.send(text if text is not None else message["bytes"])
        except ConnectionClosed:
            # The other direction tells the client; it knows the code.
            await asyncio.Event().wait()


async def _relay_down(connection: ClientConnection, send: Send) -> None:
    from websockets.exceptions import ConnectionClosed

    try:
        while True:
            message = await connection.recv()
            event: dict[str, Any] = {"type": "websocket.send"}
            event["text" if isinstance(message, str) else "bytes"] = message
            await send(event)
    except OSError:
        return  # the client has gone; the other direction hears of it, too
    except ConnectionClosed:
        code, reason = connection.close_code, connection.close_reason
        sendable = {_NO_CODE: _NORMAL, _BROKEN: _BAD_GATEWAY, None: _GOING_AWAY}.get(code, code)
        # A client that has closed, too, needs no telling; uvicorn has two ways to say so.
        with contextlib.suppress(OSError, RuntimeError):
            await send({"type": "websocket.close", "code": sendable, "reason": reason or ""})
