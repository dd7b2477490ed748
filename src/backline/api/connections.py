"""Bounds on connections: how many there are, how large a request's head is, and how long a slow client is waited for.

uvicorn has none of these. A client that sends its headers or its body byte by byte, or never reads its answer, holds a
connection, a buffer and perhaps a place in the queue for as long as it likes; a thousand of them hold the server.

Nothing is set up for a single connection: within each second the server passes over all that are open and asks each
what it waits for. What it waits for, and since when, is only noted then.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import http
import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from backline.api.error_table import ErrorResponse, render_error
from backline.api.one_write import HttpProtocol
from backline.errors import BacklineError, BadRequest, ClientTooSlow, HeadTooLarge, TooManyConnections

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

logger = logging.getLogger("backline.api")

DESCRIPTORS_TO_SPARE = 256  # of the process: listener, workers, backends, files; the rest may be connections
_OVER = 64  # connections over the bound that are still taken, so that a probe gets its answer
_EVICTED_AT_ONCE = 16
_AT_ONCE = 8  # connections looked after before the event loop turns
_PROBE_TIMEOUT = 3.0  # seconds for the head of a request on one of these
_NO_ID = "none"  # there is no request yet that could have one


class ConnectionLimits(Protocol):
    """What connections are held to: sizes in bytes, times in seconds, 0 for no limit. The limit settings fit it."""

    @property
    def max_head(self) -> int: ...
    @property
    def head_timeout(self) -> float: ...
    @property
    def body_timeout(self) -> float: ...
    @property
    def min_body_rate(self) -> int: ...
    @property
    def send_timeout(self) -> float: ...


@dataclasses.dataclass(slots=True, kw_only=True)
class Guard:
    """What all connections have in common.

    ``probes`` are the paths that are answered even where there are more than ``max_connections``; on ``unhurried``
    paths, given by their beginnings, a body may come as slowly as what is behind them allows.
    """

    limits: ConnectionLimits
    max_connections: int
    probes: frozenset[str]
    unhurried: tuple[str, ...] = ()

    async def watch(self, connections: Collection[object]) -> None:
        """Look after each connection once a second, for as long as the caller lets it.

        One that nobody has touched for a second takes 4 µs, most of them for memory that is in no cache: a thousand in
        one go, or only a hundred, would hold up everything else. So a few at a time, evenly over the second.
        """
        while True:
            present = list(connections)
            parts = [present[first : first + _AT_ONCE] for first in range(0, len(present), _AT_ONCE)] or [[]]
            for part in parts:
                await asyncio.sleep(1 / len(parts))
                self._look_after(part, connections)

    def _look_after(self, part: Iterable[object], connections: Collection[object]) -> None:
        now = asyncio.get_running_loop().time()
        for connection in part:
            if connection in connections and isinstance(connection, GuardedHttp):
                try:
                    connection.look(now)
                except Exception:  # a fault of ours costs this connection, and not the server
                    logger.exception("fault in the server's own code")
                    connection.transport.abort()

    def make_room(self, connections: Iterable[object]) -> None:
        """Close some connections that wait for nothing; their clients open new ones when they need them."""
        evicted = 0
        for connection in list(connections):
            if isinstance(connection, GuardedHttp) and connection.is_idle():
                connection.transport.close()
                evicted += 1
                if evicted == _EVICTED_AT_ONCE:
                    return


class GuardedHttp(HttpProtocol):
    """uvicorn's protocol that can be asked what it waits for, and gives up a client that is too slow."""

    _received = 0  # bytes, in all
    _head = 0  # bytes of a head that is not complete yet
    _extra = False  # over the bound on connections: for probes only
    _refused = False  # the server has answered of itself, and only waits for the client to hang up
    _waits_for: tuple[str, object] | None = None
    _since = 0.0
    _then = 0  # bytes received, or still to be sent, at that time

    def __init__(self, *args: Any, guard: Guard, **options: Any) -> None:
        super().__init__(*args, **options)
        self._guard = guard

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        super().connection_made(transport)
        over = len(self.connections) - self._guard.max_connections
        if over > 0:
            self._guard.make_room(self.connections)
            if over > _OVER:
                self.transport.abort()
                return
            self._extra = True
            self.app: ASGIApp = functools.partial(_only_probes, self.app, self._guard.probes)

    def data_received(self, data: bytes) -> None:
        """See ``asyncio.Protocol``."""
        if self._refused:
            return
        self._received += len(data)
        super().data_received(data)
        received = self._head + len(data)
        complete = self._head_is_complete()
        self._head = 0 if complete else received
        most = self._guard.limits.max_head
        # The last piece of a head may complete it and take it over the bound at once.
        if received > most and (not complete or self._head_bytes() > most) and not self._is_upgraded():
            self._refuse(HeadTooLarge(f"the request line and headers are over {most} bytes (limits.max_head)"))

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in the documented shape; called by uvicorn."""
        self._refuse(BadRequest("this is no HTTP/1.1 request, or its framing is ambiguous"))

    # --- the guard

    def is_idle(self) -> bool:
        """Whether nothing is under way on it, and not because it has only just been made."""
        if self._is_busy() or self._head_has_begun() or self._refused or self.transport.is_closing():
            return False
        return self.cycle is not None or self._waits_for is not None

    def look(self, now: float) -> None:
        """Give the client up if it has been waited for too long."""
        transport, limits = self.transport, self._guard.limits
        unsent = transport.get_write_buffer_size()
        if self._refused:
            if self._has_waited(("hanging up", None), now) > 0:
                transport.abort()
        elif unsent:
            # The kernel takes what the client reads in pieces of many kilobytes, so this stands still for one that
            # reads a byte now and then, too.
            if self._has_waited(("send", unsent), now) > (limits.send_timeout or now):
                logger.info("a client does not read its answer; its connection is closed")
                transport.abort()
        elif transport.is_closing():
            self._waits_for = None
        elif self._is_busy():
            self._look_at_body(now)
        elif self._head_has_begun():
            allowed = min(_PROBE_TIMEOUT, limits.head_timeout) if self._extra else limits.head_timeout
            if self._has_waited(("head", self.cycle), now) > (allowed or now):
                self._refuse(ClientTooSlow(f"the request's headers took more than {allowed:g} s to come"))
        elif self.cycle is None:
            # After an answer uvicorn has a timer of its own; before the first request it would wait for ever.
            allowed = _PROBE_TIMEOUT if self._extra else float(self.timeout_keep_alive)
            if self._has_waited(("silence", None), now) > allowed:
                transport.close()
        else:
            self._waits_for = None

    def _look_at_body(self, now: float) -> None:
        cycle, limits = self.cycle, self._guard.limits
        if not cycle.more_body or self.flow.read_paused or cycle.scope["path"].startswith(self._guard.unhurried):
            self._waits_for = None
            return
        waited = self._has_waited(("body", cycle), now)
        if not limits.body_timeout:
            return
        received = self._received - self._then
        if waited > limits.body_timeout + received / limits.min_body_rate:
            self._refuse(
                ClientTooSlow(
                    f"the request's body comes too slowly: {received} bytes in {waited:.0f} s, where "
                    f"{limits.body_timeout:g} s and one more for each {limits.min_body_rate} bytes are given "
                    "(limits.body_timeout)"
                )
            )

    def _has_waited(self, what: tuple[str, object], now: float) -> float:
        """Return for how many seconds it has been seen to wait for this."""
        if self._waits_for != what:
            self._waits_for, self._since, self._then = what, now, self._received
        return now - self._since

    def _is_busy(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _head_has_begun(self) -> bool:
        if hasattr(self, "conn"):  # h11, which knows by itself what it has not understood yet
            return bool(self.conn.trailing_data[0])
        return not self._head_is_complete()

    def _head_is_complete(self) -> bool:
        return self.scope is None or "path" in self.scope

    def _head_bytes(self) -> int:
        """Return the size of a complete head, or about that."""
        scope = self.scope
        if scope is None or "path" not in scope:
            return 0
        headers = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
        return len(scope["raw_path"]) + len(scope["query_string"]) + headers

    def _is_upgraded(self) -> bool:
        return self.transport.get_protocol() is not self

    def _refuse(self, error: BacklineError) -> None:
        """Answer by hand, as there is no complete request that the application could answer, and hang up."""
        if self._refused or self.transport.is_closing():
            return
        self._refused = True
        if self._is_busy() and self.cycle.response_started:
            self.transport.abort()
            return
        response = _rendered(error)
        head = b"".join(b"%s: %s\r\n" % header for header in response.headers)
        reason = http.HTTPStatus(response.status).phrase.encode()
        self.transport.write(b"HTTP/1.1 %d %s\r\n%s\r\n%s" % (response.status, reason, head, response.body))
        # Not closed yet: with bytes that nobody has read, that would reset the connection, and the answer with it.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._is_busy():
            self.cycle.disconnected = True
            self.cycle.message_event.set()


async def _only_probes(app: ASGIApp, probes: frozenset[str], scope: Scope, receive: Receive, send: Send) -> None:
    """Answer probes, and refuse everything else: there are as many connections as the server may have."""
    if scope["path"] in probes:
        await app(scope, receive, send)
        return
    text = (
        "this server has as many connections as it may (limits.max_connections); only probes are answered on new ones"
    )
    response = _rendered(TooManyConnections(text, retry_after=1))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PROBE_TIMEOUT):  # hanging up on what is still being sent would lose the answer
            while (await receive()).get("more_body"):
                pass
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
    await send({"type": "http.response.body", "body": response.body})


def _rendered(error: BacklineError) -> ErrorResponse:
    response = render_error(error, family="native", request_id=_NO_ID, show_stacktrace=False)
    more = [(b"content-length", b"%d" % len(response.body)), (b"connection", b"close")]
    return dataclasses.replace(response, headers=[*response.headers, *more])


def allowed_connections(wanted: int | None) -> int:
    """Return how many connections there may be, after raising the process's own limit on descriptors to its most."""
    try:
        import resource
    except ImportError:  # Windows, which has no such limit
        return wanted or 10_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with_hard = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (with_hard, hard))
            soft = with_hard
        except (OSError, ValueError):
            logger.debug("the limit on descriptors stays at %d", soft)
    possible = max(1, soft - DESCRIPTORS_TO_SPARE)
    if wanted is not None and wanted > possible:
        logger.warning(
            "limits.max_connections is %d, but this process may have no more than %d descriptors: %d connections it is "
            "(ulimit -n raises them)",
            wanted,
            soft,
            possible,
        )
    return min(wanted or 10_000, possible)
