"""Every request of a corpus, sent to the backend directly and through the proxy, gives the same on both sides.

The backend must see the same request and the client the same answer, but for what belongs to one connection (RFC 9110
section 7.6.1), what says where a request came from, and what the notes at ``same_request`` and ``same_answer`` name.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.raw_http import HOP_BY_HOP, Answer, Backend, Headers, Peer, Request, exchange, running_backend
from tests.serving import ServeFixture

pytestmark = pytest.mark.slow

CLIENTS = ("http1", "aiohttp", "httpx2", "httpx")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
ADDED = {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"via"}
BINARY = bytes(range(256))
ZIPPED = gzip.compress(b"hello " * 1000, mtime=0)


@dataclass(frozen=True)
class Case:
    """One exchange. ``answer`` is sent in these pieces; ``closes``: the connection ends with it."""

    name: str
    method: bytes = b"GET"
    target: bytes = b"/v1/x"
    headers: tuple[bytes, ...] = ()
    body: bytes = b""
    answer: tuple[bytes, ...] = (OK,)
    closes: bool = False


def request(name: str, **more: object) -> Case:
    return Case(f"request {name}", **more)  # type: ignore[arg-type]


def answer(name: str, *pieces: bytes, closes: bool = False, **more: object) -> Case:
    return Case(f"answer {name}", answer=pieces, closes=closes, **more)  # type: ignore[arg-type]


def chunked(*chunks: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


def lengthy(body: bytes) -> tuple[bytes, ...]:
    return (b"Content-Length: %d" % len(body),)


METHODS = (
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "PROPPATCH", "MKCOL", "COPY",
    "MOVE", "LOCK", "UNLOCK", "SEARCH", "REPORT", "PURGE", "LINK", "UNLINK", "MERGE", "NOTIFY", "SUBSCRIBE",
)  # fmt: skip
PATHS = (
    b"/", b"/v1/", b"/a//b", b"/a///", b"/a%2Fb", b"/a%2fb", b"/%E2%82%AC", b"/%e2%82%ac", b"/a;b=c", b"/a:b@c",
    b"/user:pw@host/", b"/~x/_-.!$&'()*+,;=", b"/a%20b", b"/a+b", b"/.hidden", b"/a..b", b"/...", b"/a/.../b", b"/a./b",
    b"/%zz", b"/100%", b"/a%3Fb%23c", b"/[1]", b"/{a}|b^c`d", b'/"q"<t>', b"/%252e%252e/x", b"/%80%ff",
    b"/http://other.example/x", b"/" + b"long/" * 800, b"/a%5Cb", b"/models/llama-3.1:8b", b"/x.json",
)  # fmt: skip
QUERIES = (
    b"a=1", b"a=1&a=2&b", b"?", b"a=?&b=/", b"=&&=", b"a=%zz", b"a=%0a%0d", b"[]{}|^`", b'"<>\\', b"a=b;c=d",
    b"a+b=c+d", b"%", b"q=" + b"x" * 6000, b"u=http://other.example/?x", b"a=%E2%82%AC", b"a=../..", b"@", b"a=b,c:d",
)  # fmt: skip
HEADERS: dict[str, tuple[bytes, ...]] = {
    "a header twice": (b"X-A: 1", b"X-A: 2", b"X-B: 3", b"X-A: 1"),
    "cookies": (b"Cookie: a=1; b=2", b"Cookie: c=\"3\""),
    "an empty value": (b"X-Empty:", b"X-After: 1"),
    "blanks around a value": (b"X-A: \t a  b \t ",),
    "a tab in a value": (b"X-A: a\tb",),
    "UTF-8": ("X-A: Grüße, €".encode(),),
    "a long value": (b"X-A: " + b"v" * 16_000,),
    "many headers": tuple(b"X-%d: %d" % (number, number) for number in range(200)),
    "all characters of a name": (b"X!#$%&'*+-.^_`|~9: 1",),
    "all characters of a value": (b"X-A: " + bytes(range(0x21, 0x7F)),),
    "what a browser sends": (
        b"User-Agent: Mozilla/5.0 (X11)", b"Accept: text/html, */*;q=0.8", b"Accept-Encoding: gzip, br",
        b"Accept-Language: de", b"Referer: http://other.example/", b"Origin: http://other.example", b"DNT: 1",
    ),
    "an API key": (b"Authorization: Bearer sk-123", b"api-key: 1"),
    "a trace": (
        b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"tracestate: a=1,b=2",
        b"baggage: x=1",
    ),
    "a request id": (b"X-Request-ID: ours-1",),
    "a range": (b"Range: bytes=0-1", b"If-Range: \"x\""),
    "conditions": (b"If-None-Match: \"x\", W/\"y\"", b"If-Modified-Since: Sat, 29 Oct 1994 19:43:31 GMT"),
    "a connection that is kept": (b"Connection: keep-alive", b"Keep-Alive: timeout=5"),
    "a connection that ends": (b"Connection: close",),
    "max-forwards": (b"Max-Forwards: 3", b"Cache-Control: no-cache", b"Pragma: no-cache"),
    "an overridden method": (b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /other", b"X-Rewrite-URL: /other"),
}  # fmt: skip
BODIES: dict[str, tuple[bytes, tuple[bytes, ...], bytes]] = {
    "nothing, said": (b"POST", (b"Content-Length: 0",), b""),
    "JSON": (b"POST", (b"Content-Type: application/json", b"Content-Length: 7"), b'{"a":1}'),
    "no content type": (b"POST", lengthy(BINARY), BINARY),
    "all bytes": (b"PUT", (b"Content-Type: application/octet-stream", *lengthy(BINARY)), BINARY),
    "a megabyte": (b"POST", lengthy(BINARY * 4096), BINARY * 4096),
    "one chunk": (b"POST", (b"Transfer-Encoding: chunked",), chunked(b"hello")),
    "many chunks": (b"POST", (b"Transfer-Encoding: chunked",), chunked(*[b"%d" % n for n in range(500)])),
    "a megabyte in chunks": (b"PUT", (b"Transfer-Encoding: chunked",), chunked(*[BINARY * 64] * 64)),
    "no chunk": (b"POST", (b"Transfer-Encoding: chunked",), chunked()),
    "chunk extensions": (b"POST", (b"Transfer-Encoding: Chunked",), b'5;a=1;b="2"\r\nhello\r\n0;x\r\n\r\n'),
    "trailers": (b"POST", (b"Transfer-Encoding: chunked", b"Trailer: X-T"), b"5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n"),
    "gzip": (b"POST", (b"Content-Encoding: gzip", *lengthy(ZIPPED)), ZIPPED),
    "in a GET": (b"GET", lengthy(b"hello"), b"hello"),
    "in a DELETE": (b"DELETE", lengthy(b"hello"), b"hello"),
    "multipart": (
        b"POST", (b"Content-Type: multipart/form-data; boundary=b", *lengthy(b"--b\r\n\r\nx\r\n--b--")),
        b"--b\r\n\r\nx\r\n--b--",
    ),
    "a form": (b"POST", (b"Content-Type: application/x-www-form-urlencoded", *lengthy(b"a=1&b=%20")), b"a=1&b=%20"),
    "one that waits for 100": (b"POST", (b"Expect: 100-continue", *lengthy(b"hello")), b"hello"),
}  # fmt: skip
STATUSES = (
    200, 201, 202, 203, 206, 207, 208, 226, 299, 300, 301, 302, 303, 305, 307, 308, 400, 401, 402, 403, 404, 405, 406,
    407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 470,
    499, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511, 513, 599,
)  # fmt: skip
FRAMINGS: dict[str, tuple[tuple[bytes, ...], bool]] = {
    "an empty body": ((b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",), False),
    "a body to the end of the connection": ((b"HTTP/1.1 200 OK\r\n\r\nto the end",), True),
    "nothing to the end of the connection": ((b"HTTP/1.1 200 OK\r\n\r\n",), True),
    "Connection: close and a length": ((b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",), True),
    "HTTP/1.0": ((b"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nold",), True),
    "HTTP/1.0 and a length": ((b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nold",), True),
    "HTTP/1.0 kept alive": ((b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\nold",), False),
    "one chunk": ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(b"hello"),), False),
    "many chunks": (
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", *[b"3\r\nabc\r\n"] * 200, b"0\r\n\r\n"), False,
    ),
    "no chunk": ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",), False),
    "chunk extensions": ((b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\n\r\n",), False),
    "capital hex and zeros": (
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n00A\r\n0123456789\r\n0\r\n\r\n",), False,
    ),
    "trailers": (
        (b"HTTP/1.1 200 OK\r\nTrailer: T\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nT: 1\r\n\r\n",), False,
    ),
    "chunks cut anywhere": (
        (b"HTTP/1.1 200 OK\r\nTransfer-Enc", b"oding: chunked\r\n\r", b"\n5\r", b"\nhel", b"lo", b"\r\n0\r\n\r", b"\n"),
        False,
    ),
    "byte by byte": (tuple(OK[at : at + 1] for at in range(len(OK))), False),
    "a megabyte": ((b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n", *[BINARY * 64] * 64), False),
    "a megabyte in chunks": (
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", chunked(*[BINARY * 64] * 64)), False,
    ),
    "100 before it": ((b"HTTP/1.1 100 Continue\r\n\r\n" + OK,), False),
    "102 and 103 before it": (
        (b"HTTP/1.1 102 Processing\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK), False,
    ),
    "204": ((b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",), False),
    "205": ((b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",), False),
    "304": ((b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",), False),
    "304 with a length": ((b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",), False),
    "a server-sent stream": (
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            *[b"a\r\ndata: {}\n\n\r\n"] * 20, b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n",
        ), False,
    ),
}  # fmt: skip
ANSWER_HEADERS: dict[str, tuple[bytes, ...]] = {
    "cookies": (b"Set-Cookie: a=1; Path=/; HttpOnly", b"Set-Cookie: b=2; Expires=Sat, 29 Oct 1994 19:43:31 GMT"),
    "an empty value": (b"X-Empty:", b"X-After: 1"),
    "a header twice": (b"X-A: 1", b"X-A: 2", b"x-a: 1"),
    "UTF-8": ("X-A: Grüße, €".encode(),),
    "Latin-1": ("X-A: Grüße".encode("latin-1"),),
    "a long value": (b"X-A: " + b"v" * 16_000,),
    "many headers": tuple(b"X-%d: %d" % (number, number) for number in range(300)),
    "all characters of a name": (b"X!#$%&'*+-.^_`|~9: 1",),
    "blanks around a value": (b"X-A: \t a  b \t ",),
    "its own date and server": (b"Date: Sat, 29 Oct 1994 19:43:31 GMT", b"Server: nim/1.0"),
    "what OpenAI sends": (b"x-request-id: req_1", b"openai-processing-ms: 12", b"x-ratelimit-remaining-requests: 9"),
    "two challenges": (b"WWW-Authenticate: Basic realm=\"a, b\"", b"WWW-Authenticate: Bearer"),
    "an offer to upgrade": (b"Connection: Upgrade", b"Upgrade: h2c"),
    "a named hop-by-hop header": (b"Connection: X-Hop", b"X-A: 1"),
    "keep-alive": (b"Connection: keep-alive", b"Keep-Alive: timeout=5, max=100"),
    "a link and a policy": (b"Link: </a>; rel=preload", b"Content-Security-Policy: default-src 'self'"),
    "caching": (b"Cache-Control: max-age=5", b"Age: 3", b"Vary: Accept, Origin", b"ETag: W/\"1\"", b"Expires: 0"),
    "via": (b"Via: 1.1 other", b"X-Forwarded-For: 10.0.0.1"),
    "cross-origin": (b"Access-Control-Allow-Origin: *", b"Access-Control-Expose-Headers: x"),
    "a file": (b"Content-Disposition: attachment; filename=\"a.txt\"", b"Accept-Ranges: bytes"),
    "a language and a type": (b"Content-Language: de", b"Content-Type: text/html; charset=\"utf-8\""),
}  # fmt: skip


def cases() -> Iterator[Case]:
    for method in METHODS:
        whole = OK.removesuffix(b"ok") if method == "HEAD" else OK
        yield request(f"method {method}", method=method.encode(), answer=(whole,))
    for path in PATHS:
        yield request(f"path {path[:40]!r}", target=path)
    for query in QUERIES:
        yield request(f"query {query[:40]!r}", target=b"/v1/x?" + query)
    for name, headers in HEADERS.items():
        yield request(f"with {name}", headers=headers)
    for name, (verb, headers, body) in BODIES.items():
        yield request(f"body: {name}", method=verb, headers=headers, body=body)
    for status in STATUSES:
        head = b"HTTP/1.1 %d Some Reason\r\nLocation: http://other.example/\r\nContent-Length: 5\r\n\r\nhello" % status
        yield answer(f"status {status}", head)
    for reason in (b"", b" ", b" OK", b" \xc3\xa4", b" a\tb: c"):
        yield answer(f"reason {reason!r}", b"HTTP/1.1 200%b\r\nContent-Length: 2\r\n\r\nok" % reason)
    for name, (pieces, closes) in FRAMINGS.items():
        yield answer(name, *pieces, closes=closes)
    for name, headers in ANSWER_HEADERS.items():
        lines = b"".join(header + b"\r\n" for header in headers)
        yield answer(f"with {name}", b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 2\r\n\r\nok")
    zipped = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(ZIPPED) + ZIPPED
    for coding in (b"gzip", b"br", b"zstd", b"deflate"):  # and what is none: it is not for us to look
        yield answer(f"coded as {coding!r}", zipped.replace(b"gzip", coding), headers=(b"Accept-Encoding: " + coding,))
    for name, head in {
        "a length": b"Content-Length: 12345\r\n", "chunked": b"Transfer-Encoding: chunked\r\n", "neither": b"",
    }.items():  # fmt: skip
        yield answer(f"to HEAD with {name}", b"HTTP/1.1 200 OK\r\n" + head + b"\r\n", method=b"HEAD")
    yield answer("to HEAD, 404", b"HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\n", method=b"HEAD")
    for status in (200, 404, 500):
        body = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nno" % status
        yield answer(f"{status} to an upload", body, method=b"POST", headers=lengthy(BINARY), body=BINARY)


CASES = list(cases())


def behave(peer: Peer, request: Request) -> None:
    case = CASES[int(dict(request.headers)[b"x-case"])]
    if b"expect" in dict(request.headers):
        peer.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    peer.read_body(request)
    for piece in case.answer:
        peer.sock.sendall(piece)
    if case.closes:
        raise EOFError


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running_backend(behave) as running:
        yield running


@pytest.fixture(scope="module", params=CLIENTS)
def front(request: pytest.FixtureRequest, serve_for_module: ServeFixture, backend: Backend) -> str:
    server = serve_for_module(
        None, "--backend", backend.url, "--backend-client", request.param, "--backend-ready-path", "/ready"
    )
    return server.url + "/directAccess"


def ask(url: str, prefix: bytes, case: Case) -> Answer:
    number = CASES.index(case)
    lines = [
        b"%b %b%b HTTP/1.1" % (case.method, prefix, case.target), b"Host: front.example", b"X-Case: %d" % number,
        *case.headers, b"", case.body,
    ]  # fmt: skip
    return exchange(url, b"\r\n".join(lines), case.method)


def same_request(request: Request) -> tuple[bytes, bytes, list[tuple[bytes, bytes]], bytes]:
    """Expect is answered by our own server; a body whose end is known gets a length, and one of nothing may get one."""
    ours = HOP_BY_HOP | ADDED | {b"host", b"expect", b"content-length"}
    return request.method, request.target, sorted(each for each in request.headers if each[0] not in ours), request.body


def same_answer(answer: Answer, named: set[bytes]) -> tuple[int, Headers, bytes, bool]:
    """Our own server cannot send a length with 304, and none of the 1xx."""
    dropped = HOP_BY_HOP | named | ({b"content-length"} if answer.status == 304 else set())
    return answer.status, [each for each in answer.headers if each[0] not in dropped], answer.body, answer.complete


def test_the_corpus_is_large_and_its_cases_have_names() -> None:
    assert len(CASES) >= 200
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_direct_and_through_the_proxy_are_the_same(front: str, backend: Backend, case: Case) -> None:
    direct = ask(backend.url, b"", case)
    seen_direct = backend.requests.pop()
    through = ask(front, b"/directAccess", case)
    seen_through = backend.requests.pop()
    assert same_request(seen_through) == same_request(seen_direct)
    lengths = [value for name, value in seen_through.headers if name == b"content-length"]
    assert lengths in ([], [b"%d" % len(seen_through.body)])
    named = {token.strip().lower() for value in direct.all(b"connection") for token in value.split(b",")}
    expected, found = same_answer(direct, named), same_answer(through, named)
    if not direct.all(b"date"):
        assert len(through.all(b"date")) == 1, "RFC 9110 section 6.6.1"
        found = (found[0], [each for each in found[1] if each[0] != b"date"], *found[2:])
    assert sorted(found[1]) == sorted(expected[1])
    assert [found[0], *found[2:]] == [expected[0], *expected[2:]]
    for name in {name for name, _ in expected[1]}:  # the order among headers of one name
        assert [each for each in found[1] if each[0] == name] == [each for each in expected[1] if each[0] == name]
