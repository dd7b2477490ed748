"""``multipart/form-data``, which the server reads by itself: however it is cut, the same parts or the same refusal."""

from __future__ import annotations

import random
import re

from backline.api.multipart import MultipartReader, boundary_of
from backline.errors import MalformedMultipart
from backline.runtime.payload import PayloadDirectory
from tests.fuzz.cases import Case, Wrong
from tests.fuzz.damage import TEXTS, cut, damaged, pieces_of

_TOKENS = re.compile(rb'\r\n|\r|\n|--|[:;="]|[^\r\n:;="-]+|-')
_NASTY = (
    b"\r\n", b"\n", b"\r", b"--", b"----", b'"', b";", b"=", b":", b'; name="X"', b"; name*=utf-8''X",
    b"Content-Length: 5\r\n",
    b"Content-Disposition: form-data\r\n", b"Content-Transfer-Encoding: base64\r\n", b"--bnd-42", b"--bnd-42--",
    b"\r\n--bnd-42\r\n", b"\r\n--bnd-42--\r\n", b"\r\n\r\n", b'filename="..\\\\x"', b"H" * 400, b"a: b\r\n" * 40,
    b"\\", b"\0",
    *TEXTS,
)  # fmt: skip
_TYPES = (
    "multipart/form-data; boundary=bnd-42", 'multipart/form-data; boundary="bnd-42"',
    "Multipart/Form-Data;boundary=bnd-42;",
)  # fmt: skip


class Multipart:
    """Delimiters, headers, names, ends; and the boundary in the request's own header."""

    seconds = 2.0

    def __init__(self) -> None:
        self._directory = PayloadDirectory()
        head = b'Content-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: text/csv\r\n\r\n%s'
        bare = b'Content-Disposition: form-data; name="%s"\r\n\r\n%s'
        contents = [
            [head % (b"X", b"x.csv", b"a,b\r\n1,2\r\n")],
            [head % (b"X", b"x.csv", b""), bare % (b"y", b"--bnd-4"), bare % (b"y", b"\r\n-\r\n--")],
            [bare % (b"X.colnames", "é\n".encode()), head % (b"X", b'a\\"b', bytes(range(256)))],
            [],
        ]
        self._seeds = [
            b"".join(b"--bnd-42\r\n" + part + b"\r\n" for part in parts) + b"--bnd-42--\r\n" for parts in contents
        ]

    def make(self, draw: random.Random) -> Case:
        body = damaged(draw, draw.choice(self._seeds), _TOKENS, _NASTY)
        content_type = draw.choice(_TYPES)
        if draw.random() < 0.1:
            content_type = damaged(draw, content_type.encode(), _TOKENS, _NASTY).decode("latin-1")
        return Case(body, {"type": content_type, "cuts": [cut(draw, body), cut(draw, body)]})

    def check(self, case: Case) -> str:
        try:
            boundary = boundary_of(case.options["type"])
        except MalformedMultipart:
            return "no boundary"
        if boundary is None:
            return "another type"
        first, second = (self._read(boundary, pieces_of(case.body, cuts)) for cuts in case.options["cuts"])
        if (first is None) != (second is None) or first != second:
            raise Wrong(f"cut otherwise it is {second!r:.300} where it was {first!r:.300}")
        return "refused" if first is None else f"{len(first)} parts"

    def _read(self, boundary: bytes, pieces: list[bytes]) -> list[tuple[object, bytes]] | None:
        sink = self._directory.sink()
        reader = MultipartReader(boundary, sink, max_parts=32, max_part_headers=16 << 10)
        try:
            for piece in pieces:
                reader.feed(piece)
            parts = reader.finish()
        except MalformedMultipart as exc:
            sink.abort()
            if not str(exc):
                raise Wrong("a refusal without a word") from exc
            return None
        payload = sink.finish()
        data = payload.data
        if data is None:
            assert payload.path is not None
            with open(payload.path, "rb") as file:
                data = file.read()
        payload.close()
        if any(part.offset < 0 or part.offset + part.length > len(data) for part in parts):
            raise Wrong(f"parts that lie outside: {parts!r:.300}")
        return [(part, data[part.offset : part.offset + part.length]) for part in parts]
