"""The backend's side of a WebSocket that is passed through, message by message."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import ssl
from typing import TYPE_CHECKING, Any

from backline.errors import BackendBroken, BackendDown, BackendTooSlow
from backline.proxy.headers import HeaderList, websocket_headers
from backline.proxy.port import BackendAddress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from websockets.asyncio.client import ClientConnection

MAX_MESSAGE_BYTES = 16 << 20
"""The largest message, either way; our own server has the same limit."""
_CLOSE_TIMEOUT = 5.0  # seconds that the backend has to answer a closing handshake


class HandshakeRefused(Exception):
    """The backend answered the handshake with an ordinary HTTP answer."""

    def __init__(self, status: int, headers: HeaderList, body: bytes) -> None:
        super().__init__(status)
        self.status = status
        self.headers = headers
        self.body = body


def prepare(address: BackendAddress) -> None:
    """Do once, before there are requests to wait for it, what takes long: import the library, load certificates."""
    with contextlib.suppress(ImportError):  # then uvicorn accepts no WebSocket either
        import websockets.asyncio.client  # noqa: F401

    if address.scheme == "https":
        _tls()


@functools.cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


async def connect(
    address: BackendAddress,
    target: bytes,
    headers: HeaderList,
    subprotocols: Sequence[str],
    *,
    timeout: float | None,  # noqa: ASYNC109 - handed on, the library counts
) -> ClientConnection:
    """Open a WebSocket to the backend; the caller closes it.

    Raises ``HandshakeRefused``, ``BackendDown``, ``BackendTooSlow`` and ``BackendBroken``.
    """
    # Late: a server without a backend does not need it.
    from websockets.asyncio.client import connect as open_connection
    from websockets.exceptions import InvalidStatus, WebSocketException

    class Connect(open_connection):
        def process_redirect(self, exc: Exception) -> Exception | str:
            return exc  # no redirect is followed: it leads to somewhere that is not the backend

    scheme = "wss" if address.scheme == "https" else "ws"
    more: dict[str, Any] = {} if address.scheme == "http" else {"ssl": _tls()}
    opening = Connect(
        f"{scheme}://{address.authority.decode()}/",
        subprotocols=list(subprotocols) or None,  # type: ignore[arg-type]
        additional_headers=[(name.decode(), value.decode("latin-1")) for name, value in websocket_headers(headers)],
        user_agent_header=None,
        compression=None,
        proxy=None,
        open_timeout=timeout,
        close_timeout=_CLOSE_TIMEOUT,
        max_size=MAX_MESSAGE_BYTES,
        logger=logging.getLogger("backline.proxy.websocket"),
        **more,
    )
    path, _, query = target.decode().partition("?")
    # The library takes a path apart at its semicolons: give it as it is.
    opening.ws_uri = dataclasses.replace(opening.ws_uri, path=path, query=query)
    try:
        return await opening
    except InvalidStatus as exc:
        answer = exc.response
        raw = [(name.encode(), value.encode("latin-1", "replace")) for name, value in answer.headers.raw_items()]
        raise HandshakeRefused(answer.status_code, raw, bytes(answer.body or b"")) from exc
    except TimeoutError as exc:
        raise BackendTooSlow(
            f"the backend {address.url} did not answer the WebSocket handshake within {timeout:g} s (--backend-timeout)"
        ) from exc
    except OSError as exc:
        raise BackendDown(f"no connection to the backend {address.url}: {exc.strerror or exc}") from exc
    except (WebSocketException, EOFError) as exc:
        raise BackendBroken(f"the backend {address.url} did not answer the WebSocket handshake: {exc}") from exc
