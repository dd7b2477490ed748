"""Which headers cross the proxy, and what is added on the way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.errors import BackendBroken, BadRequest
from backline.proxy.headers import request_headers, response_headers

HeaderList = list[tuple[bytes, bytes]]
HOST = (b"host", b"front.example:8080")
ADDED = {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"via"}


def passed(*headers: tuple[bytes, bytes], client: str | None = "10.0.0.9", scheme: bytes = b"http") -> HeaderList:
    return request_headers([HOST, *headers], authority=b"backend:8000", client=client, scheme=scheme)


def own(headers: HeaderList) -> HeaderList:
    return [header for header in headers if header[0] not in ADDED]


def test_the_host_is_the_backends_and_comes_first() -> None:
    assert passed()[0] == (b"host", b"backend:8000")
    assert [value for name, value in passed() if name == b"host"] == [b"backend:8000"]


def test_hop_by_hop_headers_stay_and_those_that_connection_names() -> None:
    headers = [
        (b"connection", b"keep-alive, X-Hop"), (b"connection", b"x-other,,"), (b"x-hop", b"1"), (b"x-other", b"2"),
        (b"keep-alive", b"timeout=5"), (b"te", b"trailers"), (b"trailer", b"x"), (b"upgrade", b"h2c"),
        (b"http2-settings", b"AAA"), (b"proxy-authorization", b"Basic x"), (b"proxy-connection", b"close"),
        (b"expect", b"100-continue"), (b"x-end-to-end", b"3"), (b"authorization", b"Bearer x"),
    ]  # fmt: skip
    assert own(passed(*headers))[1:] == [(b"x-end-to-end", b"3"), (b"authorization", b"Bearer x")]


def test_connection_cannot_take_the_length_or_the_host_away() -> None:
    headers = passed((b"connection", b"content-length, host, transfer-encoding"), (b"content-length", b"3"))
    assert own(headers) == [(b"host", b"backend:8000"), (b"content-length", b"3")]


def test_connection_takes_a_forged_origin_away_and_ours_is_there() -> None:
    headers = dict(passed((b"x-forwarded-for", b"1.1.1.1"), (b"connection", b"x-forwarded-for")))
    assert headers[b"x-forwarded-for"] == b"10.0.0.9"


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ([(b"content-length", b"3"), (b"content-length", b"3")], "content-length is there twice"),
        ([(b"transfer-encoding", b"chunked"), (b"transfer-encoding", b"chunked")], "transfer-encoding is there twice"),
        ([(b"content-length", b"3"), (b"transfer-encoding", b"chunked")], "both"),
        ([(b"transfer-encoding", b"gzip, chunked")], "only chunked"),
        ([(b"transfer-encoding", b"xchunked")], "only chunked"),
        ([(b"content-length", b"+3")], "no number"),
        ([(b"content-length", b"3, 3")], "no number"),
        ([(b"content-length", b"-1")], "no number"),
        ([(b"content-length", b"")], "no number"),
        ([(b"content-length", b"9" * 30)], "no number"),
        ([(b"host", b"other")], "host is there twice"),
    ],
)
def test_a_length_that_can_be_read_in_two_ways_is_refused(headers: HeaderList, words: str) -> None:
    with pytest.raises(BadRequest, match=words):
        passed(*headers)


def test_the_origin_is_told() -> None:
    headers = dict(passed())
    assert headers[b"x-forwarded-for"] == b"10.0.0.9"
    assert headers[b"x-forwarded-host"] == b"front.example:8080"
    assert headers[b"x-forwarded-proto"] == b"http"
    assert headers[b"forwarded"] == b'for=10.0.0.9;host="front.example:8080";proto=http'
    assert headers[b"via"] == b"1.1 backline"


def test_what_other_proxies_told_is_kept_and_added_to() -> None:
    headers = dict(
        passed(
            (b"x-forwarded-for", b"1.1.1.1"), (b"x-forwarded-for", b"2.2.2.2"), (b"x-forwarded-host", b"public"),
            (b"x-forwarded-proto", b"https"), (b"forwarded", b"for=1.1.1.1"), (b"via", b"2 edge"), client="2001:db8::1",
        )
    )  # fmt: skip
    assert headers[b"x-forwarded-for"] == b"1.1.1.1, 2.2.2.2, 2001:db8::1"
    assert headers[b"x-forwarded-host"] == b"public"
    assert headers[b"x-forwarded-proto"] == b"https"
    assert headers[b"forwarded"].startswith(b'for=1.1.1.1, for="[2001:db8::1]";')
    assert headers[b"via"] == b"2 edge, 1.1 backline"


def test_a_host_with_quotes_cannot_break_out_of_forwarded() -> None:
    headers = dict(request_headers([(b"host", b'a";for=evil\\')], authority=b"b", client=None, scheme=b"http"))
    assert headers[b"forwarded"] == b'for=unknown;host="a\\";for=evil\\\\";proto=http'


def test_traces_keys_and_cookies_pass_in_order() -> None:
    headers = [(b"cookie", b"a=1"), (b"traceparent", b"00-1-2-01"), (b"cookie", b"b=2"), (b"accept-encoding", b"br")]
    assert own(passed(*headers))[1:] == headers


TOKENS = st.text("abcdefghij-", min_size=1).map(str.encode)


@given(st.lists(st.tuples(TOKENS, st.binary(max_size=5))))
def test_end_to_end_headers_pass_as_they_are(headers: HeaderList) -> None:
    assert own(passed(*headers))[1:] == [header for header in headers if header[0] != b"te"]


def test_answers_lose_their_hop_by_hop_headers_only() -> None:
    headers = [
        (b"Connection", b"X-Hop, close"), (b"X-Hop", b"1"), (b"Transfer-Encoding", b"chunked"), (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2"), (b"Date", b"x"), (b"Keep-Alive", b"max=1"),
    ]  # fmt: skip
    assert response_headers(headers, 200) == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"date", b"x")]


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_without_a_body_has_no_length(status: int) -> None:
    assert response_headers([(b"Content-Length", b"5"), (b"ETag", b"x")], status) == [(b"etag", b"x")]


@pytest.mark.parametrize(
    "header",
    [(b"X-A", b"a\r\nX-B: c"), (b"X-A", b"\x00"), (b"X A", b"1"), (b"X-A:", b"1"), (b"", b"1"), (b"X", b"\x7f")],
)
def test_a_header_that_no_header_may_be_is_the_backends_fault(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(BackendBroken):
        response_headers([(b"X-Good", b"1"), header], 200)


def test_an_answer_coded_in_a_way_that_belongs_to_the_connection_is_refused() -> None:
    with pytest.raises(BackendBroken, match="Transfer-Encoding"):
        response_headers([(b"Transfer-Encoding", b"gzip, chunked")], 200)
