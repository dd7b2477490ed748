"""Spans of requests, of batches and of what is asked of a backend, by OpenTelemetry; the only place that knows it.

::

    client's span ──traceparent──▶ SERVER span of the request ──traceparent──▶ spans of user code, in the worker
                                     │  ▲ links, both ways                     (alone in its call of the model)
                                     │  ▼
                                     │  INTERNAL span of the batch ──traceparent──▶ spans of user code
                                     └─ CLIENT span ──traceparent──▶ the backend's own spans

Nothing of OpenTelemetry is imported before ``open_tracing`` finds that somebody wants traces: that takes a fifth of a
second, and a request that is not traced pays for no more than asking whether it is.
"""

from __future__ import annotations

import contextvars
import importlib.metadata
import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from backline import __version__
from backline.config.outside import (
    captures_chat_content,
    names_service,
    telemetry_disabled,
    trace_exporters,
    tracing_wanted,
)
from backline.errors import BackendBusy
from backline.observe import logs
from backline.observe.redact import Redactor

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Link, Span, TracerProvider

    from backline.errors import BacklineError
    from backline.observe.gen_ai import ChatWatch

logger = logging.getLogger("backline.observe")

_FLUSH_TIMEOUT = 2.0  # seconds for the last spans at the end
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_STAGES = (("decode", "decoded"), ("predict", "predicted"), ("encode", "encoded"))
_redact = Redactor()

Headers = Sequence[tuple[bytes, bytes]]


