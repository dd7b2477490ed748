"""Copies requests and answers as they pass, for a recorder or a shadow; what passes is not touched.

The copy is bounded: of a body that is over the limit only that it was too large is kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Copy:
    """One request and its answer; ``receive`` and ``send`` stand between an endpoint and the server.

    ``seconds`` are from the request's head to the end of its answer. ``request`` and ``answer`` are the bodies, and
    ``None`` where they were not complete or too large.
    """

    __slots__ = (
        "_answer",
        "_is_answered",
        "_is_received",
        "_limit",
        "_receive",
        "_request",
        "_room",
        "_send",
        "_started",
        "headers",
        "scope",
        "seconds",
        "status",
        "too_large",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        self.scope = scope
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.seconds = 0.0
        self.too_large = False
        self._receive = receive
        self._send = send
        self._limit = limit
        self._room = limit
        self._request: list[bytes] = []
        self._answer: list[bytes] = []
        # A request without a body need not be received at all.
        self._is_received = not any(name in (b"content-length", b"transfer-encoding") for name, _ in scope["headers"])
        self._is_answered = False
        self._started = time.perf_counter()

    @property
    def request(self) -> bytes | None:
        """The request's body."""
        return b"".join(self._request) if self._is_received and not self.too_large else None

    @property
    def answer(self) -> bytes | None:
        """The answer's body."""
        return b"".join(self._answer) if self._is_answered and not self.too_large else None

    @property
    def size(self) -> int:
        """How many bytes of bodies are held."""
        return self._limit - self._room

    async def receive(self) -> Message:
        """Pass on what comes (ASGI)."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._keep(self._request, message.get("body", b""))
            if not message.get("more_body", False):
                self._is_received = True
        return message

    async def send(self, message: Message) -> None:
        """Pass on what is answered (ASGI)."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = list(message.get("headers", ()))
            await self._send(message)
            return
        await self._send(message)
        if message["type"] == "http.response.body":
            self._keep(self._answer, message.get("body", b""))
            if not message.get("more_body", False):
                self._is_answered = True
                self.seconds = time.perf_counter() - self._started

    def _keep(self, pieces: list[bytes], piece: bytes) -> None:
        self._room -= len(piece)
        if self._room < 0 or self.too_large:
            self.too_large = True
            self._request.clear()
            self._answer.clear()
        elif piece:
            pieces.append(bytes(piece))

    # ``one_write`` looks for these on whatever object ``send`` is a method of: an answer is still one write.

    @property
    def transport(self) -> Any:
        """The transport of the connection, where the server itself stands behind us."""
        return getattr(getattr(self._send, "__self__", None), "transport", None)

    @property
    def default_headers(self) -> Any:
        """The headers that uvicorn adds to an answer by itself."""
        return getattr(self._send, "__self__").default_headers  # noqa: B009 - of an object that may be anything

    @default_headers.setter
    def default_headers(self, headers: Any) -> None:
        getattr(self._send, "__self__").default_headers = headers  # noqa: B009


class Tee:
    """An endpoint whose requests are copied: ``wanted`` says for each request whether, ``take`` is given the copy.

    ``take`` is called when the answer has left; it must not wait.
    """

    def __init__(
        self, endpoint: ASGIApp, *, wanted: Callable[[Scope], bool], take: Callable[[Copy], None], limit: int
    ) -> None:
        self.endpoint = endpoint
        self._wanted = wanted
        self._take = take
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] != "http" or not self._wanted(scope):
            await self.endpoint(scope, receive, send)
            return
        copy = Copy(scope, receive, send, self._limit)
        try:
            await self.endpoint(scope, copy.receive, copy.send)
        finally:
            self._take(copy)
