"""The multipart reader: what it takes, what it refuses and with which words, however the body is cut into pieces."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backline.api.multipart import MultipartReader, PartRecord, boundary_of
from backline.errors import MalformedMultipart
from backline.runtime.payload import PayloadDirectory

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

BOUNDARY = b"bnd-42"
X = b'Content-Disposition: form-data; name="X"'


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PayloadDirectory]:
    directory = PayloadDirectory(str(tmp_path_factory.mktemp("payloads")))
    yield directory
    directory.close()


def encode(parts: Sequence[tuple[bytes, bytes]], boundary: bytes = BOUNDARY) -> bytes:
    """Return the body with parts of (header lines, content)."""
    body = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary, headers, content) for headers, content in parts)
    return body + b"--%s--\r\n" % boundary


def read(
    directory: PayloadDirectory,
    pieces: Iterable[bytes],
    *,
    boundary: bytes = BOUNDARY,
    max_parts: int = 32,
    max_part_headers: int = 16 << 10,
) -> list[tuple[PartRecord, bytes]]:
    """Return each part with its content."""
    sink = directory.sink()
    reader = MultipartReader(boundary, sink, max_parts=max_parts, max_part_headers=max_part_headers)
    try:
        for piece in pieces:
            reader.feed(piece)
        parts = reader.finish()
        payload = sink.finish()
    except MalformedMultipart:
        sink.abort()
        raise
    if payload.data is None:
        assert payload.path is not None
        with open(payload.path, "rb") as file:
            content = file.read()
    else:
        content = payload.data
    payload.close()
    assert sum(part.length for part in parts) == len(content), "the payload is the contents and nothing else"
    return [(part, content[part.offset : part.offset + part.length]) for part in parts]


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


CURL = (
    b"--------------------------d74496d66958873e\r\n"
    b'Content-Disposition: form-data; name="X"; filename="data.csv"\r\n'
    b"Content-Type: text/csv\r\n\r\n"
    b"a,b\n1,2\n\r\n"
    b"--------------------------d74496d66958873e--\r\n"
)


def test_what_curl_sends(directory: PayloadDirectory) -> None:
    [(part, content)] = read(directory, [CURL], boundary=b"------------------------d74496d66958873e")
    assert part == PartRecord("X", "text/csv", "data.csv", 0, 8)
    assert content == b"a,b\n1,2\n"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 17, 64])
def test_pieces_of_any_size_give_the_same_parts(directory: PayloadDirectory, size: int) -> None:
    parts = [(X + b"\r\nContent-Type: text/csv; charset=utf-8", b"a\r\n--bnd-4\r\n--bnd-4x\r\n"), (X[:-2] + b'y"', b"")]
    expected = [
        (PartRecord("X", "text/csv; charset=utf-8", None, 0, 22), b"a\r\n--bnd-4\r\n--bnd-4x\r\n"),
        (PartRecord("y", "", None, 22, 0), b""),
    ]
    assert read(directory, cut(encode(parts), size)) == expected


contents = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--bnd-4", b"bnd-42", b"\r\n--bnd-42!", b"\r\n--bnd-42-x", b"a"]),
    max_size=12,
).map(b"".join)


@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "ü", 'q"q']), contents | st.binary()), max_size=5), st.integers(1, 99)
)
@example([("a", b"\r\n--bnd-42"[:-1])], 4)
def test_contents_come_back_whatever_is_in_them(
    directory: PayloadDirectory, parts: list[tuple[str, bytes]], size: int
) -> None:
    for _name, content in parts:
        lines = b"\r\n" + content + b"\r\n"
        if content.startswith(b"--bnd-42") or any(
            b"\r\n--bnd-42" + end in lines for end in (b"\r\n", b"--", b" ", b"\t")
        ):
            return  # then the client had to choose another boundary
    quoted = [(name.replace('"', '\\"').encode(), content) for name, content in parts]
    body = encode([(b'Content-Disposition: form-data; name="%s"' % name, content) for name, content in quoted])
    found = read(directory, cut(body, size))
    assert [(part.name, content) for part, content in found] == parts


@given(st.binary(max_size=200) | contents, st.integers(1, 50), st.booleans())
def test_noise_is_read_or_refused_and_never_crashes(
    directory: PayloadDirectory, noise: bytes, size: int, inside: bool
) -> None:
    body = encode([(X, noise)]) if inside else b"--bnd-42\r\n" + noise
    outcomes: set[object] = set()
    for pieces in ([body], cut(body, size)):
        try:
            outcomes.add(tuple(read(directory, pieces)))
        except MalformedMultipart as exc:
            outcomes.add("refused" if len(exc.message) < 1000 else "refused at too great a length")
    assert len(outcomes) == 1, "the cutting into pieces changes the outcome"
    assert "refused at too great a length" not in outcomes


def test_a_large_part_goes_to_a_file(directory: PayloadDirectory) -> None:
    content = bytes(range(256)) * 8192
    [(part, found)] = read(directory, cut(encode([(X, content)]), 65536))
    assert part.length == len(content)
    assert found == content


@pytest.mark.parametrize(
    ("header", "name", "filename"),
    [
        (b"form-data; name=X", "X", None),
        (b'FORM-DATA; NAME="X"; Filename=data.csv', "X", "data.csv"),
        (b'form-data ; filename="a; name=y.csv" ; name="X"', "X", "a; name=y.csv"),
        (b'form-data; name="X"; filename="say \\"hi\\".csv"', "X", 'say "hi".csv'),
        (b'form-data; name="X"; filename="C:\\data\\new.csv"', "X", "C:\\data\\new.csv"),
        ('form-data; name="X"; filename="größe.csv"'.encode(), "X", "größe.csv"),
        (b'form-data; name="X"; filename="gr\xf6\xdfe.csv"', "X", "größe.csv"),
        (b"form-data; name=\"X\"; filename*=UTF-8''gr%C3%B6%C3%9Fe.csv", "X", "größe.csv"),
        (b'form-data; name="X"; filename="a.csv"; filename*=utf-8\'en\'b.mtx', "X", "a.csv"),
        (b"form-data; name*=utf-8''%58", "X", None),
        (b'form-data; name="X"; filename="";', "X", ""),
    ],
)
def test_names_and_file_names(directory: PayloadDirectory, header: bytes, name: str, filename: str | None) -> None:
    [(part, _)] = read(directory, [encode([(b"Content-Disposition: " + header, b"1")])])
    assert (part.name, part.filename) == (name, filename)


@pytest.mark.parametrize("before", [b"\r\n", b"\r\n\r\n", b""])
@pytest.mark.parametrize("after", [b"", b"\r\n", b"  \r\n", b"\n"])
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_line_ends_around_the_parts_are_taken(
    directory: PayloadDirectory, before: bytes, after: bytes, size: int
) -> None:
    body = before + encode([(X, b"1")]).rstrip() + after
    assert [content for _, content in read(directory, cut(body, size))] == [b"1"]


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_no_parts_at_all_is_for_the_worker_to_judge(directory: PayloadDirectory, size: int) -> None:
    assert read(directory, cut(b"--bnd-42--\r\n", size)) == []


def test_repeated_names_other_than_x_are_all_kept(directory: PayloadDirectory) -> None:
    other = b'Content-Disposition: form-data; name="y"'
    found = read(directory, [encode([(other, b"1"), (X, b"2"), (other, b"3")])])
    assert [(part.name, content) for part, content in found] == [("y", b"1"), ("X", b"2"), ("y", b"3")]


REFUSED = {
    "garbage before the first delimiter": (b"hello\r\n" + encode([(X, b"1")]), "starts with b'h"),
    "garbage after a line end before the first": (b"\r\nhello\r\n" + encode([(X, b"1")]), "starts with b'h"),
    "another boundary than announced": (encode([(X, b"1")], b"other"), "has to be the one used in the body"),
    "garbage after the closing delimiter": (encode([(X, b"1")]) + b"more", "goes on after its closing delimiter"),
    "a second body after the first": (encode([(X, b"1")]) * 2, "goes on after its closing delimiter"),
    "garbage after no parts": (b"--bnd-42--\r\nx", "goes on after its closing delimiter"),
    "cut off before anything": (b"--bnd", "ends before its first part"),
    "cut off in the headers": (b"--bnd-42\r\nContent-Dis", "ends in the headers of part 1"),
    "cut off in a content": (encode([(X, b"1")])[:-14], r"ends in the content of part 1 \('X'\)"),
    "cut off in the closing delimiter": (encode([(X, b"1")])[:-3], r"ends in the content of part 1 \('X'\)"),
    "an empty content without its line": (b"--bnd-42\r\n" + X + b"\r\n\r\n--bnd-42--", "starts with the boundary"),
    "a delimiter at once in a content": (encode([(X, b"--bnd-42--")]), "starts with the boundary"),
    "two parts named X": (encode([(X, b"1"), (X, b"2")]), "second one named 'X'"),
    "no headers": (b"--bnd-42\r\n\r\n1\r\n--bnd-42--", "needs the header Content-Disposition"),
    "no name": (encode([(b"Content-Disposition: form-data", b"1")]), "part 1 of the multipart body has no name"),
    "not form-data": (encode([(b'Content-Disposition: file; name="X"', b"1")]), "and has 'file"),
    "name twice": (encode([(X + b"; name=y", b"1")]), "gives 'name' twice"),
    "unclosed quote": (encode([(X[:-1], b"1")]), "cannot be read at"),
    "name too long": (encode([(X[:-1] + b"X" * 300 + b'"', b"1")]), "301 characters"),
    "bad encoded name": (encode([(b"Content-Disposition: form-data; name*=utf-8''%FF", b"1")]), "cannot be read"),
    "base64": (encode([(X + b"\r\nContent-Transfer-Encoding: base64", b"MQ==")]), "base64"),
    "a header without a colon": (encode([(X + b"\r\nnonsense", b"1")]), "malformed in the headers of part 1"),
    "a folded header": (encode([(X + b"\r\n ; filename=x", b"1")]), "malformed in the headers of part 1"),
    "a bare line feed": (b"--bnd-42\n" + X + b"\n\n1\n--bnd-42--\n", "malformed at a delimiter"),
    "too many headers": (encode([(X + b"\r\nA: b" * 40, b"1")]), "header count"),
    "a delimiter as header": (
        b"--bnd-42\r\n--bnd-42--: x\r\n" + X + b"\r\n\r\n1\r\n--bnd-42--",
        "delimiter in its headers",
    ),
}


@pytest.mark.parametrize("size", [1, 13, 100_000])
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said(directory: PayloadDirectory, case: str, size: int) -> None:
    body, message = REFUSED[case]
    with pytest.raises(MalformedMultipart, match=message):
        read(directory, cut(body, size))


def test_refusals_write_no_log(directory: PayloadDirectory, caplog: pytest.LogCaptureFixture) -> None:
    """The library's warnings would let any client fill the log."""
    for body, _ in REFUSED.values():
        with pytest.raises(MalformedMultipart):
            read(directory, [body])
    assert caplog.records == []


