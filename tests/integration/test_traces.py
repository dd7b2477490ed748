"""Spans as a collector gets them: one for each request, and right from the client to user code."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import opentelemetry.instrumentation.auto_instrumentation
import pytest

from tests.integration.traced_traffic import KINDS, Traffic, behave, check, expected_spans, make_model
from tests.otlp import CLIENT, ERROR, SERVER, Receiver, receiving
from tests.raw_http import running_backend
from tests.serving import ServeFixture

pytestmark = pytest.mark.slow

CHAT = """
import time
from opentelemetry import trace

tracer = trace.get_tracer("user")

def chat(params, model):
    print("asked")
    with tracer.start_as_current_span("user work"):
        for word in ["a ", "secret ", "answer"]:
            yield {"id": "c-1", "object": "chat.completion.chunk", "model": "tiny-1",
                   "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
            time.sleep(0.02)
        yield {"id": "c-1", "object": "chat.completion.chunk", "model": "tiny-1",
               "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    if params["model"] == "broken":
        raise ValueError("no more")
"""
ASYNC_CHAT = CHAT.replace("def chat", "async def chat")

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


@pytest.mark.parametrize("hook", [CHAT, ASYNC_CHAT], ids=["plain", "asynchronous"])
def test_chats_have_spans_of_hooks_below_theirs_and_tell_nothing_of_what_is_said(
    serve: ServeFixture, receiver: Receiver, tmp_path: Path, hook: str
) -> None:
    receiver.clear()
    (tmp_path / "custom.py").write_text(hook)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_url, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}
    env |= {"OTEL_SERVICE_NAME": "chatty", "BACKLINE_LOG_FORMAT": "json"}
    server = serve(tmp_path, "--target-type", "textgeneration", "--access-log", "all", env=env)
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        for model in ("whole", "streamed", "broken"):
            asked = {"model": model, "messages": [{"role": "user", "content": "a secret question"}]}
            client.post(
                "/v1/chat/completions", json=asked | {"stream": model != "whole"}, headers={"x-request-id": model}
            )
    assert server.stop() == 0
    spans = receiver.wait_for(lambda spans: len(spans) >= 6)
    assert len(spans) == 6
    assert {span.service for span in spans} == {"chatty"}
    servers = {span.attributes["gen_ai.request.model"]: span for span in spans if span.kind == SERVER}
    users = {span.trace_id: span for span in spans if span.scope == "user"}
    for model, span in servers.items():
        user = users[span.trace_id]
        assert user.parent_id == span.span_id
        assert span.start <= user.start <= user.end <= span.end
        assert (span.status == ERROR) == (model == "broken")
        assert span.attributes["gen_ai.operation.name"] == "chat"
        assert span.attributes["gen_ai.response.id"] == "c-1"
        assert span.attributes["gen_ai.response.finish_reasons"] == ["stop"]
        assert ("first piece sent" in dict(span.events)) == (model != "whole")
        assert "secret" not in str(span)
    records = [json.loads(line) for line in server.log().splitlines()]
    for record in records:
        if "request_id" in record:
            span = servers[record["request_id"]]
            assert (record["trace_id"], record["span_id"]) == (span.trace_id, span.span_id)
    asked_lines = [record for record in records if record["message"] == "asked"]
    access = [record for record in records if record["logger"] == "backline.access"]
    assert [record["request_id"] for record in asked_lines] == ["whole", "streamed", "broken"]
    assert [(record["request_id"], record["status"], record.get("code")) for record in access] == [
        ("whole", 200, None),
        ("streamed", 200, None),
        ("broken", 200, "hook_failed"),
    ]
    assert {"queue", "predict", "total"} <= set(access[0]["seconds"])


def test_content_is_there_on_request_and_a_backend_gets_the_span_that_asks_it(
    serve: ServeFixture, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.clear()
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.grpc_url,
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "true",
    }
    with running_backend(behave) as backend:
        server = serve(None, "--backend", backend.url, "--backend-ready-path", "/ready", env=env)
        asked = KINDS["chat, streamed"].body
        headers = {"content-type": "application/json"}
        httpx2.post(f"{server.url}/v1/chat/completions", content=asked, headers=headers, trust_env=False)
        assert server.stop() == 0
    spans = receiver.wait_for(lambda spans: len(spans) >= 2)
    (upstream,) = (span for span in spans if span.kind == CLIENT)
    assert upstream.name == "chat tiny"
    assert "a secret question" in upstream.attributes["gen_ai.input.messages"]
    assert "a secret answer" in upstream.attributes["gen_ai.output.messages"]
    assert upstream.attributes["gen_ai.usage.output_tokens"] == 2
    assert upstream.attributes["gen_ai.response.finish_reasons"] == ["length"]


def test_without_tracing_the_context_is_passed_on_as_it_came(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(
        "from opentelemetry import baggage, trace\n"
        "def score_unstructured(model, data, query):\n"
        "    here = trace.get_current_span().get_span_context()\n"
        "    return f'{here.trace_id:x} {here.span_id:x} {baggage.get_baggage(\"team\")}'\n"
    )
    context = {"traceparent": f"00-{7:032x}-{9:016x}-01", "tracestate": "vendor=1", "baggage": "team=blue"}
    with running_backend(behave) as backend:
        flags = ["--backend", backend.url, "--backend-ready-path", "/ready", "--target-type", "unstructured"]
        server = serve(tmp_path, *flags)
        httpx2.get(f"{server.url}/directAccess/plain?x=1", headers=context, trust_env=False)
        answer = httpx2.post(f"{server.url}/predictUnstructured/", content="x", headers=context, trust_env=False)
    (request,) = backend.requests
    passed = {name.decode(): value.decode() for name, value in request.headers}
    assert {name: passed[name] for name in context} == context
    assert answer.text == "7 9 blue"


def test_a_collector_that_is_not_there_costs_a_few_lines_and_no_answer(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(CHAT)
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    server = serve(tmp_path, "--target-type", "textgeneration", env=env)
    for _ in range(20):
        asked = {"model": "x", "messages": []}
        assert httpx2.post(f"{server.url}/v1/chat/completions", json=asked, trust_env=False).status_code == 200
    assert server.stop() == 0
    assert len([line for line in server.log().splitlines() if "export" in line.lower()]) < 30


def test_rows_that_an_llm_backend_answers_have_a_span_for_each_prompt(
    serve: ServeFixture, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.clear()
    (tmp_path / "model-metadata.yaml").write_text("name: rows\ntargetType: textgeneration\n")
    with running_backend(behave) as backend:
        flags = ["--backend", backend.url, "--backend-ready-path", "/ready", "--target-name", "answer"]
        flags += ["--generation-model", "tiny"]
        server = serve(tmp_path, *flags, env={"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.grpc_url})
        headers = {"content-type": "text/csv"}
        rows = "promptText\nwho?\nwhat?\n"
        answer = httpx2.post(f"{server.url}/predict/", content=rows, headers=headers, trust_env=False)
        assert answer.status_code == 200, answer.text
        assert server.stop() == 0
    spans = receiver.wait_for(lambda spans: len(spans) >= 3)
    (one,) = (span for span in spans if span.kind == SERVER)
    asked = [span for span in spans if span.kind == CLIENT]
    assert [(span.name, span.parent_id) for span in asked] == [("chat tiny", one.span_id)] * 2
    assert {span.attributes["gen_ai.usage.output_tokens"] for span in asked} == {3}
    ids = {dict(request.headers)[b"traceparent"].decode().split("-")[2] for request in backend.requests}
    assert ids == {span.span_id for span in asked}
