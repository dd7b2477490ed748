"""The operator's extension file ``custom_fastapi.py``: code of his that runs in the server.

It lies in the model directory and has ``init_app(app)``, which gets the FastAPI application before anything is served
and may add routes, middleware and dependencies; ``lifespan(app)``, an asynchronous context manager, holds what is to be
started and stopped with the server. Authentication may be among it, so nothing is served where any of it fails.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request, WebSocket
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.middleware.base import (
    BaseHTTPMiddleware,  # noqa: TID251  (not used: looked for, and warned of)
)
from starlette.responses import Response

from backline.api.framework import flattened, middleware_arguments, websocket_route
from backline.config.problems import SettingError
from backline.config.server_code import server_code

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from backline.api.application import Application
    from backline.config.settings import ServerSettings

_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]
_EXAMPLE = "see docs/how-to/extend-the-server.md for one that works"


@dataclasses.dataclass(kw_only=True)
class Extension:
    """What the operator's file has added to the application, for ``/info`` and the log."""

    file: Path
    routes: list[str] = dataclasses.field(default_factory=list)
    templates: dict[int, str] = dataclasses.field(default_factory=dict)
    """See ``added_routes``."""
    middleware: list[str] = dataclasses.field(default_factory=list)
    dependencies: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    lifespan: Callable[[Any], contextlib.AbstractAsyncContextManager[Any]] | None = None
    openapi: dict[str, Any] = dataclasses.field(default_factory=dict)

    def summary(self) -> str:
        """Return what it has added, in one line."""
        counted = ((self.routes, "route"), (self.middleware, "middleware"), (self.dependencies, "dependency"))
        parts = [f"{kind} {', '.join(names)}" for names, kind in counted if names]
        parts += ["start and stop work"] if self.lifespan is not None else []
        return f"adds {'; '.join(parts)}" if parts else "adds nothing"

    def describe(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "file": self.file.name,
            "routes": self.routes,
            "middleware": self.middleware,
            "dependencies": self.dependencies,
            "lifespan": self.lifespan is not None,
            "warnings": self.warnings,
        }


def extend(app: Application, folder: Path | None, settings: ServerSettings) -> Extension | None:
    """Let the operator's code in the model directory extend ``app``; ``None`` where there is none.

    Raises ``SettingError``.
    """
    fastapi_file, flask_file = server_code(folder)
    if fastapi_file is not None:
        extension = load_extension(fastapi_file, app)
        if flask_file is not None:
            extension.warnings.append(f"{flask_file.name} is not run, as there is {fastapi_file.name}")
        return extension
    if flask_file is None or not settings.custom_flask:
        return None
    from backline.api.flask_bridge import load_flask_extension

    return load_flask_extension(flask_file, app)


def load_extension(file: Path, app: Application) -> Extension:
    """Import the file, let it extend ``app``, and see to it that what it adds covers the prediction routes too.

    Raises ``SettingError`` with file and line for whatever goes wrong in it.
    """
    before = list(app.router.routes)
    module = import_file(file)
    init_app = getattr(module, "init_app", None)
    lifespan = getattr(module, "lifespan", None)
    if not callable(init_app) and lifespan is None:
        raise SettingError("defines no init_app(app)", where=str(file), mend=f"define it; {_EXAMPLE}")
    extension = Extension(file=file, lifespan=_checked_lifespan(file, lifespan))
    if callable(init_app):
        if inspect.iscoroutinefunction(init_app):
            raise SettingError(
                "init_app is a coroutine function",
                where=f"{file}:{init_app.__code__.co_firstlineno}",
                mend="make it a plain def; what has to be awaited belongs into lifespan(app)",
            )
        with telling(file, "init_app"):
            init_app(app)
    _look_at_routes(extension, app, before)
    _look_at_middleware(extension, app)
    if app.router.dependencies:
        extension.dependencies = [_name(each.dependency) for each in app.router.dependencies]
        app.guard(lambda endpoint: _Depending(endpoint, app.router))
    return extension


@contextlib.contextmanager
def telling(file: Path, doing: str) -> Iterator[None]:
    """Turn whatever the operator's code raises into an error that names the line. Raises ``SettingError``."""
    try:
        yield
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as exc:
        if type(exc).__name__ == "CancelledError":
            raise
        raise failure(exc, file, doing) from exc


def failure(exc: BaseException, file: Path, doing: str) -> SettingError:
    """Return the error that tells of ``exc``, by the last line of the operator's code on its way."""
    if isinstance(exc, SyntaxError) and exc.filename:
        return SettingError(f"SyntaxError: {exc.msg}", where=f"{exc.filename}:{exc.lineno}", mend="mend that line")
    text = "".join(traceback.format_exception_only(exc)).strip()
    place = last_line(exc, file.parent)
    if isinstance(exc, ModuleNotFoundError):
        mend = f"install it beside Backline ({sys.executable} -m pip install ...): the file runs in the server, not in "
        mend += "the model's environment"
    else:
        mend = f"mend that line, or take {file.name} out of the directory; --show-stacktrace has the whole traceback"
    return SettingError(f"{text} ({doing})", where=place or str(file), mend=mend)


def last_line(exc: BaseException, folder: Path) -> str | None:
    """Return ``file:line`` of the innermost frame that lies in the folder."""
    place = None
    for frame, line in traceback.walk_tb(exc.__traceback__):
        if Path(frame.f_code.co_filename).is_relative_to(folder):
            place = f"{frame.f_code.co_filename}:{line}"
    return place


