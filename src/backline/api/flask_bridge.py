"""``custom_flask.py``: Flask code written for a Flask prediction server, run beside our own routes.

Its ``init_app(app)`` gets a Flask application. Routes that it adds are served through a WSGI bridge; what it wants to
happen before each request (``before_request``, where authentication usually is) is asked before ours too, in a thread,
without the body. What cannot be carried over is refused at the start rather than left out: it may be a lock.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio.to_thread
from starlette.responses import Response
from starlette.routing import BaseRoute, Match

from backline.api.extension import Extension, import_file, telling
from backline.config.problems import SettingError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from backline.api.application import Application

_THREADS = 10
_INSTEAD = (
    "write custom_fastapi.py instead (docs/how-to/move-from-flask.md shows how), or start without it by "
    "--no-custom-flask"
)


def load_flask_extension(file: Path, app: Application) -> Extension:
    """Import ``custom_flask.py``, let it extend a Flask application, and put that beside and before our routes.

    Raises ``SettingError`` with file and line where that does not work.
    """
    missing = [name for name in ("flask", "a2wsgi") if importlib.util.find_spec(name) is None]
    if missing:
        raise SettingError(
            f"it needs {' and '.join(missing)} in the server's environment, and may be what decides who is let in",
            where=str(file),
            mend=f"{_INSTEAD}, or run {sys.executable} -m pip install flask 'backline[flask-bridge]'",
        )
    import a2wsgi
    import flask

    module = import_file(file)
    init_app = getattr(module, "init_app", None)
    if not callable(init_app):
        raise SettingError("defines no init_app(app)", where=str(file), mend=_INSTEAD)
    flask_app = flask.Flask(file.stem, root_path=str(file.parent), static_folder=None)
    with telling(file, "init_app"):
        init_app(flask_app)
    if getattr(flask_app.wsgi_app, "__func__", None) is not flask.Flask.wsgi_app:
        raise SettingError(
            "wraps app.wsgi_app, and a WSGI middleware cannot stand before the prediction routes",
            where=str(file),
            mend=f"use app.before_request; or {_INSTEAD}",
        )
    extension = Extension(file=file)
    for rule in flask_app.url_map.iter_rules():
        if not rule.arguments and app.answers(rule.rule):
            raise SettingError(
                f"adds a route {rule.rule}, which Backline answers itself, so that it would never be reached",
                where=str(file),
                mend="give the route another path",
            )
        extension.routes.append(f"{','.join(sorted(rule.methods or ()))} {rule.rule}")
    hooks = flask_app.before_request_funcs.get(None, [])
    extension.dependencies = [f"before_request {hook.__qualname__}" for hook in hooks]
    if flask_app.after_request_funcs.get(None):
        extension.warnings.append(
            f"{file.name}: after_request sees the answers of Flask's routes and of refused requests, not predictions"
        )
    extension.warnings.append(
        f"{file.name} runs through a bridge to Flask, which costs each request a thread; {_INSTEAD}"
    )
    if hooks:
        limiter = anyio.CapacityLimiter(_THREADS)
        app.guard(lambda endpoint: _Guarded(endpoint, flask_app, limiter))
    app.router.routes.append(_FlaskRoutes(flask_app, a2wsgi.WSGIMiddleware(cast("Any", flask_app), workers=_THREADS)))
    return extension


class _FlaskRoutes(BaseRoute):
    """Whatever Flask has a rule for; the rest is ours to refuse."""

    def __init__(self, flask_app: Any, bridge: Any) -> None:
        self._flask_app = flask_app
        self._bridge = bridge

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See Starlette."""
        from werkzeug.exceptions import MethodNotAllowed, NotFound
        from werkzeug.routing import RequestRedirect

        if scope["type"] != "http":
            return Match.NONE, {}
        adapter = self._flask_app.url_map.bind("localhost")
        try:
            adapter.match(scope["path"], scope["method"])
        except NotFound:
            return Match.NONE, {}
        except (MethodNotAllowed, RequestRedirect):
            return Match.FULL, {}  # Flask says it in its own way
        return Match.FULL, {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Starlette."""
        await self._bridge(scope, receive, send)


class _Guarded:
    """An endpoint of ours behind Flask's ``before_request``."""

    def __init__(self, endpoint: ASGIApp, flask_app: Any, limiter: anyio.CapacityLimiter) -> None:
        self._endpoint = endpoint
        self._flask_app = flask_app
        self._limiter = limiter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask Flask, then the endpoint (ASGI)."""
        asked = scope if scope["type"] == "http" else {**scope, "method": "GET", "scheme": "http"}
        refusal = await anyio.to_thread.run_sync(self._ask, _environ(asked), limiter=self._limiter)
        if refusal is None:
            await self._endpoint(scope, receive, send)
        elif scope["type"] == "http":
            await refusal(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": 1008})

    def _ask(self, environ: dict[str, Any]) -> Response | None:
        app = self._flask_app
        with app.request_context(environ):
            try:
                given = app.preprocess_request()
                if given is None:
                    return None
                answer = app.finalize_request(given)
            except Exception as exc:  # noqa: BLE001  (Flask knows what to answer to each)
                try:
                    answer = app.finalize_request(app.handle_user_exception(exc))
                except Exception as again:  # noqa: BLE001  (which it raises again where nobody handles it)
                    answer = app.handle_exception(again)
            headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
            response = Response(answer.get_data(), answer.status_code)
            response.raw_headers = headers
            return response


def _environ(scope: Scope) -> dict[str, Any]:
    """Return what WSGI knows of the request, with an empty body: the prediction's own is left where it is."""
    import io

    from a2wsgi.wsgi import build_environ

    left_out = (b"content-length", b"transfer-encoding")
    headers = [header for header in scope["headers"] if header[0] not in left_out]
    environ: dict[str, Any] = dict(build_environ({**scope, "headers": headers}, io.BytesIO()))  # type: ignore[arg-type, typeddict-item]
    return {**environ, "CONTENT_LENGTH": "0"}
