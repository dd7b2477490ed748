"""The admin address: what operators ask of a running server, apart from where its clients come in.

Off unless ``--admin-address`` names one: a Unix socket, which only the server's own user can open, or host and port,
where every request has to show a key of ``--admin-keys-file``.

::

    POST /reload   load the model folder anew; answers when it is done, 513 where the old model goes on
    GET  /status   which model serves, with which workers
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import uvicorn

from backline.api.access import Access, KeyFile
from backline.api.endpoint import Endpoint, NotFound, OperationUnavailable, respond_json
from backline.api.listen import listen_admin
from backline.errors import ConfigError
from backline.observe.observer import SILENT

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from backline.api.state import ApiState

_STOP_TIMEOUT = 5  # seconds for requests that are under way when the server ends


class _AdminEndpoint(Endpoint):
    observed = False

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See ``Endpoint``."""
        return await respond_json(send, 200, await self.act(scope), request_id)

    async def act(self, scope: Scope) -> Any:
        """Do what is asked for and return the answer."""
        raise NotFound(f"no route {scope['path']} at the admin address; there are POST /reload and GET /status")


class _Missing(_AdminEndpoint):
    any_method = True


class _Status(_AdminEndpoint):
    async def act(self, scope: Scope) -> Any:
        state = self.state
        return {
            "leaving": state.leaving,
            "model_state": None if state.service is None else state.service.supervisor.state.value,
            "reload": None if state.reloader is None else state.reloader.describe(),
            "workers": [] if state.service is None else state.service.supervisor.workers(),
        }


class _Reload(_AdminEndpoint):
    methods = ("POST",)

    async def act(self, scope: Scope) -> Any:
        reloader = self.state.reloader
        if reloader is None:
            raise OperationUnavailable("this server has no model that could be loaded anew")
        await reloader.reload("asked for at the admin address")
        return reloader.describe()


class AdminApp:
    """What answers at the admin address (ASGI)."""

    def __init__(self, state: ApiState) -> None:
        self._endpoints = {"/reload": _Reload(state), "/status": _Status(state)}
        self._missing = _Missing(state)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._endpoints.get(scope["path"].rstrip("/"), self._missing)(scope, receive, send)


class _AdminServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the server itself."""
        yield


@contextlib.asynccontextmanager
async def admin_listening(state: ApiState) -> AsyncIterator[None]:
    """Answer at the admin address, if there is one, for the block. Raises ``ConfigError`` where it cannot be used."""
    settings = state.settings.server
    if settings.admin_address is None:
        yield
        return
    app = _guarded(state)
    with listen_admin(settings.admin_address) as listener:
        config = uvicorn.Config(
            app,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=64,
            timeout_graceful_shutdown=_STOP_TIMEOUT,
        )
        server = _AdminServer(config)
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            try:
                yield
            finally:
                server.should_exit = True


def _guarded(state: ApiState) -> ASGIApp:
    settings = state.settings.server
    app = AdminApp(state)
    if settings.admin_keys_file is not None:
        keys = KeyFile(settings.admin_keys_file, "--admin-keys-file")
        access = Access(app, keys, frozenset(), "", SILENT)

        async def with_fresh_keys(scope: Scope, receive: Receive, send: Send) -> None:
            keys.refresh()
            await access(scope, receive, send)

        return with_fresh_keys
    if settings.admin_address is not None and not settings.admin_address.startswith("unix:"):
        raise ConfigError(
            f"--admin-address {settings.admin_address}: everyone who reaches it could reload the model; name a file "
            "with keys (--admin-keys-file), or a Unix socket (unix:/run/backline/admin.sock)"
        )
    return app
