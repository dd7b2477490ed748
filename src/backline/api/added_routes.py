"""Counts the requests of the routes that the operator's extension file has added, as our own endpoints count theirs.

It is the innermost middleware: inside those of the operator, outside of what turns exceptions into answers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from backline.observe.observer import CLIENT_LEFT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from backline.observe.observer import Observer

Templates = Mapping[int, str]
"""The paths of added routes as they are written in the file, by the ``id`` of what answers them."""


def added_route(scope: Scope, templates: Templates) -> str | None:
    """Return the path of the added route that a request has been given to, with its parameters unfilled."""
    return templates.get(id(scope.get("endpoint")))


class CountedRoutes:
    """Passes requests on, and tells ``observer`` of those that an added route has answered."""

    def __init__(
        self, app: ASGIApp, *, observer: Observer, templates: Templates, is_ours: Callable[[str], bool]
    ) -> None:
        self._app = app
        self._observer = observer
        self._templates = templates
        self._is_ours = is_ours

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket") or self._is_ours(scope["path"]):
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        status: int | None = None

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            elif message["type"] == "websocket.close" and status is None:
                status = 403
            await send(message)

        try:
            await self._app(scope, receive, note)
        except Exception:
            status = status or 500
            raise
        finally:
            self._count(scope, status or CLIENT_LEFT, time.perf_counter() - begun)

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = added_route(scope, self._templates)
        if route is None:
            return  # no route, which whoever answers 404 counts, or a page of FastAPI's own
        self._observer.request_begun()
        if scope["type"] == "websocket":
            self._observer.socket_ended(route, status)
        else:
            self._observer.request_ended(route, scope["method"], status, seconds)
