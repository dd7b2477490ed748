"""Reading bodies from ASGI: what a payload looks like, and what is refused before and while it comes."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import TYPE_CHECKING, Any

import pytest

from backline.api.body import Body, ClientDisconnected, PartRecord, read_body
from backline.errors import BadRequest, BodyTooLarge, MalformedMultipart
from backline.runtime.payload import PayloadDirectory
from backline_worker.channel import LARGE_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from starlette.types import Message


@dataclasses.dataclass(frozen=True)
class Limits:
    max_body: int = 1 << 20
    max_parts: int = 4
    max_part_headers: int = 1000


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[PayloadDirectory]:
    directory = PayloadDirectory(str(tmp_path))
    yield directory
    directory.close()


DISCONNECT: Message = {"type": "http.disconnect"}


def chunks(*bodies: bytes) -> list[Message]:
    last = len(bodies) - 1
    return [{"type": "http.request", "body": body, "more_body": i < last} for i, body in enumerate(bodies)]


class Request:
    """A client's side of one request: its headers, and the messages that it sends."""

    def __init__(self, messages: list[Message], **headers: str) -> None:
        self.messages = messages
        self.taken = 0
        pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        self.scope: dict[str, Any] = {"type": "http", "method": "POST", "headers": pairs}

    async def receive(self) -> Message:
        self.taken += 1
        if self.taken > len(self.messages):
            await asyncio.Event().wait()  # the client says no more
        return self.messages[self.taken - 1]

    def read(self, directory: PayloadDirectory, limits: Limits | None = None, *, raw: bool = False) -> Body:
        return asyncio.run(read_body(self.scope, self.receive, directory.sink, limits or Limits(), raw=raw))


def content(body: Body) -> bytes:
    if body.payload.path is None:
        assert body.payload.data is not None
        return body.payload.data
    with open(body.payload.path, "rb") as file:
        return file.read()


MULTIPART = b'--b\r\nContent-Disposition: form-data; name="X"; filename="d.csv"\r\n\r\na\n1\n\r\n--b--\r\n'
FORM = "multipart/form-data; boundary=b"


def test_a_small_body_in_one_message_is_taken_without_a_copy(directory: PayloadDirectory) -> None:
    rows = b"a,b\n1,2\n" * 3
    body = Request(chunks(rows), content_type="text/csv; charset=utf-8").read(directory)
    assert body.payload.data is rows
    assert body.parts == [PartRecord("X", "text/csv; charset=utf-8", None, 0, len(rows))]


def test_a_body_without_a_content_type_is_part_x_without_one(directory: PayloadDirectory) -> None:
    assert Request(chunks(b"1")).read(directory).parts == [PartRecord("X", "", None, 0, 1)]


@pytest.mark.parametrize("messages", [chunks(b""), [{"type": "http.request"}], chunks(b"", b"")])
@pytest.mark.parametrize("content_type", ["text/csv", FORM])
def test_an_empty_body_is_an_empty_part_x(
    directory: PayloadDirectory, messages: list[Message], content_type: str
) -> None:
    body = Request(messages, content_type=content_type).read(directory)
    [part] = body.parts
    assert (part.name, part.offset, part.length, body.payload.data) == ("X", 0, 0, b"")


def test_a_body_in_pieces_is_joined(directory: PayloadDirectory) -> None:
    body = Request(chunks(b"a,b\n", b"", b"1,2\n"), content_type="text/csv").read(directory)
    assert content(body) == b"a,b\n1,2\n"
    assert body.parts == [PartRecord("X", "text/csv", None, 0, 8)]


@pytest.mark.parametrize("pieces", [1, 20])
def test_a_large_body_lies_in_a_file(directory: PayloadDirectory, pieces: int) -> None:
    rows = os.urandom(LARGE_PAYLOAD_BYTES * 2)
    size = len(rows) // pieces + 1
    messages = chunks(*[rows[start : start + size] for start in range(0, len(rows), size)])
    body = Request(messages).read(directory)
    assert body.payload.path is not None
    assert content(body) == rows
    assert body.parts[0].length == len(rows)


@pytest.mark.parametrize("size", [1, 10, 1000])
def test_a_multipart_body_becomes_its_parts(directory: PayloadDirectory, size: int) -> None:
    messages = chunks(*[MULTIPART[start : start + size] for start in range(0, len(MULTIPART), size)])
    body = Request(messages, content_type=FORM).read(directory)
    assert body.parts == [PartRecord("X", "", "d.csv", 0, 4)]
    assert content(body) == b"a\n1\n"


