"""The FastAPI application: which endpoint answers which route, and the lifetime of what is behind them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Mount, Route

from backline import __version__
from backline.api.added_routes import CountedRoutes, added_route
from backline.api.application import Application
from backline.api.chat_routes import ChatEndpoint
from backline.api.endpoint import OTHER_ROUTE, Endpoint, MethodNotAllowed, NotFound
from backline.api.error_table import render_error
from backline.api.extension import Extension, extend, merge_openapi, place_in
from backline.api.extension_life import events_as_context, extension_running
from backline.api.fair_share import FairShare
from backline.api.framework import cause, never_redirect_slashes
from backline.api.generate_routes import PredictEndpoint
from backline.api.metrics_page import MetricsPage
from backline.api.model_routes import ModelEndpoint
from backline.api.observed import note_error
from backline.api.openai_routes import openai_routes
from backline.api.openapi import build_openapi
from backline.api.probes import Alive, Capabilities, Info, ReadyProbe, Stats
from backline.api.proxy_routes import DirectAccess
from backline.api.shadowed import mirrored
from backline.api.shutdown import Shutdown
from backline.api.state import ApiState
from backline.config.api_key import read_api_key
from backline.errors import BacklineError
from backline.observe.access_log import log_error
from backline.parity.shadow import Shadow
from backline.proxy.generate import TextGenerator
from backline.proxy.service import running_backend
from backline.runtime.backend_process import BackendPlan, BackendState, running_backend_process
from backline.runtime.reload import Reloader
from backline.runtime.service import running
from backline.runtime.supervisor import ModelState
from backline.runtime.watch import watch_folder

if TYPE_CHECKING:
    from starlette.requests import Request

    from backline.config.model_folder import ModelFolder
    from backline.config.settings import Settings
    from backline.runtime.backend_process import BackendProcess
    from backline.runtime.launch import Launched

logger = logging.getLogger("backline.api")

_PROBES = frozenset(["/livez", "/readyz", "/ping", "/health"])

OnOutcome = Callable[[ApiState, ModelState], None]
OnBackendOutcome = Callable[[ApiState, BackendState], None]


def create_app(
    settings: Settings,
    folder: ModelFolder,
    *,
    on_outcome: OnOutcome,
    on_backend_outcome: OnBackendOutcome,
    on_shutdown: Callable[[], None],
    launched: Launched | None = None,
    reread: Callable[[], ModelFolder] | None = None,
) -> Application:
    """Return the application that serves this model folder.

    ``on_outcome`` is called once, when the first load has succeeded or failed, and ``on_backend_outcome`` the same for
    a backend that we start; ``on_shutdown`` by ``/shutdown``.
    ``launched``: see ``runtime.service.running``; ``reread``: see ``runtime.reload.Reloader``.
    """
    state = ApiState(settings, folder)
    prefix = settings.server.url_prefix
    if settings.shadow.target is not None:
        state.shadow = Shadow(settings.shadow, name=str(settings.model.code_dir))

    @contextlib.asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        async with contextlib.AsyncExitStack() as stack:
            if settings.backend.url is not None:
                await _open_backend(stack, state, on_backend_outcome)
            if not settings.backend.sidecar:
                service = running(
                    settings, folder.spec(), problem=folder.problem, launched=launched, observer=state.observer
                )
                state.service = await stack.enter_async_context(service)
                group = await stack.enter_async_context(asyncio.TaskGroup())
                stack.callback(group.create_task(_report_outcome(state, on_outcome)).cancel)
                if reread is not None:
                    _open_reloader(stack, group, state, reread)
            if state.shadow is not None:
                await stack.enter_async_context(state.shadow.running())
            if state.extension is not None:
                try:
                    await stack.enter_async_context(extension_running(app, state, added_lifespans))
                except Exception as exc:
                    app.start_failure = exc
                    raise
            try:
                yield
            finally:
                state.leaving = state.draining = True

    models = ModelEndpoint(state, "models", raw=True, family="openai", method="GET")
    share = FairShare(state).of if settings.limits.per_client else _as_it_is
    openai = openai_routes(state, prefix, chat=ChatEndpoint(state), models=models, share=share)
    routes = _routes(state, prefix, openai.exact, on_shutdown, share)
    direct_access = {path: DirectAccess(state, path) for path in (f"{prefix}/directAccess", f"{prefix}/nim")}
    subtrees = {**direct_access, **openai.subtrees}
    app = Application(
        title="Backline",
        version=__version__,
        routes=[*routes, *(Mount(path, endpoint) for path, endpoint in subtrees.items())],
        subtrees=subtrees,
        endpoints={route.path: route.app for route in reversed(routes)},
        openapi_url=f"{prefix}/openapi.json",
        docs_url=f"{prefix}/docs",
        redoc_url=None,
        exception_handlers={HTTPException: _make_http_exception_handler(state), Exception: _make_fault_handler(state)},
    )
    never_redirect_slashes(app)
    app.state.backline = state
    state.extension = _extended(app, state)
    added_lifespans = [app.router.lifespan_context, events_as_context(app)]
    # Set last: what the extension file adds runs inside ours, with a deadline.
    app.router.lifespan_context = lifespan

    def openapi() -> dict[str, Any]:
        ready = None if state.service is None else state.service.supervisor.model
        info = None if ready is None else {**ready.description, "warm_up": ready.warm_up}
        document = build_openapi(info, prefix=prefix, version=__version__)
        if state.extension is not None:
            merge_openapi(document, state.extension, prefix)
        return document

    # FastAPI offers replacing this method as the way to bring one's own document.
    app.openapi = openapi  # type: ignore[method-assign]
    return app


def _extended(app: Application, state: ApiState) -> Extension | None:
    extension = extend(app, state.folder.server_code, state.settings.server)
    if extension is not None and extension.templates:
        app.add_innermost(CountedRoutes, observer=state.observer, templates=extension.templates, is_ours=app.answers)
    return extension


def _open_reloader(
    stack: contextlib.AsyncExitStack, group: asyncio.TaskGroup, state: ApiState, reread: Callable[[], ModelFolder]
) -> None:
    state.reloader = Reloader(state.model, state.folder, reread, functools.partial(setattr, state, "folder"))
    stack.callback(group.create_task(state.reloader.run()).cancel)
    if state.settings.server.reload:
        watch = watch_folder(state.settings.model.code_dir, state.reloader.ask)
        stack.callback(group.create_task(watch).cancel)


def probe_paths(prefix: str) -> frozenset[str]:
    """Return the paths of all probes: what a platform asks to know whether the server lives and can be used."""
    paths = {"/", "/livez", "/readyz", "/ping", f"{prefix}", f"{prefix}/"}
    for probe in _PROBES:
        paths |= {f"{prefix}{probe}", f"{prefix}{probe}/"}
    return frozenset(paths)


async def _open_backend(stack: contextlib.AsyncExitStack, state: ApiState, on_outcome: OnBackendOutcome) -> None:
    """Open the way to the backend until ``stack`` is left, and start its process where it is ours."""
    settings = state.settings
    opening = running_backend(settings.backend, api_key=read_api_key(settings.backend))
    backend = state.backend = await stack.enter_async_context(opening)
    state.generator = TextGenerator(backend, settings.generation)
    if settings.backend.command is None or state.folder.problem is not None:
        return
    plan = BackendPlan.make(settings.backend, host=backend.address.host, port=backend.address.port)
    rate = settings.log.worker_lines_per_second
    group = await stack.enter_async_context(asyncio.TaskGroup())
    running_process = running_backend_process(plan, settings.backend, backend, lines_per_second=rate)
    process = state.backend_process = await stack.enter_async_context(running_process)
    stack.callback(group.create_task(_report_backend_outcome(state, process, on_outcome)).cancel)


async def _report_backend_outcome(state: ApiState, process: BackendProcess, on_outcome: OnBackendOutcome) -> None:
    on_outcome(state, await asyncio.shield(process.first_outcome))


def _as_it_is(endpoint: Endpoint) -> Endpoint:
    return endpoint


async def _report_outcome(state: ApiState, on_outcome: OnOutcome) -> None:
    on_outcome(state, await asyncio.shield(state.model.supervisor.first_outcome))


def _routes(
    state: ApiState,
    prefix: str,
    openai: Mapping[str, Endpoint],
    on_shutdown: Callable[[], None],
    share: Callable[[Endpoint], Endpoint],
) -> list[Route]:
    predict = share(PredictEndpoint(state, "predict"))
    unstructured = share(ModelEndpoint(state, "unstructured", raw=True, with_request=True))
    metrics = MetricsPage(state)
    # In the order of how often they are asked for: the router tries one after another.
    table: dict[str, Endpoint] = {
        "/predict": predict,
        "/predictions": predict,
        "/invocations": predict,
        "/predictUnstructured": unstructured,
        "/predictionsUnstructured": unstructured,
        "/transform": share(ModelEndpoint(state, "transform")),
        "/ping": ReadyProbe(state),
        "/health": ReadyProbe(state),
        "/readyz": ReadyProbe(state),
        "/livez": Alive(state),
        "/stats": Stats(state),
        "/info": Info(state),
        "/capabilities": Capabilities(state),
        "/shutdown": Shutdown(state, on_shutdown),
        "/metrics": metrics,
        "/v1/metrics": metrics,
    }
    assert table.keys() >= _PROBES
    asked = {f"{prefix}{path}": endpoint for path, endpoint in table.items()}
    routes: list[Route] = []
    for path, endpoint in (*asked.items(), *openai.items()):
        app = mirrored(endpoint, path.removeprefix(prefix), state.shadow)
        # Both spellings, and never a redirect: clients lose the body of a redirected POST.
        routes.append(Route(f"{path}/", app, name=path))
        routes.append(Route(path, app, name=path))
    alive = Alive(state)
    routes.append(Route(f"{prefix}/", alive, name="/"))
    if prefix:
        routes.append(Route(prefix, alive, name="/"))
        # Probes of the platform may not know the prefix.
        routes += [Route(path, table[path], name=path) for path in ("/livez", "/readyz", "/ping")]
        routes.append(Route("/", alive, name="/"))
    state.routes.update({route.path: route.name.removeprefix(prefix) or "/" for route in routes})
    return routes


def _make_http_exception_handler(state: ApiState) -> Callable[[Request, Any], Coroutine[Any, Any, Response]]:
    """Return a handler that gives Starlette's own 404 and 405 the documented error shape."""

    async def handle(request: Request, exc: Exception) -> Response:
        assert isinstance(exc, HTTPException)
        begun = time.perf_counter()
        error: BacklineError
        added = None if state.extension is None else added_route(request.scope, state.extension.templates)
        if exc.status_code == 404 and added is not None:
            error = NotFound(str(exc.detail))
        elif exc.status_code == 404:
            error = NotFound(f"no route {request.url.path}; {request.scope['root_path']}/docs lists what there is")
        elif exc.status_code == 405:
            error = MethodNotAllowed(f"{request.method} is not possible on {request.url.path}")
        else:
            error = BacklineError(str(exc.detail))
        given = request.headers.get("x-request-id")
        request_id = state.request_id(given.encode("latin-1") if given else None)
        response = render_error(error, family="native", request_id=request_id, show_stacktrace=False)
        status = exc.status_code if type(error) is BacklineError else response.status
        note_error(request.scope, error)
        path, access = request.url.path, state.settings.log.access
        log_error(error, method=request.method, path=path, status=status, request_id=request_id, access=access)
        state.observer.error_answered(added or OTHER_ROUTE, error, status, request_id)
        if added is None:
            state.observer.request_begun()
            state.observer.request_ended(OTHER_ROUTE, request.method, status, time.perf_counter() - begun)
        headers = {name.decode(): value.decode() for name, value in response.headers}
        return Response(response.body, status, {**headers, **(exc.headers or {}), "x-request-id": request_id})

    return handle


def _make_fault_handler(state: ApiState) -> Callable[[Request, Exception], Coroutine[Any, Any, Response]]:
    """Return a handler for what the operator's own routes and middleware raise: in the documented shape, by line."""

    async def handle(request: Request, exc: Exception) -> Response:
        raised = cause(exc)
        place = place_in(raised, state.folder.server_code)
        given = request.headers.get("x-request-id")
        request_id = state.request_id(given.encode("latin-1") if given else None)
        logger.error(
            "%s: %s%s", type(raised).__name__, raised, f" ({place})" if place else "", extra={"request_id": request_id}
        )
        error = BacklineError(
            f"{type(raised).__name__}{f' in {place}' if place else ' in the server'}; its log has more"
        )
        response = render_error(error, family="native", request_id=request_id, show_stacktrace=False)
        headers = {name.decode(): value.decode() for name, value in response.headers}
        return Response(response.body, response.status, {**headers, "x-request-id": request_id})

    return handle
