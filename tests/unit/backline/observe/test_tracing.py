"""When traces are made, and what is said where they cannot be."""

from __future__ import annotations

import logging
import sys

import pytest

from backline.config.outside import captures_chat_content, trace_exporters, tracing_wanted
from backline.observe import tracing


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, None),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4317"}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4317"}, None),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, None),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, None),
    ],
)
def test_a_variable_asks_for_traces(environ: dict[str, str], variable: str | None) -> None:
    assert tracing_wanted(environ) == variable


@pytest.mark.parametrize(
    ("environ", "exporters"),
    [
        ({}, ["otlp_proto_grpc"]),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ["otlp_proto_http"]),
        (
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"},
            ["otlp_proto_grpc"],
        ),
        ({"OTEL_TRACES_EXPORTER": "console, otlp"}, ["console", "otlp_proto_grpc"]),
    ],
)
def test_exporters_are_named_as_their_packages_register_them(environ: dict[str, str], exporters: list[str]) -> None:
    assert trace_exporters(environ) == exporters


def test_content_is_captured_only_on_request() -> None:
    name = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
    assert [captures_chat_content({name: value}) for value in ("", "no_content", "false", "true")] == [
        False,
        False,
        False,
        True,
    ]


@pytest.fixture
def wanted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.delenv("OTEL_TRACES_EXPORTER", raising=False)
    caplog.set_level(logging.WARNING)
    return caplog


def test_without_the_extra_the_log_says_what_to_install(
    wanted: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    assert tracing.open_tracing() is None
    assert "OTEL_EXPORTER_OTLP_ENDPOINT is set, but no traces are sent" in wanted.text
    assert "backline[otel]" in wanted.text


def test_an_exporter_that_is_not_there_is_named_beside_those_that_are(
    wanted: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    assert tracing.open_tracing() is None
    assert "'zipkin', which is not installed: there is" in wanted.text
    assert "otlp_proto_grpc" in wanted.text


def test_nothing_is_imported_where_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_TRACES_EXPORTER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)  # whose import would fail
    assert tracing.open_tracing() is None
