"""Environment variables that are not ours, and that we follow or keep quiet about."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

_SECRET_VARIABLE = re.compile(
    r"(^|_)(API_?KEYS?|ACCESS_KEY|SECRET|SECRET_KEY|PRIVATE_KEY|PASSWORD|PASSWD|TOKEN|CREDENTIALS?)(_|$)|^OTEL_EXPORTER_OTLP_.*HEADERS$",
    re.IGNORECASE,
)


def wants_colour(*, on_terminal: bool) -> bool:
    """Whether output may be coloured: on a terminal, unless NO_COLOR (https://no-color.org) or TERM=dumb says no."""
    return on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def secrets_in(environ: Mapping[str, str] | None = None, *, also: Iterable[str] = ()) -> list[str]:
    """Return the values of those environment variables that, by their names, hold secrets, and of those in ``also``."""
    environ = os.environ if environ is None else environ
    found = [environ[name] for name in also if name in environ]
    for name, value in environ.items():
        if not _SECRET_VARIABLE.search(name):
            continue
        found.append(value)
        if name.upper().endswith("HEADERS"):  # name=value,name=value
            found += [pair.partition("=")[2].strip() for pair in value.split(",")]
        elif value.lstrip().startswith("{"):  # a runtime parameter: JSON, whose strings are its secrets
            found += re.findall(r'"([^"\\]{16,})"', value)
    return found


def telemetry_disabled(environ: Mapping[str, str] | None = None) -> bool:
    """Whether OpenTelemetry is switched off altogether."""
    environ = os.environ if environ is None else environ
    return environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def tracing_wanted(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the variable that asks for traces to be sent, if one does (OpenTelemetry's own, all of them optional)."""
    environ = os.environ if environ is None else environ
    if telemetry_disabled(environ):
        return None
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporter:
        return None if exporter == "none" else "OTEL_TRACES_EXPORTER"
    names = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return next((name for name in names if environ.get(name, "").strip()), None)


def trace_exporters(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the exporters asked for, by the names that OpenTelemetry's packages register them under."""
    environ = os.environ if environ is None else environ
    protocol = environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    otlp = f"otlp_proto_{'http' if protocol.strip().lower().startswith('http') else protocol.strip().lower()}"
    wanted = (environ.get("OTEL_TRACES_EXPORTER") or "otlp").lower().split(",")
    return [otlp if name.strip() == "otlp" else name.strip() for name in wanted if name.strip() not in ("", "none")]


def names_service(environ: Mapping[str, str] | None = None) -> bool:
    """Whether somebody has said what traces are to call this service."""
    environ = os.environ if environ is None else environ
    return bool(environ.get("OTEL_SERVICE_NAME")) or "service.name=" in environ.get("OTEL_RESOURCE_ATTRIBUTES", "")


def captures_chat_content(environ: Mapping[str, str] | None = None) -> bool:
    """Whether what is said in chats may stand in spans; OpenTelemetry's own variable for that, off by default."""
    environ = os.environ if environ is None else environ
    wanted = environ.get("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "").strip().lower()
    return wanted in ("true", "span_only", "span_and_event")


def notify_socket(environ: Mapping[str, str] | None = None) -> str | None:
    """Return the address at which a service manager listens (sd_notify(3)); abstract ones begin with a zero byte."""
    address = (os.environ if environ is None else environ).get("NOTIFY_SOCKET", "")
    if address.startswith("@"):
        return f"\0{address[1:]}"
    return address if address.startswith("/") else None


def watchdog_seconds(environ: Mapping[str, str] | None = None) -> float | None:
    """Return how long the service manager waits for a sign of life of this process (sd_watchdog_enabled(3))."""
    environ = os.environ if environ is None else environ
    microseconds, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
    if not (microseconds.isascii() and microseconds.isdigit()) or pid != str(os.getpid()):
        return None
    return int(microseconds) / 1_000_000 or None
