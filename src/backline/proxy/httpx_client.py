"""The client on httpx, or on httpx2, as its successor is called: their transport alone, without what a client adds.

It reads the answer only after it has sent the body, so a backend that answers while it reads has to read to the end.
"""

from __future__ import annotations

import importlib
import ssl
from collections.abc import AsyncIterator, Callable
from typing import Any

from backline.errors import BackendBroken, BackendDown, BackendTooSlow
from backline.proxy.port import (
    IDEMPOTENT,
    KEEP_ALIVE_SECONDS,
    BackendAddress,
    BackendRequest,
    BackendResponse,
    Headers,
)


class HttpxClient:
    """See ``BackendClient``. ``library`` is ``httpx`` or ``httpx2``."""

    def __init__(self, address: BackendAddress, *, library: str, connect_timeout: float) -> None:
        self._httpx: Any = importlib.import_module(library)
        self._address = address
        self._url = self._httpx.URL(f"{address.scheme}://{address.authority.decode()}/")
        self._timeout = {"connect": connect_timeout, "read": None, "write": None, "pool": None}
        self._transport = self._httpx.AsyncHTTPTransport(
            # Loading the certificates costs up to a second, and a backend without TLS does not need them.
            verify=ssl.create_default_context() if address.scheme == "https" else False,
            trust_env=False,
            limits=self._httpx.Limits(
                max_connections=None, max_keepalive_connections=None, keepalive_expiry=KEEP_ALIVE_SECONDS
            ),
        )

    async def send(self, request: BackendRequest) -> BackendResponse:
        """See ``BackendClient``."""
        again = request.method in IDEMPOTENT and isinstance(request.body, bytes)
        while True:
            try:
                return _Response(await self._send(request), self._httpx, self._address.url)
            except self._httpx.ConnectTimeout as exc:
                raise BackendTooSlow(
                    f"the backend {self._address.url} did not accept a connection in time (--backend-connect-timeout)"
                ) from exc
            except self._httpx.ConnectError as exc:
                reason = _reason(exc)
                raise BackendDown(f"no connection to the backend {self._address.url}: {reason}") from exc
            except self._httpx.TransportError as exc:
                if again:
                    again = False
                    continue
                raise BackendBroken(
                    f"the backend {self._address.url} closed the connection before it answered, or its answer is no "
                    f"HTTP: {exc}"
                ) from exc

    async def _send(self, request: BackendRequest) -> Any:
        # h11 takes no blanks around a value; they are not part of it.
        headers, body = [(name, value.strip(b" \t")) for name, value in request.headers], request.body
        if isinstance(body, bytes):
            stream = self._httpx.ByteStream(body)
        else:
            stream = _stream_class(self._httpx)(body)
            if not any(name == b"content-length" for name, _ in headers):
                headers.append((b"transfer-encoding", b"chunked"))
        extensions = {"timeout": self._timeout}
        made = self._httpx.Request(request.method, self._url, headers=headers, stream=stream, extensions=extensions)
        # The library's own URL would write some characters in another way, and the extension ``target`` is not known to
        # httpcore before 1.0.6.
        made.url = _Url(self._url, request.target)
        return await self._transport.handle_async_request(made)

    async def aclose(self) -> None:
        """See ``BackendClient``."""
        await self._transport.aclose()


class _Response:
    """See ``BackendResponse``. The end is known only once there is nothing more to read."""

    __slots__ = ("_httpx", "_iterator", "_response", "_url", "at_end", "headers", "status")

    def __init__(self, response: Any, httpx: Any, url: str) -> None:
        self._response = response
        self._httpx = httpx
        self._url = url
        self._iterator = aiter(response.stream)
        self.at_end = False
        self.status: int = response.status_code
        self.headers: Headers = response.headers.raw

    async def read(self) -> bytes:
        try:
            async for piece in self._iterator:
                if piece:
                    return bytes(piece)
        except self._httpx.TransportError as exc:
            raise BackendBroken(
                f"the backend {self._url} closed the connection in the middle of its answer: {exc}"
            ) from exc
        self.at_end = True
        return b""

    def offer_to(self, take: Callable[[bytes], bool]) -> None:
        """See ``BackendResponse``: the library wakes the task by itself."""

    async def aclose(self) -> None:
        await self._iterator.aclose()
        await self._response.stream.aclose()


def _stream_class(httpx: Any) -> Any:
    """Return the class that httpx wants a body to be of."""

    class Stream(httpx.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, pieces: AsyncIterator[bytes]) -> None:
            self._pieces = pieces

        def __aiter__(self) -> AsyncIterator[bytes]:
            return self._pieces

    return Stream


class _Url:
    """What a transport asks of a request's URL."""

    def __init__(self, base: Any, target: bytes) -> None:
        self.raw_scheme: bytes = base.raw_scheme
        self.raw_host: bytes = base.raw_host
        self.port: int | None = base.port
        self.scheme: str = base.scheme
        self.host: str = base.host
        self.raw_path = target


def _reason(exc: BaseException) -> str:
    """Return what the system said, from the bottom of the chain: httpx itself says only that all attempts failed."""
    while exc.__cause__ is not None or exc.__context__ is not None:
        exc = exc.__cause__ or exc.__context__  # type: ignore[assignment]
        if isinstance(exc, OSError) and exc.strerror:
            return exc.strerror
    return str(exc)
