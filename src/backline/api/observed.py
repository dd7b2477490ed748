"""Around the whole application: one span and, with ``--access-log all``, one log line for each request.

Outside of FastAPI, so that every route is seen and every answer, streamed or not, however it ends. It is only there
where somebody wants one of the two; who answers a request finds its ``Observation`` by ``observation_of``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from starlette.routing import Mount

from backline.observe.access_log import log_request
from backline.observe.gen_ai import ChatWatch, operation_of

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from backline.api.application import Application
    from backline.config.settings import Settings
    from backline.errors import BacklineError
    from backline.observe.tracing import RequestTrace, Tracing
    from backline.proxy.port import BackendAddress
    from backline.runtime.call import Call

_KEY = "backline.observation"
_LEFT_OUT = frozenset({"/", "/livez", "/readyz", "/ping", "/health", "/stats", "/metrics", "/v1/metrics"})


def observation_of(scope: Scope) -> Observation | None:
    """Return the observation of a request, ``None`` where nobody observes."""
    return cast("Observation | None", scope.get(_KEY))


def note_error(scope: Scope, error: BacklineError | None) -> None:
    """Tell who observes that the request is answered with this error, or that its answer is cut off by it."""
    observation = observation_of(scope)
    if observation is not None and error is not None:
        observation.error = error
        observation.cut_off = observation.status is not None


class Observation:
    """What is seen of one request while it is answered."""

    __slots__ = (
        "_chat",
        "_cycle", "_send", "body_bytes", "call", "cut_off", "error", "request_id", "seconds", "status", "trace"
    )  # fmt: skip

    def __init__(self, send: Send, trace: RequestTrace | None) -> None:
        self._send = send
        self._cycle: Any = getattr(send, "__self__", None)
        self.trace = trace
        self._chat: ChatWatch | None = None
        self.status: int | None = None
        self.body_bytes = 0
        self.request_id: str | None = None
        self.error: BacklineError | None = None
        """The error that is answered, or that cut the answer off."""
        self.call: Call | None = None
        self.seconds: Mapping[str, float] = {}
        """Of the stages of the model's call."""
        self.cut_off = False
        """``error`` came when the answer had begun."""

    @property
    def traceparent(self) -> bytes | None:
        """The request's span as W3C's header, for those who tell where an example of a figure is found."""
        if self.trace is None or not self.trace.recording:
            return None
        return self.trace.carrier.get("traceparent", "").encode() or None

    def asks_model(self, call: Call) -> None:
        """The request goes to the model."""
        self.call = call
        if self.trace is not None:
            call.trace = self.trace
            call.header["trace"] = self.trace.carrier

    def asks_backend(
        self, scope: Scope, headers: list[tuple[bytes, bytes]], address: BackendAddress
    ) -> list[tuple[bytes, bytes]]:
        """The request goes to the backend; return the headers for it."""
        if self.trace is None:
            return headers
        return self.trace.begin_backend(headers, scope.get("method", "GET"), address.host, address.port)

    def read_along(self, chat: ChatWatch, receive: Receive) -> Receive:
        """Watch a chat; return the ``receive`` to go on with."""
        self._chat = chat

        async def receive_along() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                chat.asked(message.get("body", b""))
            return message

        return receive_along

    def end(self) -> None:
        """The request is over: end its spans."""
        trace, call = self.trace, self.call
        if trace is None:
            return
        if call is not None:
            trace.stages(call.queued, call.started, self.seconds, call.worked_on_by)
        if self._chat is not None:
            trace.describe_chat(self._chat)
        trace.end(self.status, self.error, cut_off=self.cut_off)

    async def send(self, message: Message) -> None:
        """See ASGI."""
        kind = message["type"]
        if self._chat is not None:
            if kind == "http.response.body":
                self._chat.answered(message.get("body", b""))
            elif kind == "http.response.start":
                self._chat.answer_begins(message.get("headers", ()))
        if kind == "http.response.body":
            if not self.body_bytes and self.trace is not None and message.get("more_body") and message.get("body"):
                self.trace.event("first piece sent")
            self.body_bytes += len(message.get("body", b""))
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            if self.request_id is None:  # answered by FastAPI's own routes
                for name, value in message.get("headers", ()):
                    if name == b"x-request-id":
                        self.request_id = value.decode("latin-1")
        elif kind == "websocket.accept":
            self.status = 101
        await self._send(message)

    # What one_write.py looks for at the owner of ``send``.

    @property
    def transport(self) -> Any:
        """The connection's transport, where the server has put one there."""
        return getattr(self._cycle, "transport", None)

    @property
    def flow(self) -> Any:
        """Whether the client keeps up, as the server has noted it."""
        return getattr(self._cycle, "flow", None)

    @property
    def default_headers(self) -> Any:
        """The headers that the server adds to each answer."""
        return self._cycle.default_headers

    @default_headers.setter
    def default_headers(self, headers: Any) -> None:
        self._cycle.default_headers = headers


