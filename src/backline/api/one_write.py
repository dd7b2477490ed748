"""uvicorn's HTTP protocol as we need it: one write for each complete answer, no trailers, no ``Date`` of its own.

uvicorn writes the head of an answer and its body one after the other, and each write is a system call: a tenth of all
that a small answer costs. Here the transport can be told to hold back what is written until the answer is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.auto import AutoHTTPProtocol

if TYPE_CHECKING:
    from starlette.types import Message, Send


class CorkableTransport:
    """A transport whose writes can be held back and joined: ``cork``, some writes, ``uncork``. Else what it wraps."""

    write: Callable[[bytes], None]

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held: list[bytes] = []
        # Bound once: while nothing is held back, a call costs no more than on the transport itself.
        self.write = transport.write
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def cork(self) -> None:
        """Hold back what is written from now on."""
        self.write = self._held.append

    def uncork(self) -> None:
        """Write what was held back, in one piece."""
        self.write = self._transport.write
        if self._held:
            data = b"".join(self._held)
            self._held.clear()
            self._transport.write(data)

    def close(self) -> None:
        """Write what was held back, and close once it is sent."""
        self.uncork()
        self._transport.close()


class HttpProtocol(AutoHTTPProtocol):  # type: ignore[misc,valid-type]  # httptools' or h11's: uvicorn decides on import
    """uvicorn's protocol over a ``CorkableTransport``, and without trailers."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See ``asyncio.Protocol``."""
        super().connection_made(CorkableTransport(cast("asyncio.Transport", transport)))

    def on_headers_complete(self) -> None:
        """See httptools, the only one that calls it."""
        super().on_headers_complete()
        if getattr(self.server_state, "leaving", False) and self.cycle is not None:
            self.cycle.keep_alive = False  # the answer says so, and the client's next request goes elsewhere
        if not self.parser.should_upgrade():
            # uvicorn puts the trailers of a chunked body among the headers, where a trailer such as Authorization must
            # not get. The request has a reference of its own to the list with its headers.
            self.headers: list[tuple[bytes, bytes]] = []


def corkable(send: Callable[..., Any]) -> CorkableTransport | None:
    """Return the transport that an ASGI ``send`` writes to, or ``None`` where a middleware stands between the two."""
    # uvicorn's ``send`` is a method of the request's cycle, which has the transport. Whatever wraps it is no method of
    # such an object.
    transport = getattr(getattr(send, "__self__", None), "transport", None)
    return transport if type(transport) is CorkableTransport else None


def sender_at_once(send: Send) -> Callable[[Message], bool] | None:
    """Return a function that sends without a task, or ``None`` where a middleware is in between.

    It returns ``False``, with nothing sent, where the client does not keep up, so that a task has to wait for it; and
    where sending fails, so that the error comes up in that task, which tries again.
    """
    flow = getattr(getattr(send, "__self__", None), "flow", None)
    if flow is None or corkable(send) is None:
        return None

    def send_at_once(message: Message) -> bool:
        if flow.write_paused:
            return False
        # uvicorn's send waits for nothing but that, so a single step runs it to its end.
        sending = cast("Coroutine[None, None, None]", send(message))
        try:
            sending.send(None)
        except StopIteration:
            return True
        except Exception:  # noqa: BLE001 - see above
            return False
        raise AssertionError("uvicorn's send has waited")

    return send_at_once


def leave_date_to_us(send: Callable[..., Any]) -> bool:
    """Keep uvicorn from adding ``Date`` to the answer that is sent next; ``False`` where a middleware is in between."""
    cycle: Any = getattr(send, "__self__", None)
    if not hasattr(cycle, "default_headers"):
        return False
    cycle.default_headers = []
    return True
