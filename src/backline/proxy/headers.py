"""Which headers cross the proxy: RFC 9110 section 7.6, RFC 9112 section 9, RFC 7239 (Forwarded)."""

from __future__ import annotations

import re
from collections.abc import Iterable

from backline.errors import BackendBroken, BadRequest

HeaderList = list[tuple[bytes, bytes]]

# For this connection only. TE and Trailer are among them as no trailer crosses; Expect, as our own server answers it.
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"expect", b"http2-settings", b"keep-alive", b"proxy-authenticate", b"proxy-authorization",
        b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
_ABOUT_THE_CLIENT = (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"via")
# Not passed on by the loop: each needs a look, or is written anew.
_LOOKED_AT = frozenset({*_HOP_BY_HOP, *_ABOUT_THE_CLIENT, b"content-length", b"host"})
_WEBSOCKET = frozenset(
    {b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions", b"sec-websocket-protocol",
     b"sec-websocket-accept"}
)  # fmt: skip
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NODE = re.compile(rb"[A-Za-z0-9._-]+")
_VIA = b"1.1 backline"


def request_headers(
    headers: Iterable[tuple[bytes, bytes]], *, authority: bytes, client: str | None, scheme: bytes
) -> HeaderList:
    """Return the headers for the backend, ``host`` first; names in ``headers`` are in lower case (ASGI).

    What other proxies have said about the client is kept and added to. Raises ``BadRequest`` where the length of the
    body is said in more than one way: the next one in the chain could read it the other way.
    """
    passed, seen = _end_to_end(headers, authority)
    _frame(passed, seen)
    _tell_origin(passed, seen, client.encode() if client else b"unknown", scheme)
    return passed


def unchanged_headers(headers: Iterable[tuple[bytes, bytes]], *, authority: bytes) -> HeaderList:
    """Return the headers for a server that is not to notice us: as ``request_headers``, with nothing added.

    Raises ``BadRequest`` as that does.
    """
    passed, seen = _end_to_end(headers, authority)
    _frame(passed, seen)
    return passed + [(name, seen[name]) for name in _ABOUT_THE_CLIENT if name in seen]


def _end_to_end(headers: Iterable[tuple[bytes, bytes]], authority: bytes) -> tuple[HeaderList, dict[bytes, bytes]]:
    """Return what passes as it is, ``host`` first, and the values of the names that are looked at."""
    passed: HeaderList = [(b"host", authority)]
    seen: dict[bytes, bytes] = {}
    for header in headers:
        name = header[0]
        if name not in _LOOKED_AT:
            passed.append(header)
        elif name in seen:
            if name in (b"content-length", b"transfer-encoding", b"host"):
                raise BadRequest(f"the header {name.decode()} is there twice")
            seen[name] += b", " + header[1]
        else:
            seen[name] = header[1]
    if b"connection" in seen:
        named = _named_in(seen[b"connection"])
        if named:
            passed = [header for header in passed if header[0] not in named or header[0] == b"host"]
            for name in named - {b"content-length", b"transfer-encoding", b"host"}:
                seen.pop(name, None)
    return passed, seen


def _frame(passed: HeaderList, seen: dict[bytes, bytes]) -> None:
    length, coding = seen.get(b"content-length"), seen.get(b"transfer-encoding")
    if coding is not None:
        if length is not None:
            raise BadRequest("both Content-Length and Transfer-Encoding are there; send one of them")
        if coding.strip().lower() != b"chunked":
            raise BadRequest("Transfer-Encoding: only chunked is understood")
    elif length is not None:
        if not (length.isdigit() and len(length) < 20):
            raise BadRequest("Content-Length is no number")
        passed.append((b"content-length", length))


def _tell_origin(passed: HeaderList, seen: dict[bytes, bytes], client: bytes, scheme: bytes) -> None:
    host = seen.get(b"host", b"")
    before = seen.get(b"x-forwarded-for")
    passed.append((b"x-forwarded-for", client if before is None else before + b", " + client))
    passed.append((b"x-forwarded-host", seen.get(b"x-forwarded-host", host)))
    passed.append((b"x-forwarded-proto", seen.get(b"x-forwarded-proto", scheme)))
    # An IPv6 address and a port need quotes (RFC 7239 section 6).
    node = client if _NODE.fullmatch(client) else b'"[%s]"' % client
    origin = b"for=%s;host=%s;proto=%s" % (node, _quoted(host), scheme)
    before = seen.get(b"forwarded")
    passed.append((b"forwarded", origin if before is None else before + b", " + origin))
    before = seen.get(b"via")
    passed.append((b"via", _VIA if before is None else before + b", " + _VIA))


def _quoted(text: bytes) -> bytes:
    if _NODE.fullmatch(text):
        return text
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def websocket_headers(headers: HeaderList) -> HeaderList:
    """Return ``headers`` less those that each WebSocket handshake writes for itself, and the host."""
    return [
        header for header in headers if header[0] not in _WEBSOCKET and header[0] not in (b"host", b"content-length")
    ]


def response_headers(headers: Iterable[tuple[bytes, bytes]], status: int) -> HeaderList:
    """Return the headers for the client, names in lower case.

    A length is left out where the status allows no body, which our own server does not send right otherwise. Raises
    ``BackendBroken`` for what cannot be passed on.
    """
    passed = [(name.lower(), value) for name, value in headers]
    for name, value in passed:
        if name == b"transfer-encoding" and value.strip().lower() not in (b"chunked", b"identity"):
            raise BackendBroken("the backend's answer has a Transfer-Encoding other than chunked")
    hops = [value for name, value in passed if name == b"connection"]
    dropped: frozenset[bytes] | set[bytes] = _HOP_BY_HOP
    named = _named_in(b",".join(hops)) if hops else None
    if named:
        dropped = _HOP_BY_HOP | (named - {b"content-length"})
    if status in (204, 304):
        dropped = dropped | {b"content-length"}
    passed = [header for header in passed if header[0] not in dropped]
    if not all(map(_NAME.fullmatch, [name for name, _ in passed])) or _BAD_VALUE.search(
        b"".join([value for _, value in passed])
    ):
        raise BackendBroken("the backend sent a header with a character that no header may have")
    return passed


def _named_in(connection: bytes) -> set[bytes]:
    names = {name.strip().lower() for name in connection.split(b",")}
    return names - {b"", b"close", b"keep-alive"}
