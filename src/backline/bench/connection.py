"""One keep-alive connection of the load generator: a request that is written as it is, and its answer, timed.

Lean on purpose: what the generator takes of a core is not the server's, where the two share a machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import httptools


class Connection(asyncio.Protocol):
    """Sends one request at a time; ``done`` is called with it when the answer is complete, or will never be.

    After a call ``status`` is that of the answer, 0 where the connection was lost before its end, and ``size`` the
    bytes of the body.
    """

    def __init__(self, done: Callable[[Connection], None]) -> None:
        self._done = done
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self.busy = False
        self.closed = False
        self.intended = 0.0
        self.sent = 0.0
        self.status = 0
        self.size = 0

    def send(self, wire: bytes, intended: float, now: float) -> None:
        """Write a request that was due at ``intended``."""
        assert self._transport is not None
        self.busy = True
        self.intended, self.sent = intended, now
        self.status = self.size = 0
        self._transport.write(wire)

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.status = 0
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self.closed = True
        if self.busy:
            self.status = 0
            self._finish()

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        self.size += len(body)

    def on_message_complete(self) -> None:
        """See httptools."""
        status = self._parser.get_status_code()
        if status < 200 or not self.busy:
            return
        self.status = status
        if not self._parser.should_keep_alive():
            self.closed = True
            self.abort()
        self._finish()

    def _finish(self) -> None:
        self.busy = False
        self._done(self)
