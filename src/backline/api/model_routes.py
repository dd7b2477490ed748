"""The routes that end in the model: the body goes to a worker as it came, the answer comes back encoded."""

from __future__ import annotations

import asyncio
import functools
import urllib.parse
from typing import TYPE_CHECKING, Any

from backline.api.body import Body, ClientDisconnected, read_body
from backline.api.endpoint import Endpoint, Family, Headers, OperationUnavailable, respond
from backline.api.lookout import OpenRequest
from backline.api.observed import observation_of
from backline.errors import BadRequest, DeadlineExceeded, ServerDraining
from backline.observe.observer import CLIENT_LEFT
from backline.runtime.call import BatchKey, Call

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from backline.api.state import ApiState
    from backline.runtime.call import Reply

_MAX_QUERY_FIELDS = 1000
_MAX_HEAD_BYTES = 64 << 10  # of headers and query string: they go to the worker, in a frame's header

_WANTED = {b"content-type": "content_type", b"content-encoding": "content_encoding", b"accept": "accept"}
# Of W3C's trace context: what user code continues where the server itself makes no spans.
_TRACE = frozenset({b"traceparent", b"tracestate", b"baggage"})


class ModelEndpoint(Endpoint):
    """Hands a request to the model.

    ``raw`` bodies are not looked into, so a multipart body reaches the hook as it is. ``with_request`` adds the
    request's headers and query string, which only some hooks are given. ``retryable``: doing it twice does no harm.
    """

    methods = ("POST",)

    def __init__(
        self,
        state: ApiState,
        operation: str,
        *,
        raw: bool = False,
        with_request: bool = False,
        retryable: bool = True,
        family: Family = "native",
        method: str = "POST",
    ) -> None:
        super().__init__(state)
        self.operation = operation
        self.raw = raw
        self.with_request = with_request
        self.retryable = retryable
        self.family = family
        self.methods = (method,)

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Read the body, hand it over, answer."""
        if self.state.service is None:
            raise OperationUnavailable(
                "this server has no model, it only passes /directAccess/ and /nim/ on to its backend; name a model "
                "directory to serve one"
            )
        service = self.state.model
        if self.state.draining:
            raise ServerDraining("the server is shutting down; send the request to another one", retry_after=1)
        service.supervisor.check_accepting()
        return await self.answer(scope, receive, send, request_id)

    async def answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Answer a request that the model can be asked."""
        service = self.state.model
        header, deadline = self.header(scope)
        service.dispatcher.check_room(deadline, scope.get("client"))  # a body that is not wanted need not be read
        loop = service.loop
        open_request = OpenRequest(receive, asyncio.current_task(loop), deadline)
        lookout = self.state.lookout
        lookout.open(open_request, loop)
        try:
            body = await self.read(scope, receive, open_request)
            header["parts"] = [(part.name, part.content_type, part.filename, part.length) for part in body.parts]
            call = Call(
                header=header,
                payload=body.payload,
                request_id=request_id,
                deadline=deadline,
                retryable=self.retryable,
                batch_key=self._batch_key(header, body),
                client=scope.get("client"),
                loop=loop,
            )
            observation = observation_of(scope)
            if observation is not None:
                observation.asks_model(call)
            reply = await self.ask(call, open_request, scope)
            if observation is not None:
                observation.seconds = reply.seconds
        except ClientDisconnected:
            return CLIENT_LEFT
        finally:
            lookout.close(open_request)
        return await respond(send, 200, reply_headers(reply), reply.body, request_id)

    def _batch_key(self, header: dict[str, Any], body: Body) -> BatchKey | None:
        """Return what a prediction must share with others to be answered with them; ``None`` where it cannot."""
        if self.operation != "predict" or len(body.parts) != 1 or body.payload.data is None:
            return None
        part = body.parts[0]
        if part.name != "X" or header.get("content_encoding"):
            return None
        return BatchKey(part.content_type, part.filename, header.get("accept", ""))

    async def read(self, scope: Scope, receive: Receive, open_request: OpenRequest) -> Body:
        """Return the request's body. Raises ``ClientDisconnected`` and ``DeadlineExceeded``."""
        service, limits = self.state.model, self.state.settings.limits
        try:
            return await read_body(scope, receive, service.payloads.sink, limits, raw=self.raw)
        except asyncio.CancelledError as exc:
            if not open_request.late:
                raise
            raise DeadlineExceeded("the deadline passed before the request's body was there", in_queue=True) from exc

    async def ask(self, call: Call, open_request: OpenRequest, scope: Scope) -> Reply:
        """Return the model's answer; cancelling gives the call up. Raises ``ClientDisconnected``."""
        dispatcher = self.state.model.dispatcher
        dispatcher.submit(call)
        open_request.wait_for_answer(functools.partial(dispatcher.cancel, call))
        try:
            return await call.future
        except asyncio.CancelledError:
            dispatcher.cancel(call)
            if open_request.client_left:
                raise ClientDisconnected from None
            raise

    def header(self, scope: Scope) -> tuple[dict[str, Any], float | None]:
        """Return the header for the worker and the deadline in the loop's time."""
        header: dict[str, Any] = {"operation": self.operation}
        timeout = self.state.settings.workers.timeout or None
        size = len(scope["query_string"])
        for name, value in scope["headers"]:
            size += len(name) + len(value)
            if name in _WANTED:
                header[_WANTED[name]] = value.decode("latin-1")
            elif name in _TRACE:
                header.setdefault("trace", {})[name.decode()] = value.decode("latin-1")
            elif name == b"x-request-timeout":
                wished = _parse_timeout(value)
                timeout = wished if timeout is None else min(timeout, wished)
        if size > _MAX_HEAD_BYTES:
            raise BadRequest(f"headers and query string have {size} bytes; at most {_MAX_HEAD_BYTES} are taken")
        if self.with_request:
            header["headers"] = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            header["query"] = _parse_query(scope["query_string"])
        return header, None if timeout is None else self.state.model.loop.time() + timeout


def _parse_query(query: bytes) -> dict[str, list[str]]:
    try:
        return urllib.parse.parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError as exc:
        raise BadRequest(f"the query string has more than {_MAX_QUERY_FIELDS} fields; send them in the body") from exc


def _parse_timeout(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise BadRequest("X-Request-Timeout: expected a positive number of seconds, such as 2.5")
    return seconds


def reply_headers(reply: Reply) -> Headers:
    """Return the headers of a worker's answer."""
    headers: Headers = [(b"content-type", reply.content_type.encode("latin-1"))]
    headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers.items()]
    return headers
