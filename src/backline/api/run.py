"""Runs the server: socket, uvicorn, signals, exit code."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import functools
import gc
import logging
import math
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn
from uvicorn.server import ServerState

from backline.api.admin import admin_listening
from backline.api.app import create_app, probe_paths
from backline.api.banner import failure_text, listening_text, ready_text
from backline.api.connections import Guard, GuardedHttp, allowed_connections
from backline.api.extension_life import StartStopped
from backline.api.listen import BACKLOG
from backline.api.observed import observe
from backline.api.probes import is_ready
from backline.api.security import Security
from backline.api.service_manager import ServiceManager, notifying
from backline.errors import BackendFailed, ConfigError, ModelLoadFailed, ServerDraining
from backline.observe.logs import announce, logging_to_stderr
from backline.observe.tracing import open_tracing
from backline.runtime.backend_process import BackendState
from backline.runtime.supervisor import ModelState

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from backline.api.extension import Extension
    from backline.api.state import ApiState
    from backline.config.model_folder import ModelFolder
    from backline.config.settings import Settings
    from backline.runtime.launch import Launched

logger = logging.getLogger("backline.api")


class Outcome(enum.Enum):
    """How the server's life ended."""

    STOPPED = "stopped"  # by SIGTERM or /shutdown
    INTERRUPTED = "interrupted"  # by SIGINT
    FAILED = "failed"  # the model did not load, and no error server was asked for


_BODY_GRACE = 5.0  # seconds from the start of the drain for bodies that are on their way

# Longer than the idle time-out of usual load balancers (60 s): the one who closes first must be the balancer, or it
# sends a request into a closing connection.
_KEEP_ALIVE_SECONDS = 75


def serve(
    settings: Settings,
    folder: ModelFolder,
    listener: socket.socket,
    *,
    launched: Launched | None = None,
    reread: Callable[[], ModelFolder] | None = None,
) -> Outcome:
    """Serve the model on ``listener`` until a signal or ``/shutdown``.

    ``launched`` is a worker for this folder that has been started already; it is taken over. The caller closes the
    listener, and ends the worker where this could not take it. ``reread`` reads settings and folder again: a reload.
    """
    key_variable = settings.backend.api_key_variable
    secrets = [] if key_variable is None else [key_variable]
    with logging_to_stderr(settings.log, model=_name_of(settings), for_programs=True, secret_variables=secrets):
        for warning in folder.warnings:
            logger.warning("%s", warning)
        with notifying() as manager, asyncio.Runner(loop_factory=loop_factory(settings.server.loop)) as runner:
            return runner.run(_serve(settings, folder, listener, launched, reread, manager))


async def _serve(
    settings: Settings,
    folder: ModelFolder,
    listener: socket.socket,
    launched: Launched | None,
    reread: Callable[[], ModelFolder] | None,
    manager: ServiceManager,
) -> Outcome:
    prefix = settings.server.url_prefix
    probes = probe_paths(prefix)
    security = Security(settings, open_paths=probes)
    host, port = listener.getsockname()[:2]
    url = f"{security.scheme}://{f'[{host}]' if ':' in host else host}:{port}{settings.server.url_prefix}"
    failed = False

    def give_up(failure: ModelLoadFailed | ConfigError | BackendFailed, *, stays_up: bool) -> None:
        nonlocal failed
        announce(failure_text(failure, stays_up=stays_up))
        if stays_up:
            manager.ready("the model or its backend does not load; every answer says why")
        else:
            failed = True
            server.should_exit = True

    def report(state: ApiState, outcome: ModelState) -> None:
        supervisor = state.model.supervisor
        if outcome is ModelState.READY:
            announce(ready_text(settings, supervisor, url))
            return
        assert supervisor.failure is not None
        give_up(supervisor.failure, stays_up=settings.server.with_error_server or settings.server.reload)

    def report_backend(state: ApiState, outcome: BackendState) -> None:
        process = state.backend_process
        assert process is not None
        if outcome is BackendState.READY:
            announce(f"The backend is ready after {process.load_seconds:.1f} s  (pid {process.pid})")
            return
        assert process.failure is not None
        give_up(process.failure, stays_up=settings.server.with_error_server)

    def shut_down() -> None:
        server.drain()

    app = create_app(
        settings,
        folder,
        on_outcome=report,
        on_backend_outcome=report_backend,
        on_shutdown=shut_down,
        launched=launched,
        reread=reread,
    )
    tracing = open_tracing()
    guard = Guard(
        limits=settings.limits,
        max_connections=allowed_connections(settings.limits.max_connections),
        probes=probes,
        unhurried=(f"{prefix}/directAccess/", f"{prefix}/nim/"),
    )
    config = _uvicorn_config(
        settings, observe(app, settings, tracing, security.protect(app, app.state.backline.observer)), guard, security
    )
    state: ApiState = app.state.backline
    if state.extension is not None:
        _tell_extension(state.extension)
    server = DrainingServer(config, state, guard, security, manager)
    _calm_garbage_collector()
    # Signals are the server's before anybody is told of it: uvicorn takes them only when it runs, and a handler that
    # raises would be taken for uvicorn's SystemExit, which is its way of saying that the lifespan did not start.
    with server.capture_signals(), contextlib.suppress(SystemExit), _hangup_reloads(server, state):
        announce(listening_text(settings, url))
        try:
            async with admin_listening(state):
                await server.serve(sockets=[listener])
        finally:
            if tracing is not None:
                tracing.close()
    if app.start_failure is not None and not isinstance(app.start_failure, StartStopped):
        raise app.start_failure
    if failed or not (server.started or state.leaving):
        return Outcome.FAILED
    return Outcome.INTERRUPTED if server.interrupted else Outcome.STOPPED


