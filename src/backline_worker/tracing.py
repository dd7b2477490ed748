"""Takes the trace of a request to the spans of user code.

OpenTelemetry is used where the model's environment has it, and never asked for: user code that imports its API finds
the request's span as the current one, so that its own spans are children of that. Where the SDK and an exporter are
there too, and ``OTEL_`` variables say where spans go, they are sent from here, unless user code has seen to that by
itself. In a batch it is the batch's span that is current.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, List, Mapping, Optional

_FLUSH_TIMEOUT = 2.0  # seconds for the last spans at the end


class Tracing:
    """The context around calls of the model; does nothing until user code has imported OpenTelemetry."""

    def __init__(self) -> None:
        self._propagate: Any = None
        self._context: Any = None
        self._provider: Any = None

    def open(self) -> Optional[str]:
        """Set up sending where it is wanted and possible, once the model is loaded; return what went wrong, if so."""
        if not _wanted(os.environ):
            return None
        try:
            from opentelemetry import trace
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError:
            return None  # the model's environment need not have it
        if not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            return None  # the model's own code has set it up
        try:
            named = (
                "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "") or "OTEL_SERVICE_NAME" in os.environ
            )
            provider = TracerProvider(
                resource=Resource.create({} if named else {"service.name": "backline"}), shutdown_on_exit=False
            )
            for name in _exporters(os.environ):
                provider.add_span_processor(BatchSpanProcessor(_load_exporter(name)))
        except Exception as exc:
            return "spans of user code are not sent: {}: {}".format(type(exc).__name__, exc)
        trace.set_tracer_provider(provider)
        self._provider = provider
        return None

    def attach(self, carrier: Optional[Mapping[str, str]]) -> Any:
        """Make the span that these headers name the current one of this context; return the token for ``detach``."""
        if carrier is None or (self._propagate is None and not self._find()):
            return None
        try:
            return self._context.attach(self._propagate.extract(carrier))
        except Exception:  # a trace that cannot be read must not cost the answer
            return None

    def detach(self, token: Any) -> None:
        """Undo ``attach``."""
        if token is not None:
            self._context.detach(token)

    def close(self) -> None:
        """Send the spans that wait, for a moment at most."""
        if self._provider is not None:
            # In a thread, as an exporter waits for a collector that is not there for longer than it is told to.
            thread = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
            thread.start()
            thread.join(_FLUSH_TIMEOUT)

    def _find(self) -> bool:
        if "opentelemetry.trace" not in sys.modules:
            return False  # nobody makes spans
        try:
            from opentelemetry import context, propagate
        except ImportError:
            return False
        self._propagate, self._context = propagate, context
        return True


def _wanted(environ: Mapping[str, str]) -> bool:
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return exporter != "none"
    return bool(environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))


def _exporters(environ: Mapping[str, str]) -> List[str]:
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    otlp = "otlp_proto_http" if protocol.startswith("http") else "otlp_proto_grpc"
    names = (environ.get("OTEL_TRACES_EXPORTER") or "otlp").lower().split(",")
    return [otlp if name.strip() == "otlp" else name.strip() for name in names if name.strip() not in ("", "none")]


def _load_exporter(name: str) -> Any:
    from importlib import metadata

    points = metadata.entry_points()
    group = "opentelemetry_traces_exporter"
    # A mapping before Python 3.10.
    found = points.select(group=group) if hasattr(points, "select") else points.get(group, ())
    for point in found:
        if point.name == name:
            return point.load()()
    raise LookupError("the model's environment has no exporter {!r}".format(name))
