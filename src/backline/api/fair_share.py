"""Holds each client to its share of the server."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING

from backline.api.endpoint import Endpoint
from backline.errors import ClientOverShare

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from backline.api.state import ApiState


class FairShare:
    """Counts what is under way for each client, told by its address; all endpoints behind it count together."""

    def __init__(self, state: ApiState) -> None:
        self._state = state
        self._under_way: collections.Counter[str] = collections.Counter()

    def of(self, endpoint: Endpoint) -> Endpoint:
        """Return the endpoint with each client held to ``limits.per_client`` requests at a time."""
        return _Shared(self._state, endpoint, self._under_way)


class _Shared(Endpoint):
    def __init__(self, state: ApiState, endpoint: Endpoint, under_way: collections.Counter[str]) -> None:
        super().__init__(state)
        self._endpoint = endpoint
        self._under_way = under_way
        self._most = state.settings.limits.per_client
        self.family = endpoint.family
        self.methods, self.any_method = endpoint.methods, endpoint.any_method

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """Pass on what is within the client's share. Raises ``ClientOverShare``."""
        client = scope.get("client")
        address = client[0] if client else ""
        if self._under_way[address] >= self._most:
            raise ClientOverShare(
                f"{self._most} requests of this client are under way already (--max-per-client); wait for one of them",
                retry_after=1,
            )
        self._under_way[address] += 1
        try:
            return await self._endpoint.handle(scope, receive, send, request_id)
        finally:
            self._under_way[address] -= 1
            if not self._under_way[address]:
                del self._under_way[address]
