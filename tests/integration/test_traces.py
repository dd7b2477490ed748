"""Spans as a collector gets them: one for each request, and right from the client to user code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import opentelemetry.instrumentation.auto_instrumentation
import pytest

from tests.integration.traced_traffic import Traffic, behave, check, expected_spans, make_model
from tests.otlp import Receiver, receiving
from tests.raw_http import running_backend
from tests.serving import ServeFixture

pytestmark = pytest.mark.slow

# What the command opentelemetry-instrument does: Python imports the sitecustomize in there when it starts.
OFFICIAL = {"PYTHONPATH": str(Path(opentelemetry.instrumentation.auto_instrumentation.__file__).parent)}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.mark.parametrize("official", [False, True], ids=["by itself", "beside the official instrumentation"])
def test_every_request_has_one_server_span_with_the_right_parents(
    serve: ServeFixture, receiver: Receiver, tmp_path: Path, official: bool
) -> None:
    receiver.clear()
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.grpc_url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with running_backend(behave) as backend:
        flags = ["--target-type", "regression", "--batch", "on", "--batch-delay", "0.01", "--backend", backend.url]
        flags += ["--backend-ready-path", "/ready"]
        server = serve(make_model(tmp_path), *flags, env=env | (OFFICIAL if official else {}))
        traffic = Traffic(server.url, receiver)
        sent = traffic.send(140)
        traffic.close()
        assert server.stop() == 0  # which sends what waits
        spans = receiver.wait_for(lambda spans: len(spans) >= expected_spans(sent))
        seen = check(sent, spans, backend)
    assert seen["server"] == 140
    assert seen["backend"] == 60
    assert seen["with user code in a batch"] > 0
    assert {span.scope for span in spans} == {"backline", "client", "user"}
