"""What differs between the versions of FastAPI, Starlette and uvicorn that Backline runs on: all of it, and only here.

The versions are those of two tracks (``docs/design/tracks.md``): FastAPI from 0.95 with pydantic 1, and from 0.109 with
pydantic 2. What can be asked for is asked for, so that a version number stands nowhere.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import fastapi.routing
from fastapi.routing import APIWebSocketRoute

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.middleware import Middleware


def never_redirect_slashes(app: FastAPI) -> None:
    """Let no path be redirected to the same with a slash, or without one: clients lose the body of a POST."""
    # FastAPI takes it as an argument since 0.97, and before that takes any argument and does nothing with it.
    app.router.redirect_slashes = False


def flattened(routes: list[Any]) -> Iterator[Any]:
    """Yield every route, with ``path``, ``methods`` and ``endpoint``, of those that were added to an application."""
    # The routes of FastAPI are a tree since 0.137.
    flatten: Any = getattr(fastapi.routing, "iter_route_contexts", None)
    yield from routes if flatten is None else flatten(routes)


def websocket_route(path: str, endpoint: Any, dependencies: Sequence[Any]) -> APIWebSocketRoute:
    """Return the route of a WebSocket ``endpoint(socket)`` behind ``dependencies``."""
    # A route of FastAPI takes no dependencies for WebSockets before 0.97, and its function takes them always.
    given = [
        inspect.Parameter(f"dependency_{number}", inspect.Parameter.KEYWORD_ONLY, default=each)
        for number, each in enumerate(dependencies)
    ]

    async def depending(*args: Any, **values: Any) -> None:
        for each in given:
            values.pop(each.name)
        await endpoint(*args, **values)

    # Resolved here: FastAPI would look the names of its annotations up in the module of ``depending``.
    own = inspect.signature(endpoint, eval_str=True)
    depending.__signature__ = own.replace(parameters=[*own.parameters.values(), *given])  # type: ignore[attr-defined]
    return APIWebSocketRoute(path, depending)


def cause(exc: BaseException) -> BaseException:
    """Return the exception that the application has raised, out of the groups that a middleware has put it in."""
    # Starlette's BaseHTTPMiddleware lets the group of its tasks through before 0.28, with an end of stream of its own.
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[-1]
    return exc


def middleware_arguments(middleware: Middleware) -> dict[str, Any]:
    """Return the keyword arguments that a middleware was added with."""
    # Starlette 0.35 renamed the attribute.
    arguments: dict[str, Any] | None = getattr(middleware, "kwargs", None)
    return arguments if arguments is not None else getattr(middleware, "options", {})
