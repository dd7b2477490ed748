"""Mixed traffic, each request in a trace of its own, and what the spans of it must be like."""

from __future__ import annotations

import collections
import concurrent.futures
import json
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from tests.otlp import CLIENT, ERROR, INTERNAL, SERVER, Receiver, Span
from tests.raw_http import Backend, Peer, Request

HOOKS = """
from opentelemetry import trace

tracer = trace.get_tracer("user")

def load_model(code_dir):
    return None

def score(data, model, **kwargs):
    with tracer.start_as_current_span("user work") as span:
        span.set_attribute("rows", len(data))
        if data["x"].max() > 1e6:
            raise ValueError("too large")
        out = data[["x"]] * 2
        out.columns = ["Predictions"]
        return out
"""

_CHAT = {
    "id": "chat-1",
    "object": "chat.completion",
    "model": "tiny-1",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "a secret answer"}}],
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}
_PIECE = {"id": "chat-1", "object": "chat.completion.chunk", "model": "tiny-1"}
_STREAM = [
    {**_PIECE, "choices": [{"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": "a"}}]},
    {**_PIECE, "choices": [{"index": 0, "finish_reason": None, "delta": {"content": " secret answer"}}]},
    {**_PIECE, "choices": [{"index": 0, "finish_reason": "length", "delta": {}}]},
    {**_PIECE, "choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}},
]


@dataclass(frozen=True)
class Kind:
    """One kind of request and its answer. ``user``: a span of user code belongs to it; ``backend``: it is passed on."""

    method: str
    path: str
    route: str | None
    status: int
    body: str | None = None
    user: bool = False
    backend: bool = False
    cut_off: bool = False
    content_type: str = "text/csv"


_ASK = '{"model": "tiny", "temperature": 0.5, "messages": [{"role": "user", "content": "a secret question"}]'
KINDS = {
    "predict": Kind("POST", "/predict/", "/predict", 200, "x\n1\n", user=True),
    "predict two rows": Kind("POST", "/predictions", "/predictions", 200, "x\n1\n2\n", user=True),
    "bad rows": Kind("POST", "/predict/", "/predict", 422, "y\n1\n", user=True),
    "fault": Kind("POST", "/predict/", "/predict", 500, "x\n1e9\n", user=True),
    "no model of that kind": Kind("POST", "/transform/", "/transform", 404, "x\n1\n"),
    "info": Kind("GET", "/info/", "/info", 200),
    "nowhere": Kind("GET", "/nowhere", None, 404),
    "wrong method": Kind("DELETE", "/predict/", "/predict", 405),
    "passed on": Kind("GET", "/directAccess/plain?x=1", "/directAccess/{path}", 200, backend=True),
    "passed on, streamed": Kind("POST", "/nim/stream", "/nim/{path}", 200, "{}", backend=True),
    "backend refuses": Kind("GET", "/directAccess/busy", "/directAccess/{path}", 503, backend=True),
    "backend breaks off": Kind("GET", "/directAccess/cut", "/directAccess/{path}", 200, backend=True, cut_off=True),
    "chat": Kind(
        "POST", "/v1/chat/completions", "/v1/chat/completions", 200, _ASK + "}", backend=True,
        content_type="application/json",
    ),
    "chat, streamed": Kind(
        "POST", "/v1/chat/completions", "/v1/chat/completions", 200,
        _ASK + ', "stream": true, "stream_options": {"include_usage": true}}', backend=True,
        content_type="application/json",
    ),
}  # fmt: skip


def make_model(folder: Path) -> Path:
    """Write a model folder whose hook makes spans of its own."""
    (folder / "custom.py").write_text(HOOKS)
    return folder


def behave(peer: Peer, request: Request) -> None:
    """Answer as the backend of this traffic."""
    peer.read_body(request)
    if request.target.endswith(b"/plain?x=1"):
        _answer(peer, b"200 OK", b"plain", b"text/plain")
    elif request.target.endswith(b"/busy"):
        _answer(peer, b"503 Busy", b"busy", b"text/plain")
    elif request.target.endswith(b"/cut"):
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun")
        raise EOFError
    elif b"stream" in request.target or b'"stream": true' in request.body:
        _stream(peer, [f"data: {json.dumps(piece)}\n\n".encode() for piece in _STREAM] + [b"data: [DONE]\n\n"])
    else:
        _answer(peer, b"200 OK", json.dumps(_CHAT).encode(), b"application/json")


def _answer(peer: Peer, status: bytes, body: bytes, content_type: bytes) -> None:
    head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, content_type, len(body))
    peer.sock.sendall(head + body)


def _stream(peer: Peer, pieces: list[bytes]) -> None:
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in pieces:
        peer.sock.sendall(b"%x\r\n%s\r\n" % (len(piece), piece))
        time.sleep(0.002)
    peer.sock.sendall(b"0\r\n\r\n")


@dataclass
class Sent:
    """A request that was sent, and the ids of its client's span."""

    kind: Kind
    trace_id: str
    span_id: str
    status: int


