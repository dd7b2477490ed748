"""A receiver of spans: the service that OpenTelemetry's own definition generates, over gRPC and over HTTP."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gzip
import http.server
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

INTERNAL, SERVER, CLIENT = 1, 2, 3
ERROR = 2
TIMEOUT = 30.0  # seconds for spans to arrive


@dataclass
class Span:
    """A span as it was received."""

    service: str
    scope: str
    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    attributes: dict[str, Any]
    events: list[tuple[str, int]]
    links: list[tuple[str, str]]
    status: int


@dataclass
class Receiver:
    """The spans received so far; ``grpc_url`` and ``http_url`` are where to send them."""

    grpc_url: str = ""
    http_url: str = ""
    headers: list[dict[str, str]] = field(default_factory=list)
    _spans: list[Span] = field(default_factory=list)
    _came: threading.Condition = field(default_factory=threading.Condition)

    def take(self, request: Any, headers: dict[str, str]) -> None:
        found = [
            _span(resource, scope, span)
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._came:
            self.headers.append(headers)
            self._spans += found
            self._came.notify_all()

    @property
    def spans(self) -> list[Span]:
        with self._came:
            return list(self._spans)

    def clear(self) -> None:
        with self._came:
            self._spans.clear()

    def wait_for(self, enough: Callable[[list[Span]], bool]) -> list[Span]:
        """Wait until what has come is ``enough``; return it. What comes twice would come soon after."""
        with self._came:
            deadline = time.monotonic() + TIMEOUT
            while not enough(self._spans):
                assert self._came.wait(deadline - time.monotonic()), f"only {len(self._spans)} spans came"
            return list(self._spans)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None


def _span(resource: Any, scope: Any, span: Any) -> Span:
    about = {each.key: _value(each.value) for each in resource.resource.attributes}
    return Span(
        service=about.get("service.name", ""),
        scope=scope.scope.name,
        name=span.name,
        kind=span.kind,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        attributes={each.key: _value(each.value) for each in span.attributes},
        events=[(event.name, event.time_unix_nano) for event in span.events],
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        status=span.status.code,
    )


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """Receive spans while the block lasts."""
    receiver = Receiver()

    class Service(trace_service_pb2_grpc.TraceServiceServicer):  # type: ignore[misc]
        def Export(self, request: Any, context: Any) -> Any:  # noqa: N802  (the generated name)
            receiver.take(request, {key: str(value) for key, value in context.invocation_metadata()})
            return trace_service_pb2.ExportTraceServiceResponse()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                data = gzip.decompress(data)
            request = trace_service_pb2.ExportTraceServiceRequest()
            request.ParseFromString(data)
            receiver.take(request, {key.lower(): value for key, value in self.headers.items()})
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    over_grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), over_grpc)
    receiver.grpc_url = f"http://127.0.0.1:{over_grpc.add_insecure_port('127.0.0.1:0')}"
    over_grpc.start()
    over_http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.http_url = f"http://127.0.0.1:{over_http.server_address[1]}"
    thread = threading.Thread(target=over_http.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        over_grpc.stop(0).wait()
        over_http.shutdown()
        over_http.server_close()
        thread.join()