@pytest.mark.parametrize(
    "headers", [b"A: " + b"x" * 2000, b"A" * 2000 + b": x", b"A: x\r\n" * 30, b"A:" + b" " * 2000 + b"x"]
)
@pytest.mark.parametrize("size", [7, 100_000])
def test_headers_of_a_part_are_limited(directory: PayloadDirectory, headers: bytes, size: int) -> None:
    body = encode([(X + b"\r\n" + headers.strip(), b"1")])
    with pytest.raises(MalformedMultipart, match=r"over 100 bytes \(--max-part-headers\)|header count"):
        read(directory, cut(body, size), max_part_headers=100)
    assert read(directory, cut(body, size), max_part_headers=4000)


def test_endless_headers_are_refused_without_keeping_them(directory: PayloadDirectory) -> None:
    def endless() -> Iterator[bytes]:
        yield b"--bnd-42\r\nA: "
        while True:
            yield bytes(65536).replace(b"\0", b"x")

    with pytest.raises(MalformedMultipart, match="max-part-headers"):
        read(directory, endless())


def test_many_parts_are_refused_at_the_limit_and_cost_no_memory(directory: PayloadDirectory) -> None:
    taken = 0

    def pieces() -> Iterator[bytes]:
        nonlocal taken
        yield b"--bnd-42"
        for _ in range(100_000):
            taken += 1
            yield b'\r\nContent-Disposition: form-data; name="y"\r\n\r\n\r\n--bnd-42'

    tracemalloc.start()
    try:
        with pytest.raises(MalformedMultipart, match=r"more than 32 parts \(--max-parts\)"):
            read(directory, pieces())
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert taken == 33


