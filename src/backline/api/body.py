"""Reads a request's body from ASGI into a payload, without looking at its rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from backline.api.multipart import DATA_PART, MultipartReader, PartRecord, boundary_of
from backline.errors import BadRequest, BodyTooLarge
from backline.runtime.payload import Payload
from backline_worker.channel import LARGE_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Message, Receive, Scope

    from backline.runtime.payload import PayloadSink

__all__ = ["Body", "BodyLimits", "ClientDisconnected", "PartRecord", "read_body"]


class BodyLimits(Protocol):
    """What ``read_body`` holds a request to; sizes in bytes. The server's limit settings fit it."""

    @property
    def max_body(self) -> int: ...
    @property
    def max_parts(self) -> int: ...
    @property
    def max_part_headers(self) -> int: ...


class Body(NamedTuple):
    """A body as it came: ``payload`` holds the contents of ``parts`` one after another; the caller closes it.

    A body that is not multipart is one part named ``X`` with the request's own content type.
    """

    payload: Payload
    parts: list[PartRecord]


class ClientDisconnected(Exception):
    """The client left before its body was complete; nothing can be answered."""


async def read_body(
    scope: Scope, receive: Receive, sink_factory: Callable[[], PayloadSink], limits: BodyLimits, *, raw: bool = False
) -> Body:
    """Read the whole body of an HTTP request.

    With ``raw`` a multipart body is left as it is, one part with the request's content type: hooks of unstructured and
    chat routes parse it themselves. An empty body is one empty part ``X``; what it means is for the worker to say.

    Error handling: raises ``BodyTooLarge`` (before reading anything, where Content-Length tells),
    ``MalformedMultipart``, ``BadRequest``, ``QueueFull`` when there is no room for it, and ``ClientDisconnected``.
    On each of these, and when cancelled, what was stored is removed.
    """
    content_type = ""
    for name, value in scope["headers"]:
        if name == b"content-type":
            content_type = value.decode("latin-1").strip()
        elif name == b"content-length":
            _check_length(value, limits.max_body)
    boundary = None if raw else boundary_of(content_type)
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        data: bytes = message.get("body", b"")
        length = len(data)
        if boundary is None and length < LARGE_PAYLOAD_BYTES and length <= limits.max_body:
            # The usual request: small and in one message. No sink, no copy.
            return Body(Payload(size=length, data=data), [PartRecord(DATA_PART, content_type, None, 0, length)])
        if not length:
            return Body(Payload(size=0, data=b""), [PartRecord(DATA_PART, "", None, 0, 0)])
    sink = sink_factory()
    try:
        if boundary is None:
            await _read_raw(message, receive, sink, limits.max_body)
            return Body(sink.finish(), [PartRecord(DATA_PART, content_type, None, 0, sink.size)])
        reader = MultipartReader(boundary, sink, max_parts=limits.max_parts, max_part_headers=limits.max_part_headers)
        received = await _read_multipart(message, receive, reader, limits.max_body)
        parts = reader.finish() if received else [PartRecord(DATA_PART, "", None, 0, 0)]
        return Body(sink.finish(), parts)
    except BaseException:
        sink.abort()
        raise


async def _read_raw(message: Message, receive: Receive, sink: PayloadSink, max_body: int) -> None:
    while True:
        data = _data_of(message)
        if sink.size + len(data) > max_body:
            raise _too_large(None, max_body)
        sink.write(data)
        if not message.get("more_body"):
            return
        message = await receive()


async def _read_multipart(message: Message, receive: Receive, reader: MultipartReader, max_body: int) -> int:
    """Feed the whole body to ``reader``; returns its length in bytes."""
    received = 0
    while True:
        data = _data_of(message)
        received += len(data)
        if received > max_body:
            raise _too_large(None, max_body)
        reader.feed(data)
        if not message.get("more_body"):
            return received
        message = await receive()


def _data_of(message: Message) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    data: bytes = message.get("body", b"")
    return data


def _check_length(value: bytes, max_body: int) -> None:
    if not value.isdigit():
        raise BadRequest(f"the Content-Length header is {value[:40].decode('latin-1')!r}, not a number of bytes")
    # Compared by digits first: int() of thousands of digits is slow, and refused by Python at last.
    digits = value.lstrip(b"0")
    if len(digits) > 20 or int(digits or b"0") > max_body:
        raise _too_large(digits[:20].decode("ascii"), max_body)


def _too_large(length: str | None, max_body: int) -> BodyTooLarge:
    size = f"has {length} bytes" if length else "is larger"
    return BodyTooLarge(
        f"the request body {size}; this server takes at most {max_body} bytes (--max-body): "
        "send fewer rows in a request, or have the limit raised"
    )