class Observed:
    """An ASGI application around ours.

    ``routes`` maps exact paths to the templates of their routes, ``below`` the paths that subtrees answer; ``left_out``
    are the paths of probes and scrapes, which come every few seconds and tell nobody anything.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        routes: Mapping[str, str],
        below: Mapping[str, str],
        left_out: AbstractSet[str],
        tracing: Tracing | None,
        logs_requests: bool,
    ) -> None:
        self._app = app
        self._routes = routes
        self._below = [(f"{path}/", template) for path, template in below.items()]
        self._left_out = left_out
        self._tracing = tracing
        self._logs_requests = logs_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer (ASGI)."""
        if scope["type"] not in ("http", "websocket") or scope["path"] in self._left_out:
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        route = self._route(scope["path"])
        tracing = self._tracing
        if tracing is None:
            observation = Observation(send, None)
            token = None
        else:
            observation = Observation(send, tracing.begin_request(scope, route, time.time_ns()))
            token = tracing.enter(cast("RequestTrace", observation.trace))
            if observation.trace is not None and observation.trace.recording and scope.get("method") == "POST":
                operation = operation_of(scope["path"])
                if operation is not None:
                    receive = observation.read_along(ChatWatch(operation, content=tracing.chat_content), receive)
        scope[_KEY] = observation
        try:
            await self._app(scope, receive, observation.send)
        finally:
            self._end(observation, scope, route, began)
            if tracing is not None:
                tracing.leave(token)

    def _route(self, path: str) -> str | None:
        route = self._routes.get(path)
        if route is None:
            for below, template in self._below:
                if path.startswith(below):
                    return template
        return route

    def _end(self, observation: Observation, scope: Scope, route: str | None, began: float) -> None:
        call = observation.call
        if route is None:
            route = getattr(scope.get("route"), "path", None)  # one of FastAPI's, with parameters in its path
            if route is not None and observation.trace is not None:
                observation.trace.found_route(route)
        observation.end()
        worker = None if call is None else call.worked_on_by
        if self._logs_requests:
            queue = call.started - call.queued if call is not None and call.started else None
            log_request(
                method=scope.get("method", "WEBSOCKET"),
                route=route,
                status=observation.status,
                code=None if observation.error is None else observation.error.code,
                request_id=observation.request_id,
                worker=worker,
                response_bytes=observation.body_bytes,
                total=time.monotonic() - began,
                queue=queue,
                stages=observation.seconds,
            )


def observe(app: Application, settings: Settings, tracing: Tracing | None, entry: ASGIApp) -> ASGIApp:
    """Return what the server is to call: ``entry``, observed where spans or lines of its requests are wanted.

    ``entry`` is the application, or what stands before it.
    """
    logs_requests = settings.log.access == "all"
    if tracing is None and not logs_requests:
        return entry
    routes, below, left_out = {}, {}, set()
    for route in app.routes:
        path = getattr(route, "path", None)
        if path is None:
            continue
        if isinstance(route, Mount):
            below[path] = f"{path}/{{path}}"
        elif getattr(route, "name", None) in _LEFT_OUT:
            left_out.add(path)
        else:
            routes[path] = path.rstrip("/") or "/"
    return Observed(entry, routes=routes, below=below, left_out=left_out, tracing=tracing, logs_requests=logs_requests)
