"""The client of our own: HTTP/1.1 on the event loop's transports and httptools' parser, which uvicorn brings anyway.

It does what a proxy needs and nothing else, so an exchange costs a third of what it costs with the libraries, a client
that leaves can abort it at any moment, and headers pass as the bytes that they are. ``docs/dependencies.md`` has the
figures. What is not right by RFC 9112 is refused by the parser (llhttp, strict).
"""

from __future__ import annotations

import asyncio
import collections
import ssl
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, cast

import httptools

from backline.errors import BackendBroken, BackendDown, BackendTooSlow
from backline.proxy.port import (
    IDEMPOTENT,
    KEEP_ALIVE_SECONDS,
    MAX_ANSWER_HEAD_BYTES,
    BackendAddress,
    BackendRequest,
    BackendResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_BUFFERED_BYTES = 128 << 10  # of an answer that its reader has not taken yet; past it the backend has to wait


class Http1Client:
    """See ``BackendClient``."""

    def __init__(self, address: BackendAddress, *, connect_timeout: float) -> None:
        self._address = address
        self._connect_timeout = connect_timeout
        self._tls = ssl.create_default_context() if address.scheme == "https" else None
        self._loop = asyncio.get_running_loop()
        self._connections: set[_Connection] = set()
        self._idle: collections.deque[_Connection] = collections.deque()  # the longest idle first
        self._sweep: asyncio.TimerHandle | None = None

    async def send(self, request: BackendRequest) -> BackendResponse:
        """See ``BackendClient``."""
        again = request.method in IDEMPOTENT and isinstance(request.body, bytes)
        while True:
            connection = self._take_idle()
            reused = connection is not None
            if connection is None:
                connection = await self._connect()
            try:
                await connection.exchange(request)
            except BackendBroken:
                # Closed by the backend just as we came: with the idle ones gone, the next try has a new connection.
                if not (again and reused and connection.silent):
                    raise
            else:
                return connection

    async def aclose(self) -> None:
        """See ``BackendClient``."""
        if self._sweep is not None:
            self._sweep.cancel()
        for connection in tuple(self._connections):
            connection.abort()

    def _take_idle(self) -> _Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(self._loop.time()):
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        address = self._address
        try:
            async with asyncio.timeout(self._connect_timeout):
                _, connection = await self._loop.create_connection(
                    lambda: _Connection(self._loop, address.url, self._released),
                    address.host,
                    address.port,
                    ssl=self._tls,
                    server_hostname=address.host if self._tls is not None else None,
                )
        except TimeoutError as exc:
            raise BackendTooSlow(
                f"the backend {address.url} did not accept a connection within {self._connect_timeout:g} s "
                "(--backend-connect-timeout)"
            ) from exc
        except OSError as exc:
            raise BackendDown(f"no connection to the backend {address.url}: {exc.strerror or exc}") from exc
        self._connections.add(connection)
        return connection

    def _released(self, connection: _Connection, *, reusable: bool) -> None:
        if not reusable:
            self._connections.discard(connection)
            return
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = self._loop.call_later(KEEP_ALIVE_SECONDS, self._close_expired)

    def _close_expired(self) -> None:
        now = self._loop.time()
        while self._idle and not self._idle[0].is_usable(now):
            self._idle.popleft().abort()
        self._sweep = self._loop.call_later(KEEP_ALIVE_SECONDS, self._close_expired) if self._idle else None


class _Connection(asyncio.Protocol):
    """One connection, and the answer on it while there is one: it is its own ``BackendResponse``.

    An exchange: ``exchange`` sends the request and waits for the head; ``read`` takes pieces of the body; ``aclose``
    gives the connection back or aborts it. Only the exchange's task waits, so there is one waiter. The parser calls the
    ``on_...`` methods from within ``data_received``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, url: str, released: Callable[..., None]) -> None:
        self._loop = loop
        self._url = url
        self._released = released
        self._transport: asyncio.Transport | None = None
        self._idle_since = 0.0
        self._waiter: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        self._upload: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._reading = True
        self._closed = False
        self._new_answer("GET")
        self._new_parser()

    def _new_parser(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._parser.set_dangerous_leniencies(
            lenient_data_after_close=True
        )  # what comes is dropped with the connection

    def _new_answer(self, method: str) -> None:
        self._method = method
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.at_end = False
        self.silent = True  # nothing has come yet
        self._pieces: list[bytes] = []
        self._buffered = 0
        self._head_bytes = 0  # of the head, or since the last piece of the body: bounded either way
        self._has_head = False
        self._ends_with_connection = True
        self._complete = False
        self._keep_alive = False
        self._take: Callable[[bytes], bool] | None = None

    # What the client does

    async def exchange(self, request: BackendRequest) -> None:
        """Send a request and wait for the head of its answer. Aborts the connection on every exception."""
        self._new_answer(request.method)
        assert self._transport is not None
        try:
            body = request.body
            lines = [f"{request.method} ".encode(), request.target, b" HTTP/1.1\r\n"]
            for name, value in request.headers:
                lines += (name, b": ", value, b"\r\n")
            if isinstance(body, bytes):
                lines += (b"\r\n", body)
                self._transport.write(b"".join(lines))
            else:
                chunked = not any(name == b"content-length" for name, _ in request.headers)
                lines.append(b"transfer-encoding: chunked\r\n\r\n" if chunked else b"\r\n")
                self._transport.write(b"".join(lines))
                # Owned by this exchange, and cancelled with it in abort().
                self._upload = asyncio.ensure_future(self._send_pieces(body, chunked=chunked))  # noqa: TID251
            while not self._has_head:
                if self._error is not None:
                    raise self._error
                await self._wait()
            self.at_end = self._complete and not self._pieces
        except BaseException:
            self.abort()
            raise

    async def read(self) -> bytes:
        """See ``BackendResponse``."""
        while not self._pieces and not self._complete:
            if self._error is not None:
                raise self._error
            await self._wait()
        piece = self._join_pieces()
        self._pieces = []
        self._buffered = 0
        self.at_end = self._complete
        if not self._reading:
            self._reading = True
            if self._transport is not None and not self._closed:
                self._transport.resume_reading()
        return piece

    def offer_to(self, take: Callable[[bytes], bool]) -> None:
        """See ``BackendResponse``."""
        self._take = take

    async def aclose(self) -> None:
        """See ``BackendResponse``."""
        self._take = None
        if self._complete and self._keep_alive and self._upload is None and not self._closed:
            self._pieces = []
            self._idle_since = self._loop.time()
            if not self._reading and self._transport is not None:
                self._reading = True
                self._transport.resume_reading()
            if self._method == "HEAD":
                self._new_parser()  # it waits for the body that HEAD is not answered with
            self._released(self, reusable=True)
        else:
            self.abort()

    def is_usable(self, now: float) -> bool:
        """Whether an idle connection is open, silent and not idle for too long."""
        return not self._closed and self._error is None and now - self._idle_since < KEEP_ALIVE_SECONDS

    def abort(self) -> None:
        """Close at once, whatever is still in the buffers."""
        if self._upload is not None:
            self._upload.cancel()
            self._upload = None
        if not self._closed:
            self._closed = True
            self._released(self, reusable=False)
            if self._transport is not None:
                self._transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _fail(self, error: BaseException) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    # The request's body

    async def _send_pieces(self, pieces: AsyncIterator[bytes], *, chunked: bool) -> None:
        assert self._transport is not None
        try:
            async for piece in pieces:
                self._transport.writelines((b"%x\r\n" % len(piece), piece, b"\r\n") if chunked else (piece,))
                if self._writable is not None:
                    await self._writable
            if chunked:
                self._transport.write(b"0\r\n\r\n")
            self._upload = None
        except Exception as exc:  # noqa: BLE001 - whatever ends the body is told to the exchange's task
            self._fail(exc)

    def pause_writing(self) -> None:
        """See asyncio."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # The transport and the parser

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        if self._complete or self._closed:
            self.abort()  # unasked for: the next answer on this connection could not be trusted
            return
        self.silent = False
        self._head_bytes += len(data)
        buffered = self._buffered
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as exc:
            if not self._complete:
                self._fail(BackendBroken(f"what the backend {self._url} sent is no HTTP: {exc}"))
            self._keep_alive = False
        except httptools.HttpParserUpgrade:
            self._fail(BackendBroken(f"the backend {self._url} switched protocols without being asked"))
        if self._buffered != buffered:
            self._head_bytes = 0
            if self._take_at_once():
                return
            if self._buffered > _MAX_BUFFERED_BYTES and self._reading and not self._complete:
                self._reading = False
                assert self._transport is not None
                self._transport.pause_reading()
        elif self._head_bytes > MAX_ANSWER_HEAD_BYTES and not self._complete:
            self._fail(
                BackendBroken(f"the backend {self._url} sent headers of more than {MAX_ANSWER_HEAD_BYTES} bytes")
            )
        self._wake()

    def _take_at_once(self) -> bool:
        """Whether what is here of the body has been taken, so that the reader need not be woken."""
        if self._take is None or self._waiter is None or self._complete or self._error is not None:
            return False
        if not self._take(self._join_pieces()):
            return False
        self._pieces = []
        self._buffered = 0
        return True

    def _join_pieces(self) -> bytes:
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def eof_received(self) -> bool:
        """See asyncio."""
        self._ended()
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._ended(exc)
        self.resume_writing()
        if not self._closed:
            self._closed = True
            self._released(self, reusable=False)

    def _ended(self, exc: Exception | None = None) -> None:
        self._keep_alive = False
        if not self._complete:
            if self._has_head and self._ends_with_connection and exc is None and self._error is None:
                self._complete = True
            else:
                when = "in the middle of its answer" if self._has_head else "before it answered"
                self._fail(BackendBroken(f"the backend {self._url} closed the connection {when}"))
        self._wake()

    def on_message_begin(self) -> None:
        """See httptools."""
        if self._complete:
            self._keep_alive = False  # a second answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        """See httptools."""
        if not self._has_head:  # else a trailer
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """See httptools."""
        if self._complete:
            return
        status = self._parser.get_status_code()
        if status < 200 and status != 101:
            self.headers = []  # 100, 102, 103: nothing that ASGI could pass on
            return
        self.status = status
        self._has_head = True
        for name, value in self.headers:
            lowered = name.lower()
            if lowered == b"content-length" or (
                lowered == b"transfer-encoding" and value.lower().rpartition(b",")[2].strip() == b"chunked"
            ):
                self._ends_with_connection = False
        if self._method == "HEAD":
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        if self._complete:
            self._keep_alive = False  # HEAD was answered with a body
            return
        self._pieces.append(body)
        self._buffered += len(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        if self._has_head and not self._complete:
            self._complete = True
            self._keep_alive = self._parser.should_keep_alive()