class Tracing:
    """Makes the spans of this process. ``open_tracing`` makes it, ``close`` sends what is left."""

    def __init__(self, provider: TracerProvider, *, owned: bool, chat_content: bool = False) -> None:
        """``owned``: made by us, so that it is ours to end."""
        from opentelemetry import context, propagate, trace

        self.chat_content = chat_content
        self._provider = provider
        self._owned = owned
        self._tracer = provider.get_tracer(
            "backline", __version__, schema_url="https://opentelemetry.io/schemas/1.37.0"
        )
        self._trace = trace
        self._context = context
        self._propagator = propagate.get_global_textmap()
        self._fields = frozenset(name.lower().encode() for name in self._propagator.fields)
        # What other instrumentation asks before it makes spans of its own for the same requests.
        self._suppressed = [
            key
            for name in ("_SUPPRESS_HTTP_INSTRUMENTATION_KEY", "_SUPPRESS_INSTRUMENTATION_KEY")
            if (key := getattr(context, name, None)) is not None
        ]
        logs.current_trace = self._current_ids

    def begin_request(self, scope: Mapping[str, Any], route: str | None, began: int) -> RequestTrace:
        """Start the span of a request, given as ASGI's scope; ``began`` is the time in nanoseconds."""
        parent = self._extract(scope["headers"])
        method: str = scope.get("method", "GET")
        known = method if method in _METHODS else "_OTHER"
        attributes: dict[str, Any] = {
            "http.request.method": known,
            "url.path": scope["path"],
            "url.scheme": "https" if scope["scheme"] in ("https", "wss") else "http",
        }
        if known != method:
            attributes["http.request.method_original"] = method[:40]
        if route is not None:
            attributes["http.route"] = route
        name = "HTTP" if known == "_OTHER" else known
        span = self._tracer.start_span(
            name if route is None else f"{name} {route}",
            context=parent,
            kind=self._trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=began,
        )
        if span.is_recording():
            span.set_attributes(_request_attributes(scope))
        return RequestTrace(self, span, parent, began, name)

    def enter(self, request: RequestTrace) -> Any:
        """Make a request's span the current one of this task; return the token for ``leave``."""
        context = request.context
        for key in self._suppressed:
            context = self._context.set_value(key, True, context)
        current_request.set(request)  # for good: the task is the request's own
        return self._context.attach(context)

    def leave(self, token: Any) -> None:
        """Undo ``enter``."""
        self._context.detach(token)

    def begin_batch(self, members: Sequence[RequestTrace | None], attributes: Mapping[str, Any]) -> BatchTrace | None:
        """Start the span of a call of the model that answers several requests; ``None`` where none of them is sampled.

        It belongs to no request more than to another, so it is a trace of its own, linked to theirs.
        """
        traced = [member for member in members if member is not None and member.recording]
        if not traced:
            return None
        links: list[Link] = [self._trace.Link(member.span.get_span_context()) for member in traced]
        span = self._tracer.start_span(
            "batch",
            context=self._context.Context(),
            links=links,
            attributes={**attributes, "backline.batch.requests": len(members)},
        )
        here = span.get_span_context()
        for member in traced:
            member.span.add_link(here)
            member.span.set_attribute("backline.batch.requests", len(members))
        return BatchTrace(self, span)

    def begin_backend(self, request: RequestTrace, method: str, host: str, port: int) -> BackendTrace:
        """Start the span of what is asked of a backend for a request."""
        span = self._tracer.start_span(
            method if method in _METHODS else "HTTP",
            context=request.context,
            kind=self._trace.SpanKind.CLIENT,
            attributes={
                "http.request.method": method if method in _METHODS else "_OTHER",
                "server.address": host,
                "server.port": port,
            },
        )
        return BackendTrace(self, span, self.carrier(span, request.context))

    def carrier(self, span: Span, context: Context | None = None) -> dict[str, str]:
        """Return what continues the trace elsewhere, as headers by their names."""
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span, context))
        return carrier

    def rewritten(self, headers: list[tuple[bytes, bytes]], carrier: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
        """Return headers that continue the trace of ``carrier`` instead of the one that they came with."""
        kept = [header for header in headers if header[0] not in self._fields]
        return kept + [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in carrier.items()]

    def set_error(self, span: Span, kind: str, description: str | None = None) -> None:
        """Mark a span as failed; ``kind`` is one of few words."""
        span.set_attribute("error.type", kind)
        span.set_status(self._trace.StatusCode.ERROR, description)

    def in_context(self, span: Span, parent: Context) -> Context:
        """Return ``parent`` with this span as the current one."""
        return self._trace.set_span_in_context(span, parent)

    def close(self) -> None:
        """Send the spans that wait, for a moment at most, and end what is ours."""
        logs.current_trace = None
        # In a thread, as exporters wait for a collector that is not there for longer than they are told to.
        end = getattr(self._provider, "shutdown" if self._owned else "force_flush", lambda: None)
        thread = threading.Thread(target=end, name="last spans", daemon=True)
        thread.start()
        thread.join(_FLUSH_TIMEOUT)
        if thread.is_alive():
            logger.warning("the last spans could not be sent within %g s and are lost", _FLUSH_TIMEOUT)

    def _extract(self, headers: Headers) -> Context:
        found: dict[str, list[str]] = {}
        for name, value in headers:
            if name in self._fields:
                found.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        context = self._context.Context()
        if not found:
            return context
        # Repeated headers are one list (RFC 9110 section 5.3), save traceparent, of which two are none.
        carrier = {
            name: ",".join(values) for name, values in found.items() if name != "traceparent" or len(values) == 1
        }
        return self._propagator.extract(carrier, context)

    def _current_ids(self) -> Mapping[str, str] | None:
        span = self._trace.get_current_span()
        context = span.get_span_context()
        return _ids(context.trace_id, context.span_id) if context.is_valid else None


class RequestTrace:
    """The span of one request, from its arrival to the last byte of its answer."""

    __slots__ = (
        "_anchor",
        "_backend",
        "_began",
        "_carrier",
        "_ids",
        "_method",
        "context",
        "recording",
        "span",
        "tracing",
    )

    def __init__(self, tracing: Tracing, span: Span, parent: Context, began: int, method: str) -> None:
        self._method = method
        self.tracing = tracing
        self.span = span
        self.recording = span.is_recording()
        self.context = tracing.in_context(span, parent)
        self._began = began
        self._anchor = time.monotonic()
        self._carrier: dict[str, str] | None = None
        self._ids: Mapping[str, str] | None = None
        self._backend: BackendTrace | None = None

    @property
    def ids(self) -> Mapping[str, str]:
        """``trace_id`` and ``span_id``, for the log."""
        if self._ids is None:
            here = self.span.get_span_context()
            self._ids = _ids(here.trace_id, here.span_id)
        return self._ids

    @property
    def carrier(self) -> dict[str, str]:
        """What makes user code's spans children of this one."""
        if self._carrier is None:
            self._carrier = self.tracing.carrier(self.span, self.context)
        return self._carrier

    def stages(self, queued: float, started: float, seconds: Mapping[str, float], worker: int | None) -> None:
        """Add an event for the end of each stage; ``queued`` and ``started`` as in ``time.monotonic``, 0 for not."""
        if not self.recording:
            return
        if worker is not None:
            self.span.set_attribute("backline.worker", worker)
        if queued:
            self.span.add_event("queued", timestamp=self._at(queued))
        if not started:
            return
        self.span.add_event("started", timestamp=self._at(started))
        passed = started
        for stage, event in _STAGES:
            if stage in seconds:
                passed += seconds[stage]
                self.span.add_event(event, timestamp=self._at(passed))

    def found_route(self, route: str) -> None:
        """Name the span by a route that was found late."""
        self.span.set_attribute("http.route", route)
        self.span.update_name(f"{self._method} {route}")

    def event(self, name: str, attributes: Mapping[str, Any] | None = None) -> None:
        """Add an event that has happened now."""
        if self.recording:
            self.span.add_event(name, attributes)

    def continued(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return headers that take the trace on by themselves, without a span in between."""
        return self.tracing.rewritten(headers, self.carrier)

    def begin_backend(
        self, headers: list[tuple[bytes, bytes]], method: str, host: str, port: int
    ) -> list[tuple[bytes, bytes]]:
        """Start the span of what is asked of the backend; return the headers that take the trace there."""
        self._backend = self.tracing.begin_backend(self, method, host, port)
        return self._backend.headers(headers)

    def describe_chat(self, chat: ChatWatch) -> None:
        """Add what is known of a chat, to the span of whoever answers it: the backend's, or the request's own."""
        if self._backend is None:
            self.span.set_attributes({**chat.attributes(), "gen_ai.provider.name": "backline"})
        else:
            self._backend.describe_chat(chat)

    def end(self, status: int | None, error: BacklineError | None, *, cut_off: bool) -> None:
        """End the span.

        ``status`` is that of the answer, ``None`` where there was none; ``error`` is what it told, or what ``cut_off``
        an answer that had begun.
        """
        # A span that is not ended is sent nowhere: this one was for nothing where the backend was not asked at all.
        if self._backend is not None and not isinstance(error, BackendBusy):
            self._backend.end(status if error is None or cut_off else None, None if error is None else error.code)
        if self.recording:
            span = self.span
            if status is not None:
                span.set_attribute("http.response.status_code", status)
            if error is not None:
                span.set_attribute("backline.error.code", error.code)
            if status is None:
                span.set_attribute("error.type", "client_left" if error is None else error.code)
            elif status >= 500 or cut_off:
                described = None if error is None else _redact(error.message.partition("\n")[0])[:300]
                self.tracing.set_error(span, str(status) if error is None else error.code, described)
        self.span.end()

    def _at(self, moment: float) -> int:
        return self._began + int((moment - self._anchor) * 1e9)


class BackendTrace:
    """The span of one request to a backend."""

    __slots__ = ("_carrier", "_span", "_tracing")

    def __init__(self, tracing: Tracing, span: Span, carrier: dict[str, str]) -> None:
        self._tracing = tracing
        self._span = span
        self._carrier = carrier

    @property
    def chat_content(self) -> bool:
        """Whether what is said may stand in it."""
        return self._tracing.chat_content

    def headers(self, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
        """Return headers that take the trace to the backend."""
        return self._tracing.rewritten(headers, self._carrier)

    def describe_chat(self, chat: ChatWatch) -> None:
        """Add what is known of a chat. All that is known of the backend is that it speaks OpenAI's protocol."""
        self._span.set_attributes({**chat.attributes(), "gen_ai.provider.name": "openai"})
        self._span.update_name(f"{chat.operation} {chat.model}" if chat.model else chat.operation)

    def end(self, status: int | None, error: str | None) -> None:
        """End it: ``status`` is that of the backend's answer, ``error`` what kept it from coming, or cut it off."""
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if error is not None:
            self._tracing.set_error(self._span, error)
        elif status is None:
            self._span.set_attribute("error.type", "client_left")
        elif status >= 400:
            self._tracing.set_error(self._span, str(status))
        self._span.end()


current_request: contextvars.ContextVar[RequestTrace | None] = contextvars.ContextVar("current_request", default=None)
"""The trace of the request that this task works for, ``None`` where requests are not traced."""


class BatchTrace:
    """The span of one call of the model for several requests."""

    __slots__ = ("_span", "_tracing", "carrier")

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self._tracing = tracing
        self._span = span
        self.carrier = tracing.carrier(span)

    def end(self, failure: str | None = None) -> None:
        """End it; ``failure`` says what has ended it before it was done."""
        if failure is not None:
            self._tracing.set_error(self._span, "worker_died", failure)
        self._span.end()


def open_tracing() -> Tracing | None:
    """Return the tracing that the environment asks for, ``None`` where it asks for none or it is not to be had.

    Whoever runs the server may have set OpenTelemetry up already (``opentelemetry-instrument``): that is used then.
    """
    if telemetry_disabled():
        return None
    present = _present_provider()
    if present is not None:
        return Tracing(present, owned=False, chat_content=captures_chat_content())
    variable = tracing_wanted()
    if variable is None:
        return None
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
    except ImportError as exc:
        _tell_missing(variable, exc)
        return None
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporters = [exporter for name in trace_exporters() if (exporter := _exporter(name, variable)) is not None]
    if not exporters:
        return None
    named = {} if names_service() else {"service.name": "backline"}
    # At exit would be too late: the exporters wait for a collector that is not there.
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return Tracing(provider, owned=True, chat_content=captures_chat_content())


def _present_provider() -> TracerProvider | None:
    """Return the tracer provider that somebody has set in this process, if anybody has."""
    module = sys.modules.get("opentelemetry.trace")  # current FastAPI imports it, and no SDK with it
    if module is None:
        return None
    provider: TracerProvider = module.get_tracer_provider()
    return None if isinstance(provider, module.ProxyTracerProvider | module.NoOpTracerProvider) else provider


def _exporter(name: str, variable: str) -> SpanExporter | None:
    found = importlib.metadata.entry_points(group="opentelemetry_traces_exporter", name=name)
    if not found:
        known = sorted(importlib.metadata.entry_points(group="opentelemetry_traces_exporter").names)
        logger.warning(
            "%s asks for traces by the exporter %r, which is not installed: there is %s; no spans are sent by it. "
            "Install its package, or backline[otel] for OTLP",
            variable,
            name,
            ", ".join(known) or "none",
        )
        return None
    try:
        exporter: SpanExporter = next(iter(found)).load()()
    except Exception as exc:  # noqa: BLE001  (other people's code, and a server without traces is better than none)
        logger.warning(
            "%s asks for traces, and the exporter %r cannot be made: %s: %s", variable, name, type(exc).__name__, exc
        )
        return None
    return exporter


def _tell_missing(variable: str, exc: ImportError) -> None:
    logger.warning(
        "%s is set, but no traces are sent: %s is not installed. Install backline[otel] beside the server, or set "
        "OTEL_SDK_DISABLED=true",
        variable,
        exc.name or "the OpenTelemetry SDK",
    )


def _request_attributes(scope: Mapping[str, Any]) -> dict[str, Any]:
    attributes: dict[str, Any] = {"network.protocol.version": scope.get("http_version", "1.1")}
    query: bytes = scope.get("query_string", b"")
    if query:
        attributes["url.query"] = _redact("?" + query.decode("latin-1"))[1:]
    client = scope.get("client")
    if client:
        attributes["client.address"] = client[0]
    for name, value in scope["headers"]:
        if name == b"user-agent":
            attributes["user_agent.original"] = value.decode("latin-1")
        elif name == b"host":
            host, _, port = value.decode("latin-1").rpartition(":")
            if host and port.isdigit():
                attributes["server.address"], attributes["server.port"] = host.strip("[]"), int(port)
            else:
                attributes["server.address"] = value.decode("latin-1")
        elif name == b"content-length" and value.isdigit() and len(value) < 19:
            attributes["http.request.body.size"] = int(value)
    return attributes


def _ids(trace_id: int, span_id: int) -> dict[str, str]:
    return {"trace_id": f"{trace_id:032x}", "span_id": f"{span_id:016x}"}
