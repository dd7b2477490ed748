"""A backend that costs as little as one in Python can: a small chat completion, and a stream of 100 chunks."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

CHUNKS = 100


def _chunk(number: int) -> bytes:
    content = {
        "choices": [{"index": 0, "delta": {"content": f"word {number:03d} "}}],
        "object": "chat.completion.chunk",
    }
    return b"data: " + json.dumps(content).encode() + b"\n\n"


_STREAM = [_chunk(number) for number in range(CHUNKS)]
_ANSWER = json.dumps({"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello."}}]}).encode()
_LENGTH = (b"content-length", b"%d" % len(_ANSWER))


async def app(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """Answer ``/stream`` with chunks, each sent by itself, and everything else with a small JSON body (ASGI)."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    if scope["path"].endswith("/stream"):
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for chunk in _STREAM:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        headers = [(b"content-type", b"application/json"), _LENGTH]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": _ANSWER})
