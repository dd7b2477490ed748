"""The official OpenAI client against a model folder with a ``chat`` hook: what it does with OpenAI, it does here."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

# Objects of the client library itself, subclasses of them with fields of their own, and plain dicts.
MODEL = """
import json
import time

from openai.types.chat import ChatCompletion, ChatCompletionChunk


class Cited(ChatCompletion):
    citations: list = []


class Unauthorized(Exception):
    code = 401
    description = "who are you?"


USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


def completion(params, message, reason="stop"):
    return Cited(
        id="chatcmpl-1", object="chat.completion", created=1, model=params["model"], usage=USAGE, citations=["a", "b"],
        choices=[{"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}],
    )


def chunk(params, delta, reason=None, **more):
    return ChatCompletionChunk(
        id="chatcmpl-1", object="chat.completion.chunk", created=1, model=params["model"],
        choices=[{"index": 0, "delta": delta, "finish_reason": reason}], **more,
    )


def stream(params, text):
    yield chunk(params, {"role": "assistant", "content": ""})
    if params.get("tools"):
        function = CALL["function"]
        call = {"index": 0, **CALL, "function": {"name": function["name"], "arguments": ""}}
        yield chunk(params, {"tool_calls": [call]})
        for piece in ('{"city"', ': "Oslo"}'):
            yield chunk(params, {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
        yield chunk(params, {}, "tool_calls")
        return
    for word in text.split(" "):
        if word == "broken":
            raise RuntimeError("a broken word")
        yield chunk(params, {"content": word + " "})
        time.sleep(params.get("pause", 0))
    yield chunk(params, {}, "stop")
    if params.get("stream_options", {}).get("include_usage"):
        yield {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": params["model"],
               "choices": [], "usage": USAGE}


def chat(completion_create_params, model, **kwargs):
    params = completion_create_params
    text = params["messages"][-1]["content"]
    if kwargs["headers"].get("authorization") != "Bearer secret":
        raise Unauthorized
    if text == "limit":
        error = Exception("slow down")
        error.status_code, error.detail, error.headers = 429, "slow down", {"Retry-After": "0"}
        raise error
    if params.get("stream"):
        return stream(params, text)
    if params.get("tools"):
        return completion(params, {"content": None, "tool_calls": [CALL]}, "tool_calls")
    return completion(params, {"content": text.upper()})


def get_supported_llm_models(model):
    return [{"id": "tiny", "owned_by": "us"}, "large"]
"""
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def server(serve_for_module: ServeFixture, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("openai")
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: agenticworkflow\n")
    return serve_for_module(folder, "--target-name", "answer")


@pytest.fixture(params=["", "/v1"], ids=["root", "v1"])
def base_url(request: pytest.FixtureRequest, server: Server) -> str:
    return f"{server.url}{request.param}"


@pytest.fixture
def client(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="secret", max_retries=0) as made:
        yield made


def says(text: str, **more: Any) -> Any:
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **more}


def test_a_completion_keeps_its_own_fields_and_has_ids(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**says("hello"), extra_headers={"X-Request-ID": "mine"})
    assert answer.choices[0].message.content == "HELLO"
    assert (answer.usage.total_tokens, answer.model) == (5, "tiny")
    assert answer.citations == ["a", "b"]
    assert len(answer.datarobot_association_id) == 36
    assert answer._request_id == "mine"


def test_a_stream_comes_chunk_by_chunk_with_usage_if_asked(client: openai.OpenAI) -> None:
    with client.chat.completions.create(**says("one two", stream=True)) as stream:
        chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two "
    assert chunks[-1].choices[0].finish_reason == "stop"
    asked = says("one", stream=True, stream_options={"include_usage": True})
    last = list(client.chat.completions.create(**asked))[-1]
    assert (last.choices, last.usage.total_tokens) == ([], 5)


def test_the_clients_own_stream_helper_puts_it_together(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(**says("one two")) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert final.choices[0].message.content == "one two "
    assert {"chunk", "content.delta", "content.done"} <= kinds


def test_tool_calls_whole_and_streamed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(**says("weather?", tools=[TOOL]))
    assert answer.choices[0].finish_reason == "tool_calls"
    assert answer.choices[0].message.tool_calls[0].function.arguments == '{"city": "Oslo"}'
    with client.chat.completions.stream(**says("weather?", tools=[TOOL])) as stream:
        call = stream.get_final_completion().choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city": "Oslo"}')


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    models = client.models.list().data
    assert [(model.id, model.owned_by) for model in models] == [("tiny", "us"), ("large", "DataRobot")]


@pytest.mark.parametrize("stream", [False, True])
def test_errors_are_the_clients_own_exceptions(client: openai.OpenAI, stream: bool) -> None:
    with pytest.raises(openai.AuthenticationError, match="who are you"):
        client.with_options(api_key="wrong").chat.completions.create(**says("hi", stream=stream))
    with pytest.raises(openai.RateLimitError, match="slow down"):
        client.chat.completions.create(**says("limit", stream=stream))
    with pytest.raises(openai.InternalServerError, match="KeyError: 'messages'") as failed:
        client.post("/chat/completions", body={"model": "m", "stream": stream}, cast_to=object)
    assert failed.value.code == "hook_failed"


def test_an_error_in_the_middle_is_raised_by_the_clients_iterator(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(**says("all is broken here", stream=True))
    assert [next(stream).choices[0].delta.content for _ in range(3)] == ["", "all ", "is "]
    with pytest.raises(openai.APIError, match="a broken word") as failed:
        next(stream)
    assert failed.value.code == "hook_failed"


def test_the_async_client_has_many_streams_open_at_once(server: Server) -> None:
    async def stream(client: openai.AsyncOpenAI, number: int) -> str:
        answer = await client.chat.completions.create(
            **says(f"this is {number}", stream=True, extra_body={"pause": 0.1})
        )
        return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])

    async def whole(client: openai.AsyncOpenAI, number: int) -> str:
        answer = await client.chat.completions.create(**says(f"this is {number}"))
        return answer.choices[0].message.content or ""

    async def main() -> None:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0) as client:
            asked = [stream(client, number) for number in range(32)] + [whole(client, number) for number in range(32)]
            said = await asyncio.gather(*asked)
            assert said[:32] == [f"this is {number} " for number in range(32)]
            assert said[32:] == [f"THIS IS {number}" for number in range(32)]
            assert [model.id async for model in client.models.list()] == ["tiny", "large"]
            with pytest.raises(openai.APIError, match="a broken word"):
                async for _ in await client.chat.completions.create(**says("broken", stream=True)):
                    pass
            async with client.chat.completions.stream(**says("one two")) as helper:
                assert (await helper.get_final_completion()).choices[0].message.content == "one two "

    asyncio.run(main())


def test_a_chat_that_failed_is_not_asked_again_by_the_client(server: Server) -> None:
    """It may have cost money; the client would by itself repeat every 5xx."""
    with openai.OpenAI(base_url=server.url, api_key="secret", max_retries=2) as client:
        options: Any = {"headers": {"X-Request-ID": "once"}}
        with pytest.raises(openai.InternalServerError):
            client.post("/chat/completions", body={"model": "m"}, cast_to=object, options=options)
        client.models.list()
    deadline = time.monotonic() + 20
    while not (logged := server.log().count("[once] 500 hook_failed")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert logged == 1
