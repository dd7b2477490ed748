"""FastAPI with a short way for the routes that are asked for most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


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
        super().__init__(**options)
        self._endpoints = endpoints
        self._subtrees = [(f"{path}/", subtree) for path, subtree in (subtrees or {}).items()]

    def build_middleware_stack(self) -> ASGIApp:
        """See ``Starlette``; called when the first request comes, and no middleware can be added afterwards."""
        stack = super().build_middleware_stack()
        if self.user_middleware:
            return stack
        endpoints, subtrees = self._endpoints, self._subtrees

        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            endpoint = endpoints.get(scope["path"]) if scope["type"] == "http" else None
            if endpoint is None and scope["type"] != "lifespan":
                path: str = scope["path"]
                for below, subtree in subtrees:
                    if path.startswith(below):
                        endpoint = subtree
            await (stack if endpoint is None else endpoint)(scope, receive, send)

        return dispatch
