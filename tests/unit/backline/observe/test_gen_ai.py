"""What a span says of a chat."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.observe.gen_ai import ChatWatch, operation_of

ASKED = {
    "model": "tiny",
    "messages": [
        {"role": "system", "content": [{"type": "text", "text": "be brief"}]},
        {"role": "user", "content": "who?"},
    ],
    "temperature": 1,
    "max_completion_tokens": 9,
    "stop": "x",
    "n": 2,
    "response_format": {"type": "json_object"},
}
ANSWER = {
    "id": "c-1",
    "model": "tiny-2",
    "choices": [
        {"index": 1, "finish_reason": "length", "message": {"role": "assistant", "content": "nobody"}},
        {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "you"}},
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4},
}
STREAM: list[dict[str, Any]] = [
    {"id": "c-1", "model": "tiny-2", "choices": [{"index": 0, "finish_reason": None, "delta": {"content": "yo"}}]},
    *({"id": "c-1", "choices": [{"index": 0, "finish_reason": None, "delta": {"content": "u"}}]} for _ in range(200)),
    {"id": "c-1", "choices": [{"index": 0, "finish_reason": "stop", "delta": {}}], "usage": None},
    {"id": "c-1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 201}},
]


def read(asked: bytes, answer: bytes, *, content: bool = False, size: int = 1 << 20, **headers: str) -> dict[str, Any]:
    watch = ChatWatch("chat", content=content)
    for start in range(0, len(asked), size):
        watch.asked(asked[start : start + size])
    watch.answer_begins([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])
    for start in range(0, len(answer), size):
        watch.answered(answer[start : start + size])
    return watch.attributes()


def events(pieces: list[dict[str, Any]]) -> bytes:
    return b"".join(b"data: %s\n\n" % json.dumps(piece).encode() for piece in pieces) + b"data: [DONE]\n\n"


def test_a_whole_answer_is_described_without_what_is_said() -> None:
    found = read(json.dumps(ASKED).encode(), json.dumps(ANSWER).encode(), content_type="application/json")
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "tiny",
        "gen_ai.request.temperature": 1.0,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.choice.count": 2,
        "gen_ai.request.stop_sequences": ["x"],
        "gen_ai.output.type": "json",
        "gen_ai.response.id": "c-1",
        "gen_ai.response.model": "tiny-2",
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "gen_ai.usage.input_tokens": 3,
        "gen_ai.usage.output_tokens": 4,
    }


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_a_stream_is_described_however_it_is_cut(size: int) -> None:
    found = read(b"{}", events(STREAM), content_type="text/event-stream; charset=utf-8", size=size)
    assert found["gen_ai.response.model"] == "tiny-2"
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert found["gen_ai.usage.output_tokens"] == 201


def test_what_is_said_is_there_on_request() -> None:
    whole = read(json.dumps(ASKED).encode(), json.dumps(ANSWER).encode(), content=True)
    assert json.loads(whole["gen_ai.input.messages"]) == [
        {"role": "system", "parts": [{"type": "text", "content": "be brief"}]},
        {"role": "user", "parts": [{"type": "text", "content": "who?"}]},
    ]
    assert json.loads(whole["gen_ai.output.messages"])[1]["parts"] == [{"type": "text", "content": "you"}]
    streamed = read(b"{}", events(STREAM), content=True, content_type="text/event-stream")
    assert json.loads(streamed["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "yo" + "u" * 200}]}
    ]
    assert streamed["gen_ai.usage.output_tokens"] == 201


def test_what_is_too_long_or_compressed_is_left() -> None:
    long = json.dumps({**ASKED, "messages": [{"role": "user", "content": "x" * 300_000}]}).encode()
    assert read(long, json.dumps(ANSWER).encode())["gen_ai.response.id"] == "c-1"
    assert "gen_ai.request.model" not in read(long, b"")
    assert "gen_ai.response.id" not in read(b"{}", json.dumps(ANSWER).encode(), content_encoding="gzip")
    assert read(b"{}", b"x" * 1_000_000) == {"gen_ai.operation.name": "chat"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*ASKED, *ANSWER, *ANSWER["choices"][0], "index"]), inner, max_size=4)  # type: ignore[index]
    ),
    max_leaves=12,
)


@given(JSON, JSON, st.booleans(), st.booleans())
def test_whatever_is_sent_makes_attributes_and_no_error(asked: Any, answer: Any, content: bool, stream: bool) -> None:
    body = events([answer]) if stream else json.dumps(answer).encode()
    kind = "text/event-stream" if stream else "application/json"
    found = read(json.dumps(asked).encode(), body, content=content, content_type=kind)
    assert all(isinstance(value, str | int | float | list) for value in found.values())


def test_only_routes_of_the_protocol_are_read_along() -> None:
    assert operation_of("/v1/chat/completions/") == "chat"
    assert operation_of("/directAccess/v1/embeddings") == "embeddings"
    assert operation_of("/predict/") is None
