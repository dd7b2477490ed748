"""Direct access to an LLM backend; without one configured, the documented refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from backline.api.endpoint import Endpoint
from backline.errors import BadRequest

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


class DirectAccess(Endpoint):
    """``/directAccess/{path}`` and ``/nim/{path}``."""

    methods = ("GET", "POST", "PUT", "PATCH", "DELETE")

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Refuse: this server has no backend."""
        raise BadRequest("no LLM backend is configured, so there is nothing to access directly")
