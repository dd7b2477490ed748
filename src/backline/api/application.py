"""FastAPI with a short way for the routes that are asked for most."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class Application(FastAPI):
    """A FastAPI application whose ``endpoints`` are found by their exact path, before any routing.

    The endpoints are plain ASGI applications that answer every method and every error of their own, so they need
    nothing of the stack between FastAPI and its router, which costs more than all that we do for a small request. Each
    of them is a route as well: what looks at the routes sees them, and as soon as there is a middleware that wants to
    see their requests, they are reached through it and the router.
    """

    def __init__(self, *, endpoints: Mapping[str, ASGIApp], **options: Any) -> None:
        super().__init__(**options)
        self._endpoints = endpoints

    def build_middleware_stack(self) -> ASGIApp:
        """See ``Starlette``; called when the first request comes, and no middleware can be added afterwards."""
        stack = super().build_middleware_stack()
        if self.user_middleware:
            return stack
        endpoints = self._endpoints

        async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
            endpoint = endpoints.get(scope["path"]) if scope["type"] == "http" else None
            await (stack if endpoint is None else endpoint)(scope, receive, send)

        return dispatch
