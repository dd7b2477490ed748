"""What the proxy asks of an HTTP client. The implementations are the ``x_client`` modules; ``choose`` makes one."""

from __future__ import annotations

import dataclasses
import re
import urllib.parse
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods of which a second request does no more than the first (RFC 9110 section 9.2.2)."""
MAX_ANSWER_HEAD_BYTES = 64 << 10
"""The most bytes of a backend's status line and headers; more is no answer but an attack or a fault."""
KEEP_ALIVE_SECONDS = 4.0
"""How long an idle connection is kept. Below the 5 s after which uvicorn, which most LLM backends stand on, closes it:
the one who closes first must not be the backend, or it closes just when the next request is sent."""
_VERSION = re.compile(rb"/v\d+[a-z0-9]*(?=/|$)")  # such as /v1, and /v1beta in /v1beta/openai
_VERSION_AT_END = re.compile(rb"/v\d+[a-z0-9]*$")


@dataclasses.dataclass(frozen=True, slots=True)
class BackendAddress:
    """Where the backend is. ``base_path`` comes before every path, and has no slash at its end.

    ``root_path`` is ``base_path`` without the version of an API at its end, where the paths beside that API begin, such
    as ``/health``; ``openai_path`` is that of its OpenAI API: people name backends with and without its ``/v1``.
    """

    url: str
    scheme: str
    host: str
    port: int
    authority: bytes
    base_path: bytes
    root_path: bytes
    openai_path: bytes

    @staticmethod
    def parse(url: str) -> BackendAddress:
        """Take a URL apart that ``config`` has checked."""
        parts = urllib.parse.urlsplit(url)
        assert parts.hostname
        port = parts.port or (443 if parts.scheme == "https" else 80)
        base_path = parts.path.rstrip("/").encode()
        return BackendAddress(
            url=url,
            scheme=parts.scheme,
            host=parts.hostname,
            port=port,
            authority=parts.netloc.encode(),
            base_path=base_path,
            root_path=_VERSION_AT_END.sub(b"", base_path),
            openai_path=base_path if _VERSION.search(base_path) else base_path + b"/v1",
        )


@dataclasses.dataclass(slots=True)
class BackendRequest:
    """One request as it is to be on the wire: nothing is added to ``headers`` but what frames the body.

    ``headers`` hold ``host`` first, no hop-by-hop header, and ``content-length`` where the length is known. ``body`` is
    the whole body, or an iterator of its pieces; pieces of unknown length are sent chunked.
    """

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes | AsyncIterator[bytes] = b""


class BackendResponse(Protocol):
    """An answer whose head is here and whose body comes piece by piece, decoded from its framing and from nothing else.

    ``headers`` are as they came, names in any case, hop-by-hop headers among them. ``at_end`` is true as soon as the
    whole body has been read, so that the last piece and the end can be passed on together.
    """

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Headers: ...
    @property
    def at_end(self) -> bool: ...

    async def read(self) -> bytes:
        """Return everything that has arrived, or wait for the next bytes; ``b""`` only at the end.

        Raises ``BackendBroken`` when the connection ends before the body does.
        """

    def offer_to(self, take: Callable[[bytes], bool]) -> None:
        """From now on offer what comes while ``read`` waits to ``take`` first, which saves waking a task for it.

        ``take`` returns whether it has taken it; what it has not, and what the answer ends with, is for ``read``. It
        raises nothing. A client that cannot do this does nothing.
        """

    async def aclose(self) -> None:
        """Free the connection. Called exactly once, whatever happened, also on cancellation.

        It goes back to the pool only if request and answer both went through to their ends; else it is closed at once,
        without waiting for what is still in its buffers.
        """


class BackendClient(Protocol):
    """A pool of connections to one backend, opened and closed with the application's lifespan by ``running_backend``.

    It follows no redirect, keeps no cookies, uses no proxy from the environment, decompresses nothing and adds no
    header. It never has more connections than there are calls of ``send``; the caller limits these. It has no time-out
    but the one for connecting: the caller cancels.
    """

    async def send(self, request: BackendRequest) -> BackendResponse:
        """Send a request and return when the head of its answer is here; 1xx answers before it are dropped.

        The body may still be on its way then. A request that may be repeated (an idempotent method, the body in hand)
        is sent once more where its connection turns out to have been closed. An exception from ``request.body`` comes
        out of here or out of ``read``, possibly as ``BackendBroken``.

        Raises ``BackendDown``, ``BackendTooSlow`` (connecting only) and ``BackendBroken``. On these and on cancellation
        the connection is closed at once.
        """

    async def aclose(self) -> None:
        """Close every connection, also those in use."""