def import_file(file: Path) -> ModuleType:
    """Import the operator's file under its own name. Raises ``SettingError``."""
    # At the end: a module of the folder must not stand before one that the server itself is still to import.
    folder = str(file.parent)
    if folder not in sys.path:
        sys.path.append(folder)
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        with telling(file, "while it was imported"):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise
    return module


def _checked_lifespan(file: Path, lifespan: Any) -> Callable[[Any], contextlib.AbstractAsyncContextManager[Any]] | None:
    if lifespan is None:
        return None
    if inspect.isasyncgenfunction(lifespan):
        return contextlib.asynccontextmanager(lifespan)
    if not callable(lifespan):
        raise SettingError(
            f"lifespan is {type(lifespan).__name__}",
            where=str(file),
            mend="define async def lifespan(app) with a yield",
        )
    checked: Callable[[Any], contextlib.AbstractAsyncContextManager[Any]] = lifespan
    return checked


def _look_at_routes(extension: Extension, app: Application, before: list[Any]) -> None:
    known = {id(route) for route in before}
    added = [route for route in app.router.routes if id(route) not in known]
    for context in flattened(added):
        path = getattr(context, "path", None) or "/"
        methods = ",".join(sorted(getattr(context, "methods", None) or ())) or "any method"
        endpoint = getattr(context, "endpoint", None)
        where = _where(endpoint, extension.file)
        if app.answers(path):
            raise SettingError(
                f"adds a route {path}, which Backline answers itself, so that it would never be reached",
                where=where or str(extension.file),
                mend="give the route another path, or change the answer in a middleware",
            )
        if endpoint is not None:
            extension.templates.setdefault(id(endpoint), path)
        extension.routes.append(f"{methods} {path}{f' ({Path(where).name})' if where else ''}")
    if added:
        document = get_openapi(title="", version="", routes=added)
        extension.openapi = {"paths": document["paths"], "components": document.get("components", {})}


def _look_at_middleware(extension: Extension, app: Application) -> None:
    for middleware in app.user_middleware:
        function: Any = middleware_arguments(middleware).get("dispatch")
        what = function if function is not None else middleware.cls
        where = _where(what, extension.file)
        name = f"{_name(what)}{f' ({Path(where).name})' if where else ''}"
        extension.middleware.append(name)
        cls: Any = middleware.cls  # a class or, as its type has it, any factory
        if inspect.isclass(cls) and issubclass(cls, BaseHTTPMiddleware):
            extension.warnings.append(
                f"{where or extension.file}: the middleware {_name(what)} is a BaseHTTPMiddleware (@app.middleware is "
                "one too): behind it a client that leaves is not noticed, so its work goes on, and answers are copied "
                "once more; write a class with __call__(scope, receive, send) instead"
            )


def _where(what: Any, file: Path) -> str | None:
    """Return where a function or class of the operator's folder is defined."""
    what = inspect.unwrap(what) if callable(what) else what
    if inspect.isclass(what):
        with contextlib.suppress(OSError, TypeError):
            path = inspect.getsourcefile(what)
            if path is not None and Path(path).is_relative_to(file.parent):
                return f"{path}:{inspect.getsourcelines(what)[1]}"
        return None
    code = getattr(what, "__code__", None)
    if code is None or not Path(code.co_filename).is_relative_to(file.parent):
        return None
    return f"{code.co_filename}:{code.co_firstlineno}"


def _name(what: Any) -> str:
    return getattr(what, "__qualname__", None) or type(what).__qualname__


class _PassOn(Response):
    """An answer that lets another application give it; nothing of the request has been read before."""

    def __init__(self, endpoint: ASGIApp) -> None:
        super().__init__()
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._endpoint(scope, receive, send)


class _Depending:
    """An endpoint behind dependencies of FastAPI, which are asked before each request; they may refuse it."""

    def __init__(self, endpoint: ASGIApp, router: APIRouter) -> None:
        async def pass_on(request: Request) -> Response:
            return _PassOn(endpoint)

        async def pass_socket_on(socket: WebSocket) -> None:
            await endpoint(socket.scope, socket.receive, socket.send)

        dependencies = router.dependencies
        self._http = APIRoute("/", pass_on, dependencies=dependencies, methods=_METHODS, response_model=None)
        self._socket = websocket_route("/", pass_socket_on, dependencies)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask the dependencies, then the endpoint (ASGI)."""
        await (self._socket if scope["type"] == "websocket" else self._http).app(scope, receive, send)


def merge_openapi(document: dict[str, Any], extension: Extension, prefix: str) -> None:
    """Put the operator's routes into our OpenAPI document, beside ours."""
    for path, item in extension.openapi.get("paths", {}).items():
        if prefix and path.startswith(prefix + "/"):
            document["paths"].setdefault(path.removeprefix(prefix), item)
        else:
            document["paths"].setdefault(path, {**item, "servers": [{"url": "/"}]} if prefix else item)
    for kind, members in extension.openapi.get("components", {}).items():
        ours = document["components"].setdefault(kind, {})
        for name, member in members.items():
            ours.setdefault(name, member)


def place_in(exc: BaseException, folder: Path | None) -> str | None:
    """Return ``file.py line 14`` for the innermost line of the operator's code that an exception went through."""
    place = None if folder is None else last_line(exc, folder)
    if place is None:
        return None
    path, _, line = place.rpartition(":")
    return f"{Path(path).name} line {line}"
