"""What OpenAI's own package gets from a server, as JSON; run in the environment ``transformers``.

``python openai_traffic.py BASE_URL MODEL``
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import openai

HELLO = [{"role": "user", "content": "Say hello."}]
WEATHER = [{"role": "user", "content": "How is the weather in Paris?"}]
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}]
SAME = {"temperature": 0, "max_tokens": 60}


def stream_of(chunks: list[Any]) -> dict[str, Any]:
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    finishes = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    return {
        "text": "".join(delta.content or "" for delta in deltas),
        "pieces": len([delta for delta in deltas if delta.content]),
        "calls": [[call.function.name, call.function.arguments] for call in calls],
        "finish": finishes[-1],
        "usage": [chunk.usage.total_tokens for chunk in chunks if chunk.usage],
    }


def completion_of(answer: Any) -> dict[str, Any]:
    choice = answer.choices[0]
    return {
        "text": choice.message.content,
        "calls": [[call.function.name, call.function.arguments] for call in choice.message.tool_calls or ()],
        "finish": choice.finish_reason,
        "usage": answer.usage.total_tokens,
    }


def response_of(events: Any) -> str:
    return "".join(event.delta for event in events if event.type == "response.output_text.delta")


def error_of(exc: openai.APIStatusError) -> list[Any]:
    return [type(exc).__name__, exc.status_code]


def sync_traffic(client: openai.OpenAI, model: str) -> dict[str, Any]:
    create = client.chat.completions.create

    def failed(call: Callable[[], Any]) -> list[Any]:
        try:
            call()
        except openai.APIStatusError as exc:
            return error_of(exc)
        return ["none"]

    raw = client.chat.completions.with_raw_response.create(model=model, messages=HELLO, **SAME)
    options = {"include_usage": True}
    return {
        "models": [each.id for each in client.models.list()],
        "plain": completion_of(raw.parse()),
        "association": bool(raw.headers.get("x-datarobot-association-id")),
        "streamed": stream_of(list(create(model=model, messages=HELLO, stream=True, stream_options=options, **SAME))),
        "tool": completion_of(create(model=model, messages=WEATHER, tools=TOOLS, **SAME)),
        "streamed tool": stream_of(list(create(model=model, messages=WEATHER, tools=TOOLS, stream=True, **SAME))),
        "completion": client.completions.create(model=model, prompt="Say", **SAME).choices[0].finish_reason,
        "response": response_of(client.responses.create(model=model, input="Say hello.", temperature=0, stream=True)),
        "no embeddings": failed(lambda: client.embeddings.create(model=model, input="Say hello.")),
        "bad field": failed(lambda: create(model=model, messages=HELLO, extra_body={"audio": 1})),
        "no response": failed(lambda: client.responses.retrieve("resp_1")),
    }


async def async_traffic(url: str, model: str) -> dict[str, Any]:
    async with openai.AsyncOpenAI(base_url=url, api_key="any", max_retries=0, timeout=120) as client:
        create = client.chat.completions.create
        stream = await create(model=model, messages=HELLO, stream=True, **SAME)
        plain = [create(model=model, messages=HELLO, **SAME) for _ in range(3)]
        left = await create(model=model, messages=HELLO, stream=True, **SAME)
        async for _ in left:
            break
        await left.close()
        return {
            "streamed": stream_of([chunk async for chunk in stream]),
            "plain": [completion_of(answer) for answer in await asyncio.gather(*plain)],
        }


def main(url: str, model: str) -> None:
    with openai.OpenAI(base_url=url, api_key="any", max_retries=0, timeout=120) as client:
        seen = sync_traffic(client, model)
    seen["async"] = asyncio.run(async_traffic(url, model))
    print(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