@pytest.mark.parametrize("filler", [b"\r\n--bnd-4", b"\r\n--bnd-42x", b"\r", b"\r\n--bnd-42-", b"\n"])
def test_work_is_linear_in_the_length_of_the_body(directory: PayloadDirectory, filler: bytes) -> None:
    """Near misses of the delimiter: 16 times the body may not cost 256 times the work."""

    def seconds(length: int) -> float:
        body = encode([(X, filler * (length // len(filler)))])
        best = float("inf")
        for _ in range(3):
            start = time.thread_time()  # what others do on the machine does not count
            read(directory, cut(body, 4096))
            best = min(best, time.thread_time() - start)
        return best

    assert seconds(3_200_000) < 60 * seconds(200_000) + 0.02


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("text/csv", None),
        ("", None),
        ("multipart/mixed; boundary=b", None),
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data;charset=utf-8; Boundary="a b:c"', b"a b:c"),
        (
            "multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW;",
            b"----WebKitFormBoundary7MA4YWxkTrZu0gW",
        ),
    ],
)
def test_the_boundary_of_a_content_type(content_type: str, boundary: bytes | None) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    ("content_type", "message"),
    [
        ("multipart/form-data", "names no boundary"),
        ("multipart/form-data; boundary=", "names no boundary"),
        ('multipart/form-data; boundary=""', "names no boundary"),
        ("multipart/form-data; boundary=a; boundary=b", "gives 'boundary' twice"),
        ("multipart/form-data; boundary=" + "a" * 201, "cannot be used"),
        ('multipart/form-data; boundary="a "', "cannot be used"),
        ("multipart/form-data; boundary=gr\xf6\xdfe", "cannot be used"),
        ('multipart/form-data; boundary="a', "cannot be read"),
        ("multipart/form-data boundary=a", None),
    ],
)
def test_a_boundary_that_cannot_be_used_is_refused(content_type: str, message: str | None) -> None:
    if message is None:
        assert boundary_of(content_type) is None
        return
    with pytest.raises(MalformedMultipart, match=message):
        boundary_of(content_type)


def test_parameters_are_parsed_in_linear_time() -> None:
    start = time.thread_time()
    for text in (
        '; a="' + "\\" * 15_000,
        ";" * 15_000 + "!",
        "; " * 7_000 + '"',
        "; a" * 5_000,
        "; a=" + " " * 15_000 + '"',
    ):
        with pytest.raises(MalformedMultipart):
            boundary_of("multipart/form-data" + text)
    assert time.thread_time() - start < 1
