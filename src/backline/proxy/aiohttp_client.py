"""The client on aiohttp."""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Callable
from typing import Any

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from backline.errors import BackendBroken, BackendDown, BackendTooSlow, BadRequest
from backline.proxy.port import (
    KEEP_ALIVE_SECONDS,
    MAX_ANSWER_HEAD_BYTES,
    BackendAddress,
    BackendRequest,
    BackendResponse,
    Headers,
)

_MAX_ANSWER_HEADERS = 1000
_OURS = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")  # what aiohttp adds unless told not to


class AiohttpClient:
    """See ``BackendClient``."""

    def __init__(self, address: BackendAddress, *, connect_timeout: float) -> None:
        self._address = address
        self._origin = f"{address.scheme}://{address.authority.decode()}"
        self._connector = _Connector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS)
        limits: dict[str, Any] = {"max_line_size": MAX_ANSWER_HEAD_BYTES, "max_field_size": MAX_ANSWER_HEAD_BYTES}
        if "max_headers" in inspect.signature(aiohttp.ClientSession).parameters:  # since 3.14
            limits["max_headers"] = _MAX_ANSWER_HEADERS
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=_OURS,
            timeout=aiohttp.ClientTimeout(total=None, connect=connect_timeout),
            trust_env=False,
            **limits,
        )

    async def send(self, request: BackendRequest) -> BackendResponse:
        """See ``BackendClient``."""
        url = URL(self._origin + request.target.decode("ascii"), encoded=True)
        try:
            headers = CIMultiDict([(name.decode("ascii"), value.decode()) for name, value in request.headers])
        except UnicodeDecodeError as exc:
            # aiohttp writes header values as UTF-8, so it cannot write these bytes.
            raise BadRequest("a header has a value that is neither ASCII nor UTF-8") from exc
        task = asyncio.current_task()
        try:
            response = await self._session.request(
                request.method, url, headers=headers, data=request.body or None, allow_redirects=False
            )
            return _Response(response, self._address.url)
        except BaseException as exc:
            transport = self._connector.taken.get(task)
            if transport is not None:
                transport.abort()  # aiohttp has closed it, which first sends what is in its buffer
            if isinstance(exc, aiohttp.ConnectionTimeoutError):
                raise BackendTooSlow(
                    f"the backend {self._address.url} did not accept a connection in time (--backend-connect-timeout)"
                ) from exc
            if isinstance(exc, aiohttp.ClientConnectorError):
                raise BackendDown(f"no connection to the backend {self._address.url}: {_reason(exc)}") from exc
            if isinstance(exc, aiohttp.ClientError):
                raise _broken(exc, self._address.url, "before it answered") from exc
            raise
        finally:
            self._connector.taken.pop(task, None)

    async def aclose(self) -> None:
        """See ``BackendClient``."""
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """A pool that tells which connection a task was given: the only way to abort one whose answer never came."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.taken: dict[asyncio.Task[Any] | None, asyncio.Transport | None] = {}

    async def connect(self, req: Any, traces: Any, timeout: Any) -> Any:  # noqa: ASYNC109 - aiohttp's signature
        """See aiohttp."""
        connection = await super().connect(req, traces, timeout)
        self.taken[asyncio.current_task()] = connection.transport
        return connection


class _Response:
    """See ``BackendResponse``."""

    __slots__ = ("_content", "_response", "_transport", "_url", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, url: str) -> None:
        self._response = response
        self._url = url
        self._content = response.content
        self._transport = response.connection.transport if response.connection is not None else None
        self.status = response.status
        self.headers: Headers = response.raw_headers

    @property
    def at_end(self) -> bool:
        return self._content.at_eof()

    async def read(self) -> bytes:
        try:
            return await self._content.readany()
        except aiohttp.ClientError as exc:
            raise _broken(exc, self._url, "in the middle of its answer") from exc

    def offer_to(self, take: Callable[[bytes], bool]) -> None:
        """See ``BackendResponse``: the library wakes the task by itself."""

    async def aclose(self) -> None:
        if not self._response.closed:
            self._response.close()
            if self._transport is not None:
                self._transport.abort()


def _broken(exc: aiohttp.ClientError, url: str, when: str) -> BackendBroken:
    if isinstance(exc, aiohttp.ClientResponseError):
        return BackendBroken(f"what the backend {url} sent is no HTTP: {_first_line(exc.message)}")
    if isinstance(exc, (aiohttp.ServerDisconnectedError, aiohttp.ClientPayloadError)):
        return BackendBroken(f"the backend {url} closed the connection {when}")
    return BackendBroken(f"the connection to the backend {url} broke {when}: {exc}")


def _reason(exc: aiohttp.ClientConnectorError) -> str:
    if isinstance(exc, aiohttp.ClientSSLError):
        return str(exc.__cause__ or exc)
    errno = exc.os_error.errno  # negative where the name is unknown
    return os.strerror(errno) if errno is not None and errno > 0 else exc.strerror or str(exc.os_error)


def _first_line(text: str) -> str:
    return text.partition("\n")[0].strip().rstrip(":")
