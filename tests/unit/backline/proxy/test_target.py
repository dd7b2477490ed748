"""Whatever a client writes into the path, what comes of it is a path of the backend, or a refusal."""

from __future__ import annotations

import urllib.parse

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.errors import BadRequest
from backline.proxy.target import backend_target

MOUNT = b"/p/directAccess"


def target(rest: bytes, query: bytes = b"", base_path: bytes = b"") -> bytes:
    return backend_target(MOUNT + rest, query, mount=MOUNT, base_path=base_path)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (b"", b"/"),
        (b"/", b"/"),
        (b"/v1/models", b"/v1/models"),
        (b"/v1/models/", b"/v1/models/"),
        (b"/a//b", b"/a//b"),
        (b"/a%2Fb", b"/a%2Fb"),
        (b"/...", b"/..."),
        (b"/a..b/.c", b"/a..b/.c"),
        (b"/%252e%252e/", b"/%252e%252e/"),
        (b"//other.example/x", b"/other.example/x"),
        (b"///other.example/x", b"/other.example/x"),
        (b"/http://other.example/x", b"/http://other.example/x"),
        (b"/user:pw@other.example/", b"/user:pw@other.example/"),
        (b"/@other.example", b"/@other.example"),
        (b"/:80/x", b"/:80/x"),
    ],
)
def test_what_comes_after_the_mount_stays_as_it_is(rest: bytes, expected: bytes) -> None:
    assert target(rest) == expected
    assert target(rest, b"a=1&b=%zz?") == expected + b"?a=1&b=%zz?"
    assert target(rest, base_path=b"/team") == b"/team" + expected


@pytest.mark.parametrize(
    "rest",
    [
        b"/..", b"/../x", b"/a/../../x", b"/.", b"/./x", b"/a/.", b"/a/..", b"/%2e%2e/x", b"/%2E./x", b"/.%2e/x",
        b"/..%2fx", b"/a%2f..%2fx", b"/a/%2e", b"/..;x=1/y", b"/%2e%2e;/y", b"/..%5cx", b"/a%5c..%5cx", b"//..",
        b"/..\\x", b"/\\other.example", b"\\other.example", b"/a\\b", b"/a%0d%0aHost:x", b"/a%0Ab", b"/%00", b"/a%7f",
        b"/a b", b"/a\r\nHost: x", b"/a\nb", b"/\x00", b"/\xc3\xa4", b"/a#b", b"/a?b",
    ],
)  # fmt: skip
def test_what_a_backend_could_read_in_another_way_is_refused(rest: bytes) -> None:
    with pytest.raises(BadRequest, match="path"):
        target(rest)


@pytest.mark.parametrize("query", [b"a b", b"a\r\nX: y", b"a#b", b"\xff", b"\x00"])
def test_a_query_that_would_end_the_line_is_refused(query: bytes) -> None:
    with pytest.raises(BadRequest, match="query"):
        target(b"/x", query)


def test_the_mount_has_to_be_written_as_it_is() -> None:
    with pytest.raises(BadRequest, match="/p/directAccess"):
        backend_target(b"/p/direct%41ccess/x", b"", mount=MOUNT, base_path=b"")


@given(st.binary(max_size=40), st.binary(max_size=10))
def test_any_bytes_give_a_target_on_this_backend_or_a_refusal(rest: bytes, query: bytes) -> None:
    try:
        line = target(b"/" + rest, query, base_path=b"/team")
    except BadRequest:
        return
    assert line.startswith(b"/team/")
    assert not line.startswith(b"/team//")
    assert all(0x21 <= byte < 0x7F for byte in line)
    parsed = httptools.parse_url(line)
    assert not any((parsed.schema, parsed.host, parsed.userinfo))
    decoded = urllib.parse.unquote_to_bytes(parsed.path).replace(b"\\", b"/")
    assert not {b".", b".."} & set(decoded.split(b"/"))
