from __future__ import annotations

import contextlib
import gzip
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline_worker.codecs import decompress
from backline_worker.errors import DecodeError, DecompressedTooLarge, EmptyBody, RequestError, UnsupportedEncoding
from tests.unit.backline_worker.codecs.bodies import decode

TEXT = b"a,b\n1,2\n" * 1000
RAW = zlib.compressobj(wbits=-15)
RAW_TEXT = RAW.compress(TEXT) + RAW.flush()


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (TEXT, ""),
        (TEXT, "identity"),
        (gzip.compress(TEXT), "gzip"),
        (gzip.compress(TEXT), "GZip"),
        (gzip.compress(TEXT), "x-gzip"),
        (zlib.compress(TEXT), "deflate"),
        (RAW_TEXT, "deflate"),
        (gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:]), "gzip"),
        (gzip.compress(zlib.compress(TEXT)), "deflate, gzip"),
    ],
)
def test_known_encodings_are_undone(body: bytes, encoding: str) -> None:
    assert bytes(decompress(body, encoding, 1 << 20)) == TEXT
    assert bytes(decompress(memoryview(body), encoding, 1 << 20)) == TEXT


@pytest.mark.parametrize("encoding", ["br", "zstd", "compress", "gzip, br", "gzip" + ",gzip" * 5])
def test_other_encodings_are_refused(encoding: str) -> None:
    with pytest.raises(UnsupportedEncoding):
        decompress(gzip.compress(TEXT), encoding, 1 << 20)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_damaged_bodies_are_refused(encoding: str) -> None:
    whole = gzip.compress(TEXT) if encoding == "gzip" else zlib.compress(TEXT)
    for cut in range(len(whole)):
        with pytest.raises(DecodeError):
            decompress(whole[:cut], encoding, 1 << 20)
    with pytest.raises(DecodeError, match="3 bytes after its end"):
        decompress(whole + b"abc", encoding, 1 << 20)
    with pytest.raises(DecodeError):
        decompress(b"plain text", encoding, 1 << 20)


def test_a_bomb_is_refused_before_it_is_large() -> None:
    bomb = gzip.compress(bytes(200 << 20), 9)
    tracemalloc.start()
    try:
        with pytest.raises(DecompressedTooLarge, match="limit of 4194304 bytes"):
            decompress(bomb, "gzip", 4 << 20)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_many_small_members_count_together() -> None:
    with pytest.raises(DecompressedTooLarge):
        decompress(gzip.compress(bytes(1000)) * 50, "gzip", 40_000)


def test_the_limit_itself_is_allowed() -> None:
    assert len(decompress(gzip.compress(bytes(1000)), "gzip", 1000)) == 1000


@pytest.mark.parametrize(
    ("content_type", "filename"),
    [
        ("", "data.csv.gz"),
        ("", None),
        ("application/gzip", None),
        ("application/x-gzip", "data.csv.gz"),
        ("application/octet-stream", "data"),
    ],
)
def test_gzip_files_are_read_as_what_is_inside(content_type: str, filename: str | None) -> None:
    assert len(decode(gzip.compress(b"a,b\n1,2\n"), content_type, filename=filename)) == 1
    if filename != "data.csv.gz":
        assert len(decode(gzip.compress(b'[{"a": 1}]'), content_type, filename=filename)) == 1


def test_gzip_in_gzip_and_empty_gzip_are_refused() -> None:
    with pytest.raises(DecodeError, match="another gzip"):
        decode(gzip.compress(gzip.compress(b"a\n1\n")), "application/gzip")
    with pytest.raises(EmptyBody):
        decode(gzip.compress(b""), "text/csv", encoding="gzip")


@given(st.integers(0, 10_000), st.integers(0, 255), st.sampled_from(["gzip", "deflate"]))
def test_a_changed_byte_is_noticed_or_harmless(place: int, value: int, encoding: str) -> None:
    body = bytearray(gzip.compress(TEXT, mtime=0) if encoding == "gzip" else zlib.compress(TEXT))
    body[place % len(body)] = value
    with contextlib.suppress(RequestError):
        assert bytes(decompress(bytes(body), encoding, 1 << 20)) == TEXT