def test_a_raw_route_gets_a_multipart_body_as_it_is(directory: PayloadDirectory) -> None:
    body = Request(chunks(MULTIPART), content_type=FORM).read(directory, raw=True)
    assert body.parts == [PartRecord("X", FORM, None, 0, len(MULTIPART))]
    assert content(body) == MULTIPART


def test_a_raw_route_does_not_even_mind_a_missing_boundary(directory: PayloadDirectory) -> None:
    body = Request(chunks(b"1"), content_type="multipart/form-data").read(directory, raw=True)
    assert content(body) == b"1"


def test_a_missing_boundary_is_refused_before_reading(directory: PayloadDirectory) -> None:
    request = Request(chunks(MULTIPART), content_type="multipart/form-data")
    with pytest.raises(MalformedMultipart, match="names no boundary"):
        request.read(directory)
    assert request.taken == 0


@pytest.mark.parametrize("length", ["101", "0" * 50 + "101", "9" * 5000])
def test_a_content_length_over_the_limit_is_refused_before_reading(directory: PayloadDirectory, length: str) -> None:
    request = Request(chunks(b"x" * 101), content_length=length)
    with pytest.raises(BodyTooLarge, match="at most 100 bytes"):
        request.read(directory, Limits(max_body=100))
    assert request.taken == 0


@pytest.mark.parametrize("length", ["-1", "1e3", "", "1 2", "\xb2"])
def test_a_content_length_that_is_no_number_is_refused(directory: PayloadDirectory, length: str) -> None:
    with pytest.raises(BadRequest, match="Content-Length"):
        Request(chunks(b"x"), content_length=length).read(directory)


@pytest.mark.parametrize("content_type", ["text/csv", FORM])
@pytest.mark.parametrize("max_body", [len(MULTIPART) - 1, 10])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_that_grows_over_the_limit_is_refused(
    directory: PayloadDirectory, content_type: str, max_body: int, size: int
) -> None:
    messages = chunks(*[MULTIPART[start : start + size] for start in range(0, len(MULTIPART), size)])
    request = Request(messages, content_type=content_type)
    with pytest.raises(BodyTooLarge):
        request.read(directory, Limits(max_body=max_body))
    assert request.taken == max_body // size + 1, "it is refused as soon as it is over"


@pytest.mark.parametrize("content_type", ["text/csv", FORM])
def test_a_body_of_exactly_the_limit_is_taken(directory: PayloadDirectory, content_type: str) -> None:
    limits = Limits(max_body=len(MULTIPART))
    assert Request(chunks(MULTIPART), content_type=content_type).read(directory, limits).payload.size > 0


def test_a_limit_below_the_size_of_a_file_holds_for_large_bodies_too(directory: PayloadDirectory) -> None:
    with pytest.raises(BodyTooLarge):
        Request(chunks(bytes(600_000), bytes(600_000))).read(directory)
    assert os.listdir(directory.path) == []


@pytest.mark.parametrize("content_type", ["text/csv", FORM])
@pytest.mark.parametrize("before", [[], [{"type": "http.request", "body": b"--b\r\n", "more_body": True}]])
def test_a_client_that_leaves_is_told_apart(
    directory: PayloadDirectory, content_type: str, before: list[Message]
) -> None:
    with pytest.raises(ClientDisconnected):
        Request([*before, DISCONNECT], content_type=content_type).read(directory)


def test_a_client_that_leaves_in_a_large_body_leaves_no_file(directory: PayloadDirectory) -> None:
    part: Message = {"type": "http.request", "body": bytes(LARGE_PAYLOAD_BYTES), "more_body": True}
    with pytest.raises(ClientDisconnected):
        Request([part, DISCONNECT]).read(directory)
    assert os.listdir(directory.path) == []


def test_a_malformed_part_leaves_no_file(directory: PayloadDirectory) -> None:
    large = MULTIPART[:-10] + bytes(LARGE_PAYLOAD_BYTES)
    with pytest.raises(MalformedMultipart, match="closing delimiter"):
        Request(chunks(large), content_type=FORM).read(directory)
    assert os.listdir(directory.path) == []


def test_cancelling_leaves_no_file(directory: PayloadDirectory) -> None:
    async def main() -> None:
        part: Message = {"type": "http.request", "body": bytes(LARGE_PAYLOAD_BYTES), "more_body": True}
        request = Request([part])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await read_body(request.scope, request.receive, directory.sink, Limits())
        assert request.taken == 2

    asyncio.run(main())
    assert os.listdir(directory.path) == []
