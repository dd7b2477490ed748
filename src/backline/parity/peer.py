"""One of the two servers that are compared, as its client sees it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence

from backline.config.settings import BackendSettings
from backline.errors import BackendBroken, BackendDown, BackendError, BackendTooSlow, BadRequest, ParityError
from backline.parity.exchange import Answer, HeaderPairs, Request
from backline.parity.redaction import without_redacted
from backline.proxy.choose import make_client
from backline.proxy.headers import unchanged_headers
from backline.proxy.port import BackendAddress, BackendClient, BackendRequest

_CONNECT_TIMEOUT = 5.0


def unreachable(errors: BaseExceptionGroup) -> ParityError:
    """Return the first ``ParityError`` of a group of tasks that ask; raises the group where there is none."""
    found = errors.subgroup(ParityError)
    if found is None:
        raise errors
    first = found.exceptions[0]
    assert isinstance(first, ParityError)
    return first


class Peer:
    """A server that requests are replayed to; made by ``connected``.

    ``headers`` are added to every request, in the place of those of the same name: secrets that were redacted.
    ``paths`` are pairs of prefixes: where a target begins with the first, the second takes its place.
    """

    def __init__(
        self, client: BackendClient, address: BackendAddress, *, headers: HeaderPairs, paths: Sequence[tuple[str, str]]
    ) -> None:
        self.url = address.url
        self._client = client
        self._address = address
        self._headers = headers
        self._paths = paths

    async def ask(self, request: Request, *, timeout: float) -> Answer:  # noqa: ASYNC109 - part of what is recorded
        """Return the answer, or why there is none. Raises ``ParityError`` where the server cannot be reached at all."""
        started = time.perf_counter()
        status = 0
        headers: list[tuple[str, str]] = []
        pieces: list[bytes] = []
        try:
            async with asyncio.timeout(timeout):
                answer = await self._client.send(self._request(request))
                try:
                    status = answer.status
                    headers = [
                        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in answer.headers
                    ]
                    while not answer.at_end:
                        pieces.append(await answer.read())
                finally:
                    await answer.aclose()
        except TimeoutError:
            error = f"no complete answer within {timeout:g} s"
        except BackendDown as exc:
            raise ParityError(exc.message.replace("the backend ", "")) from exc
        except BackendTooSlow as exc:
            raise ParityError(f"{self.url} did not accept a connection within {_CONNECT_TIMEOUT:g} s") from exc
        except (BackendBroken, BadRequest) as exc:
            error = exc.message.replace("the backend ", "")
        else:
            seconds = time.perf_counter() - started
            return Answer(status=status, headers=headers, body=b"".join(pieces), seconds=seconds)
        seconds = time.perf_counter() - started
        return Answer(status=status, headers=headers, body=b"".join(pieces), seconds=seconds, error=error)

    async def check(self) -> None:
        """See whether the server answers HTTP at all. Raises ``ParityError``."""
        answer = await self.ask(Request(method="GET", target="/"), timeout=_CONNECT_TIMEOUT * 2)
        if answer.error is not None:
            raise ParityError(f"{self.url} does not answer GET /: {answer.error}")

    def _request(self, request: Request) -> BackendRequest:
        target = request.target
        for before, after in self._paths:
            if target.startswith(before):
                target = after + target.removeprefix(before)
                break
        replaced = {name.lower() for name, _ in self._headers} | {"content-length", "transfer-encoding"}
        headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
            for name, value in without_redacted(request.headers)
            if name.lower() not in replaced
        ]
        headers += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in self._headers]
        if request.body or request.method not in ("GET", "HEAD", "DELETE", "OPTIONS"):
            headers.append((b"content-length", b"%d" % len(request.body)))
        return BackendRequest(
            method=request.method,
            target=self._address.base_path + target.encode("ascii"),
            headers=unchanged_headers(headers, authority=self._address.authority),
            body=request.body,
        )


@contextlib.asynccontextmanager
async def connected(
    url: str, *, headers: HeaderPairs = (), paths: Sequence[tuple[str, str]] = ()
) -> AsyncIterator[Peer]:
    """Open a client for the server at ``url`` for the block."""
    address = BackendAddress.parse(url)
    try:
        client = make_client(BackendSettings(url=url, connect_timeout=_CONNECT_TIMEOUT), address)
    except BackendError as exc:
        raise ParityError(exc.message) from exc
    try:
        yield Peer(client, address, headers=headers, paths=paths)
    finally:
        await client.aclose()
