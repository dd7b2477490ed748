from __future__ import annotations

import datetime as dt
import json
import uuid
from typing import Any, ClassVar

import numpy as np
import pytest

from backline_worker.contract.chat import association_id, is_stream, read_params, write_completion, write_models
from backline_worker.errors import DecodeError, EmptyBody, ResultInvalid


class Pydantic2:
    def model_dump(self) -> dict[str, Any]:
        return {"id": "2", "extra_field": 1}


class Pydantic1:
    def dict(self) -> Any:
        return {"id": "1", "created": dt.datetime(2024, 1, 1, tzinfo=dt.UTC)}

    def __iter__(self) -> Any:  # as pydantic's models have
        return iter([])


class Other:
    def to_dict(self) -> dict[str, Any]:
        return {"id": "3", "nested": Pydantic2()}


def completion(result: Any) -> Any:
    return json.loads(bytes(write_completion(result, "assoc").body))


def test_completions_of_every_kind_keep_their_fields() -> None:
    assert completion({"id": "0", "x": [1]}) == {"id": "0", "x": [1], "datarobot_association_id": "assoc"}
    assert completion(Pydantic2())["extra_field"] == 1
    assert completion(Pydantic1())["created"].startswith("2024-01-01")
    assert completion(Other())["nested"] == {"id": "2", "extra_field": 1}


def test_values_that_json_does_not_know_are_written_sensibly() -> None:
    body = completion({"a": np.float32(0.5), "b": np.arange(2), "c": float("nan"), "d": {1}, "e": b"x"})
    assert body == {"a": 0.5, "b": [0, 1], "c": None, "d": [1], "e": "x", "datarobot_association_id": "assoc"}


def test_half_a_surrogate_pair_does_not_cost_the_answer() -> None:
    assert completion({"text": "\ud83d"})["text"] == "\ud83d"


def test_pydantic_models_of_both_versions_are_written() -> None:
    pydantic = pytest.importorskip("pydantic")
    v1 = pytest.importorskip("pydantic.v1")

    class New(pydantic.BaseModel):  # type: ignore[misc,name-defined]
        model_config: ClassVar[Any] = {"extra": "allow"}
        id: str

    class Old(v1.BaseModel):  # type: ignore[misc,name-defined]
        id: str

    assert completion(New(id="n", more=1)) == {"id": "n", "more": 1, "datarobot_association_id": "assoc"}
    assert completion(Old(id="o"))["id"] == "o"
    assert not is_stream(New(id="n"))
    assert not is_stream(Old(id="o"))


def test_anything_else_is_refused() -> None:
    with pytest.raises(ResultInvalid, match="chat returned str"):
        write_completion("hello", "a")
    with pytest.raises(ResultInvalid, match="JSON cannot hold"):
        write_completion({"a": object()}, "a")


def test_streams_are_told_from_completions() -> None:
    async def chunks() -> Any:
        yield 1

    assert is_stream(iter([1]))
    assert is_stream(chunks())
    assert not is_stream({"a": 1})
    assert not is_stream(Pydantic1())
    assert not is_stream("text")


def test_association_id_is_the_callers_or_a_new_one() -> None:
    assert association_id({"datarobot_association_id": "mine"}, {}) == "mine"
    assert association_id({}, {"x-datarobot-association-id": "theirs"}) == "theirs"
    assert uuid.UUID(association_id({}, {})).version == 4


def test_request_has_to_be_a_json_object() -> None:
    assert read_params(b'{"messages": [], "unknown": 1}') == {"messages": [], "unknown": 1}
    with pytest.raises(EmptyBody):
        read_params(b" ")
    with pytest.raises(DecodeError, match="not JSON"):
        read_params(b"{")
    with pytest.raises(DecodeError, match="JSON list"):
        read_params(b"[]")


def models(result: Any, llm_id: str | None = None) -> Any:
    return json.loads(bytes(write_models(result, llm_id).body))["data"]


def test_models_from_the_hook_the_setting_or_none() -> None:
    record = {"id": "gpt", "object": "model", "created": 1735689600, "owned_by": "DataRobot"}
    assert models(None) == []
    assert models(None, "gpt") == [record]
    assert models([{"id": "gpt", "owned_by": "us"}]) == [{**record, "owned_by": "us"}]
    assert models(["gpt"]) == [record]
    assert models({"object": "list", "data": [{"id": "gpt"}]}) == [record]
    assert models([Pydantic2()])[0]["extra_field"] == 1
    assert models(item for item in ["gpt"]) == [record]
    assert models([], "gpt") == []


@pytest.mark.parametrize("result", [3, [{"name": "x"}], "gpt"], ids=str)
def test_models_of_another_kind_are_refused(result: Any) -> None:
    with pytest.raises(ResultInvalid, match="get_supported_llm_models returned"):
        models(result)
