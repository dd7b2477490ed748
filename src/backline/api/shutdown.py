"""``/shutdown``: stops a development server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backline.api.endpoint import Endpoint, respond_json
from backline.errors import BacklineError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from backline.api.state import ApiState


class ShutdownForbidden(BacklineError):
    """``/shutdown`` is off, which is the default: a prediction client must not be able to stop the server."""

    code = "shutdown_forbidden"


class Shutdown(Endpoint):
    """Stops the server after this answer, where the operator has allowed it."""

    methods = ("POST",)

    def __init__(self, state: ApiState, on_shutdown: Callable[[], None]) -> None:
        super().__init__(state)
        self._on_shutdown = on_shutdown

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See the class."""
        if not self.state.settings.server.allow_shutdown:
            raise ShutdownForbidden("/shutdown is off; start the server with --allow-shutdown, or stop it by a signal")
        status = await respond_json(send, 200, {"message": "the server stops"}, request_id)
        self._on_shutdown()
        return status