def _uvicorn_config(settings: Settings, entry: ASGIApp, guard: Guard, security: Security) -> uvicorn.Config:
    config = uvicorn.Config(
        entry,
        # uvicorn calls whatever makes a protocol, though its types ask for a class.
        http=functools.partial(GuardedHttp, guard=guard),  # type: ignore[arg-type]
        h11_max_incomplete_event_size=settings.limits.max_head,
        lifespan="on",
        # Only a backend has WebSockets; without one who asks for one is answered in HTTP, and nothing is imported.
        ws="none" if settings.backend.url is None else "auto",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=security.headers,
        proxy_headers=False,  # nothing here asks where a client is, and a backend is told by whom we were asked
        backlog=BACKLOG,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(1, int(settings.server.drain_timeout)),
    )
    config.load()
    config.ssl = security.context  # ours, as uvicorn's is made once and for all
    return config


def _tell_extension(extension: Extension) -> None:
    logger.info("%s: %s", extension.file.name, extension.summary())
    for warning in extension.warnings:
        logger.warning("%s", warning)


def _name_of(settings: Settings) -> str | None:
    return None if settings.backend.sidecar else settings.model.code_dir.name


@contextlib.contextmanager
def _hangup_reloads(server: DrainingServer, state: ApiState) -> Iterator[None]:
    """Load the model anew on SIGHUP, as servers do; but stop where it says that the terminal was closed."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
        yield
        return
    loop = asyncio.get_running_loop()
    on_terminal = sys.stderr.isatty()

    def hung_up() -> None:
        if on_terminal and not sys.stderr.isatty():
            server.drain()
        elif state.reloader is None:
            logger.warning("SIGHUP: there is no model here that could be loaded anew")
        elif not state.leaving:
            state.reloader.ask("SIGHUP")

    loop.add_signal_handler(signal.SIGHUP, hung_up)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


class _ConnectionState(ServerState):
    """What uvicorn's connections share; ``leaving``: each answer is the last on its connection."""

    leaving = False


class DrainingServer(uvicorn.Server):
    """uvicorn's server, which drains before it closes anything, and ends with our exit code.

    ::

        serving ──told to stop──▶ leaving ──after --drain-delay──▶ draining ──idle, or --drain-timeout──▶ uvicorn closes
                                  probes say 503,                 new requests are told 503,
                                  requests are answered           accepted ones are answered

    uvicorn closes the listener and all idle connections at once when it is told to stop, so a client that sends its
    next request on one gets no answer at all. Here they stay open until the accepted calls are answered, and whoever
    comes meanwhile is told 503 and sent away. A second signal closes at once.
    """

    interrupted = False

    def __init__(
        self,
        config: uvicorn.Config,
        state: ApiState,
        guard: Guard,
        security: Security | None = None,
        manager: ServiceManager | None = None,
    ) -> None:
        super().__init__(config)
        self._manager = manager or ServiceManager()
        self._state = state
        self._guard = guard
        self._security = security
        self._drain_at = 0.0
        self.server_state = self._connections = _ConnectionState()

    def drain(self) -> None:
        """Be ready no more; after ``--drain-delay`` take no new work, and stop when what was accepted is done."""
        state = self._state
        if state.leaving:
            return
        state.leaving = True
        self._manager.stopping()
        # Who has never been ready has nobody in front who would have to notice.
        known = state.service is None or state.service.supervisor.was_ready
        delay = state.settings.server.drain_delay if known else 0
        self._drain_at = time.monotonic() + delay
        state.draining = not delay

    async def main_loop(self) -> None:
        """See uvicorn, where this lasts from start-up to shutdown."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._guard.watch(self._connections.connections))
            await super().main_loop()
            watching.cancel()

    async def on_tick(self, counter: int) -> bool:
        """See uvicorn, which calls this ten times a second."""
        if counter % 10 == 0 and self._security is not None:
            self._security.refresh()
        self._manager.beat()
        if not self._manager.told_ready and is_ready(self._state):
            self._manager.ready("ready: requests are answered")
        if self._state.leaving and not self.should_exit:
            self._let_go()
            drained_for = time.monotonic() - self._drain_at
            if drained_for >= 0:
                self._finish(drained_for)
        return await super().on_tick(counter)

    def _let_go(self) -> None:
        """Make the present answer the last of its connection, so that clients come back through the balancer."""
        if self._connections.leaving:
            return
        self._connections.leaving = True
        for connection in list(self._connections.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                cycle.keep_alive = False

    def _finish(self, drained_for: float) -> None:
        state = self._state
        state.draining = True
        left = state.settings.server.drain_timeout - drained_for
        if drained_for >= _BODY_GRACE:
            state.lookout.give_up_bodies()
            if state.backend is not None:
                state.backend.give_up_uploads(ServerDraining("the server stops, and the body is not here"))
        if left <= 0 or state.idle:
            self.config.timeout_graceful_shutdown = max(0, math.ceil(left))
            self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop gracefully on SIGTERM and SIGINT, at once on the second one."""
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal."""
        del frame
        if self._state.leaving or self.should_exit:
            self.force_exit = True
            self.should_exit = True
            if self._state.backend_process is not None:
                self._state.backend_process.kill()
        self.drain()
        if sig == signal.SIGINT:
            self.interrupted = True


def _calm_garbage_collector() -> None:
    """Keep the collector from walking what is there for good, and from running for every few requests.

    A request makes some dozens of objects that can be in cycles and leaves none, but with a hundred of them open the
    default threshold of 700 is passed again and again: a tenth of the server's time went there.
    """
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


def loop_factory(wanted: str = "auto") -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's factory where it is wanted and installed; ``None`` is asyncio's own loop."""
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
