"""The base of all routes: plain ASGI endpoints, so that a request pays for no framework that it does not need."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import TYPE_CHECKING, Any, Literal

from backline.api.error_table import render_error
from backline.api.observed import note_error, observation_of
from backline.api.one_write import corkable
from backline.errors import BacklineError, ServerDraining
from backline.observe.access_log import log_error
from backline.observe.observer import CLIENT_LEFT, SILENT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.types import Receive, Scope, Send

    from backline.api.state import ApiState
    from backline_worker.types import Buffer

logger = logging.getLogger("backline.api")

Headers = list[tuple[bytes, bytes]]
Family = Literal["native", "openai"]

OTHER_ROUTE = "other"
"""Stands for every path that is no route's: what clients make up must not become a label."""

_CHUNK_BYTES = 256 << 10


class NotFound(BacklineError):
    """No such route."""

    code = "not_found"


class MethodNotAllowed(BacklineError):
    """The route exists, and not with this method."""

    code = "method_not_allowed"


class OperationUnavailable(BacklineError):
    """The route exists, and there is nothing behind it on this server."""

    code = "operation_unavailable"


class Endpoint:
    """One route. Subclasses answer in ``handle`` and raise ``BacklineError`` for everything else.

    A ``GET`` endpoint answers ``HEAD`` too, and every endpoint ``OPTIONS``; with ``any_method`` all goes to ``handle``.
    Those that are not ``observed``, which look at the server rather than use it, are left out of metrics and traces.
    """

    methods: Sequence[str] = ("GET",)
    any_method = False
    family: Family = "native"
    logs_errors = True
    observed = True

    def __init__(self, state: ApiState) -> None:
        self.state = state
        self.observer = state.observer if self.observed else SILENT

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        begun = time.perf_counter()
        self.observer.request_begun()
        given = traceparent = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given = value
            elif name == b"traceparent":
                traceparent = value
        request_id = self.state.request_id(given)
        observation = observation_of(scope)
        if observation is not None:
            observation.request_id = request_id
            traceparent = observation.traceparent or traceparent
        method = scope["method"]
        status = CLIENT_LEFT
        try:
            if self.any_method or method in self.methods or (method == "HEAD" and "GET" in self.methods):
                status = await self.handle(scope, receive, send, request_id)
            elif method == "OPTIONS":
                status = await respond(send, 204, [(b"allow", self._allow())], b"", request_id)
            else:
                message = f"{method} is not possible on {scope['path']}; use {' or '.join(self.methods)}"
                raise MethodNotAllowed(message)
        except BacklineError as exc:
            status = await self.respond_error(scope, send, exc, request_id)
        except asyncio.CancelledError:
            if not self.state.draining:
                raise
            # The server's own doing, at the end of the drain time; this is the end of the task, too.
            late = ServerDraining("the server stopped before the answer was there", retry_after=1)
            status = await self.respond_error(scope, send, late, request_id)
        except Exception as exc:
            logger.exception("fault in the server's own code", extra={"request_id": request_id})
            message = f"{type(exc).__name__} in the server; its log has more under this request's id"
            status = await self.respond_error(scope, send, BacklineError(message), request_id)
        finally:
            self.observer.request_ended(
                self.route(scope), method, status, time.perf_counter() - begun, _trace(scope, traceparent)
            )

    def route(self, scope: Scope) -> str:
        """Return the template of the route that a request has come by."""
        return self.state.routes.get(scope["path"], OTHER_ROUTE)

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Answer a request whose method is allowed; return the status, ``CLIENT_LEFT`` where there was no answer."""
        raise NotImplementedError

    async def respond_error(self, scope: Scope, send: Send, exc: BacklineError, request_id: str) -> int:
        """Answer with the documented shape of this error; return its status."""
        response = render_error(
            exc,
            family=self.family,
            request_id=request_id,
            show_stacktrace=self.state.settings.server.show_stacktrace,
        )
        note_error(scope, exc)
        if self.logs_errors:
            log_error(
                exc,
                method=scope["method"],
                path=scope["path"],
                status=response.status,
                request_id=request_id,
                access=self.state.settings.log.access,
            )
        self.observer.error_answered(self.route(scope), exc, response.status, request_id)
        headers = list(response.headers)
        if isinstance(exc, MethodNotAllowed):
            headers.append((b"allow", self._allow()))
        if isinstance(exc, ServerDraining):
            headers.append((b"connection", b"close"))
        return await respond(send, response.status, headers, response.body, request_id)

    def _allow(self) -> bytes:
        allowed = [*self.methods, *(["HEAD"] if "GET" in self.methods else []), "OPTIONS"]
        return ", ".join(allowed).encode()


def _trace(scope: Scope, given: bytes | None) -> bytes | None:
    """Return the trace that a request belongs to: that of our own span where there is one."""
    observation = observation_of(scope)
    return given if observation is None else observation.traceparent or given


async def respond(send: Send, status: int, headers: Headers, body: Buffer, request_id: str) -> int:
    """Send a complete response and return its status; adds ``Content-Length`` and ``X-Request-ID``."""
    length = len(body)
    headers = [header for header in headers if header[0] not in (b"content-length", b"x-request-id")]
    if status != 204:
        headers.append((b"content-length", b"%d" % length))
    headers.append((b"x-request-id", request_id.encode()))
    head = {"type": "http.response.start", "status": status, "headers": headers}
    if length <= _CHUNK_BYTES:
        whole = {"type": "http.response.body", "body": bytes(body)}
        transport = corkable(send)
        if transport is not None:
            transport.cork()
        try:
            await send(head)
            await send(whole)
        finally:
            if transport is not None:
                transport.uncork()
        return status
    await send(head)
    # In pieces, so that the client's pace holds us back and a mapped answer is never copied whole.
    view = memoryview(body)
    for start in range(0, length, _CHUNK_BYTES):
        piece = bytes(view[start : start + _CHUNK_BYTES])
        await send({"type": "http.response.body", "body": piece, "more_body": start + _CHUNK_BYTES < length})
    return status


async def respond_json(send: Send, status: int, content: Any, request_id: str, headers: Headers | None = None) -> int:
    """Send ``content`` as JSON and return the status."""
    body = json.dumps(content, ensure_ascii=False, default=str).encode()
    return await respond(send, status, [(b"content-type", b"application/json"), *(headers or [])], body, request_id)
