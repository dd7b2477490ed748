from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline_worker.contract.chat_stream import Collector, completion_to_chunks, encode_chunk
from backline_worker.errors import ResultInvalid


class Chunk:
    """As a client library's object: it names all that it could hold."""

    def __init__(self, delta: dict[str, Any]) -> None:
        self._delta = delta

    def model_dump(self) -> dict[str, Any]:
        choice = {"index": 0, "delta": self._delta, "finish_reason": None, "logprobs": None}
        return {"id": "c", "choices": [choice], "usage": None}


def data_of(event: bytes) -> Any:
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert b"\n" not in event[:-2]
    return json.loads(event[6:])


def test_a_chunk_is_one_event_with_the_association_id() -> None:
    given = {"id": "c", "choices": [{"index": 0, "delta": {"content": "a\nb", "own": None}}], "extra": 1}
    assert data_of(encode_chunk(given, "assoc")) == {**given, "datarobot_association_id": "assoc"}


def test_null_in_an_objects_delta_is_left_out_and_elsewhere_kept() -> None:
    call = {"index": 0, "id": None, "type": None, "function": {"name": None, "arguments": "{"}}
    choice = data_of(encode_chunk(Chunk({"content": None, "tool_calls": [call]}), "a"))["choices"][0]
    assert choice["delta"] == {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}
    assert choice["finish_reason"] is None


@pytest.mark.parametrize("chunk", ["text", 7, None, [1]])
def test_what_is_no_chunk_is_told_by_its_type(chunk: Any) -> None:
    with pytest.raises(ResultInvalid, match=f"the stream that chat returned has {type(chunk).__name__} "):
        encode_chunk(chunk, "a")


TEXT = st.text(max_size=8)
CALL = st.builds(
    lambda given, function: {"id": given, "type": "function", "function": function},
    st.text(min_size=1, max_size=4),
    st.fixed_dictionaries({"name": TEXT, "arguments": TEXT}),
)
MESSAGE = st.builds(
    lambda content, calls: {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {})},
    TEXT, st.lists(CALL, max_size=3),
)  # fmt: skip
COMPLETION = st.builds(
    lambda messages, reason: {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [
            {"index": index, "message": message, "finish_reason": reason} for index, message in enumerate(messages)
        ],
        "usage": {"total_tokens": 3},
    },
    st.lists(MESSAGE, min_size=1, max_size=3), st.sampled_from(["stop", "length", "tool_calls"]),
)  # fmt: skip


@given(COMPLETION)
def test_a_completion_made_into_chunks_and_back_is_the_same(completion: dict[str, Any]) -> None:
    collector = Collector()
    chunks = list(completion_to_chunks(completion, with_usage=True))
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    for chunk in chunks:
        collector.add(json.loads(json.dumps(chunk)))
    assert collector.completion() == completion


def test_usage_is_sent_only_if_asked_for() -> None:
    completion = {"choices": [{"message": {"content": "x"}}], "usage": {"total_tokens": 3}}
    assert not any("usage" in chunk for chunk in completion_to_chunks(completion, with_usage=False))
    assert [chunk["usage"] for chunk in completion_to_chunks(completion, with_usage=True)] == [
        None, None, {"total_tokens": 3},
    ]  # fmt: skip


def test_pieces_of_a_tool_call_are_put_together() -> None:
    collector = Collector()
    for delta in (
        {"role": "assistant", "tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "f"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"a"'}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ": 1}"}}]},
    ):
        collector.add({"choices": [{"index": 0, "delta": delta}]})
    message = collector.completion()["choices"][0]["message"]
    function = {"name": "f", "arguments": '{"a": 1}'}
    assert message["tool_calls"] == [{"id": "1", "type": "function", "function": function}]