@dataclass
class Traffic:
    """The clients: ``send`` asks, ``close`` sends their own spans."""

    url: str
    receiver: Receiver
    provider: TracerProvider = field(init=False)

    def __post_init__(self) -> None:
        self.provider = TracerProvider(resource=Resource.create({"service.name": "client"}))
        exporter = OTLPSpanExporter(endpoint=self.receiver.grpc_url, insecure=True)
        self.provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self.provider.get_tracer("client")

    def send(self, number: int, *, clients: int = 8, seed: int = 1) -> list[Sent]:
        """Send so many requests of all kinds, from so many clients at a time."""
        kinds = list(KINDS.values()) * (number // len(KINDS) + 1)
        kinds = kinds[:number]
        random.Random(seed).shuffle(kinds)
        shares = [kinds[start::clients] for start in range(clients)]
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            return [sent for done in pool.map(self._send_all, shares) for sent in done]

    def close(self) -> None:
        self.provider.shutdown()

    def _send_all(self, kinds: Sequence[Kind]) -> list[Sent]:
        with httpx2.Client(base_url=self.url, trust_env=False, timeout=60) as client:
            return [self._send(client, kind) for kind in kinds]

    def _send(self, client: httpx2.Client, kind: Kind) -> Sent:
        with self._tracer.start_as_current_span(f"ask {kind.path}", kind=trace.SpanKind.CLIENT) as span:
            headers = {"content-type": kind.content_type} if kind.body is not None else {}
            propagate.inject(headers)
            headers["baggage"] = "team=blue"
            try:
                status = client.request(kind.method, kind.path, content=kind.body, headers=headers).status_code
                assert not kind.cut_off
            except httpx2.RemoteProtocolError:
                assert kind.cut_off
                status = kind.status
            here = span.get_span_context()
            return Sent(kind, f"{here.trace_id:032x}", f"{here.span_id:016x}", status)


def expected_spans(sent: Sequence[Sent]) -> int:
    """Return how many spans must have come at least: the client's, the server's, and the backend's or user code's."""
    return sum(2 + each.kind.backend for each in sent)


def check(sent: Sequence[Sent], spans: Sequence[Span], backend: Backend) -> collections.Counter[str]:
    """Assert that every request has the spans it must have, and no others; return how many there are of each."""
    by_trace: dict[str, list[Span]] = collections.defaultdict(list)
    by_id = {span.span_id: span for span in spans}
    assert len(by_id) == len(spans), "a span came twice"
    for span in spans:
        by_trace[span.trace_id].append(span)
    seen: collections.Counter[str] = collections.Counter()
    # Less the flags at the end: sampled, and lately also whether the id is random.
    asked = {dict(request.headers).get(b"traceparent", b"")[:-3].decode(): request for request in backend.requests}
    for each in sent:
        kind = each.kind
        assert each.status == kind.status, kind
        in_trace = by_trace[each.trace_id]
        (client,) = (span for span in in_trace if span.service == "client")
        (server,) = (span for span in in_trace if span.kind == SERVER)
        assert server.parent_id == client.span_id == each.span_id
        _check_server(kind, server, client)
        if kind.backend:
            (upstream,) = (span for span in in_trace if span.kind == CLIENT and span.service != "client")
            assert upstream.parent_id == server.span_id
            assert upstream.attributes["http.response.status_code"] == kind.status
            assert (upstream.status == ERROR) == (kind.status >= 400 or kind.cut_off)
            request = asked[f"00-{each.trace_id}-{upstream.span_id}"]
            assert dict(request.headers)[b"baggage"] == b"team=blue"
        users = list(_user_spans(server, spans, by_id)) if kind.user else []
        assert bool(users) == kind.user, (kind, server)
        of_ours = [span for span in in_trace if span.service != "client" and span.scope != "user"]
        assert len(of_ours) == 1 + kind.backend, of_ours
        seen["server"] += 1
        seen["backend"] += kind.backend
        seen["with user code alone"] += any(user.parent_id == server.span_id for user in users)
        seen["with user code in a batch"] += any(user.parent_id != server.span_id for user in users)
    servers = [span for span in spans if span.kind == SERVER]
    assert len(servers) == len(sent), "spans of requests that were not sent"
    return seen


def _check_server(kind: Kind, server: Span, client: Span) -> None:
    assert server.name == (kind.method if kind.route is None else f"{kind.method} {kind.route}")
    attributes = server.attributes
    assert attributes.get("http.route") == kind.route
    assert attributes["http.request.method"] == kind.method
    assert attributes["http.response.status_code"] == kind.status
    assert attributes["url.path"] == kind.path.partition("?")[0]
    assert (server.status == ERROR) == (kind.status >= 500 or kind.cut_off)
    assert client.start <= server.start <= server.end
    times = [time for _, time in server.events]
    assert times == sorted(times)
    if kind.user and kind.status == 200:
        assert [name for name, _ in server.events] == ["queued", "started", "decoded", "predicted", "encoded"]
        assert server.start <= times[0]
        assert times[-1] <= server.end


def _user_spans(server: Span, spans: Sequence[Span], by_id: dict[str, Span]) -> Iterator[Span]:
    """Return the spans of user code for a request: its own, or those of the batches that it was in."""
    batches = [by_id[span_id] for _, span_id in server.links]
    for batch in batches:
        assert (batch.kind, batch.name) == (INTERNAL, "batch")
        assert (server.trace_id, server.span_id) in batch.links
        assert len(batch.links) == batch.attributes["backline.batch.requests"] >= 2
        assert batch.start <= batch.end
    parents = {server.span_id, *(batch.span_id for batch in batches)}
    for span in spans:
        if span.scope == "user" and span.parent_id in parents:
            assert span.trace_id == by_id[span.parent_id].trace_id
            yield span
