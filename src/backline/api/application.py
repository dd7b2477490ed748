"""FastAPI with a short way for the routes that are asked for most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from starlette.middleware import Middleware

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

# FastAPI, where it is new enough, would make spans, metrics and log records beside ours.
_NO_TELEMETRY = dict.fromkeys(("tracing", "metrics", "logs", "operation_spans", "auto_configure"), False)


class Application(FastAPI):
    """A FastAPI application whose ``endpoints`` are found by their exact path, before any routing.

    ``subtrees`` answer everything below their paths, WebSockets too.

    All of them are plain ASGI applications that answer every method and every error of their own, so they need nothing
    of the stack between FastAPI and its router, which costs more than all that we do for a small request. Each of them
    is a route as well: what looks at the routes sees them, and as soon as there is a middleware that wants to see their
    requests, they are reached through it and the router.
    """

    def __init__(
        self, *, endpoints: Mapping[str, ASGIApp], subtrees: Mapping[str, ASGIApp] | None = None, **options: Any
    ) -> None:
        super().__init__(**{**options, "telemetry": _NO_TELEMETRY})
        self._own_routes = list(options.get("routes") or ())
        self._guarded = False
        self._of_ours = 0  # middleware that our own endpoints need not pass
        self.start_failure: Exception | None = None
        """What kept the lifespan from starting, where whoever runs the server is to tell it."""
        self._endpoints = endpoints
        self._subtrees = [(f"{path}/", subtree) for path, subtree in (subtrees or {}).items()]

    def answers(self, path: str) -> bool:
        """Whether a request for this path would find one of our own endpoints."""
        return path in self._endpoints or any(path.startswith(below) for below, _ in self._subtrees)

    def guard(self, wrap: Callable[[ASGIApp], ASGIApp]) -> None:
        """Put something before each of our own endpoints; requests reach it through middleware and router."""
        for route in self._own_routes:
            route.app = wrap(route.app)
        self._guarded = True

    def add_innermost(self, middleware: Any, **arguments: Any) -> None:
        """Add a middleware of ours inside all that there are; it lets requests to our own endpoints through."""
        self.user_middleware.append(Middleware(middleware, **arguments))
        self._of_ours += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer (ASGI)."""
        endpoint = None
        if scope["type"] == "lifespan":
            send = self._without_told_failure(send)
        elif len(self.user_middleware) == self._of_ours and not self._guarded:
            path: str = scope["path"]
            if scope["type"] == "http":
                endpoint = self._endpoints.get(path)
            if endpoint is None:
                for below, subtree in self._subtrees:
                    if path.startswith(below):
                        endpoint = subtree
        if endpoint is None:
            await super().__call__(scope, receive, send)
        else:
            await endpoint(scope, receive, send)

    def _without_told_failure(self, send: Send) -> Send:
        async def send_quietly(message: Message) -> None:
            # Starlette's message is a traceback, which uvicorn would log.
            await send(message if self.start_failure is None else {"type": message["type"]})

        return send_quietly
