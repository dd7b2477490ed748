"""Event streams by what they add up to: how a message was cut into pieces says nothing about it.

Chunks of OpenAI's chat and completion streams are put together to the answer that the same request gets without
streaming. Other events are a list of what they carry.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

_DONE = "[DONE]"
_LINE_END = re.compile(r"\r\n|\r|\n")


def assembled(text: str) -> dict[str, Any]:
    """Return what a stream says: ``message`` or ``events``, and whether it said that it was ``complete``."""
    events = _events(text)
    complete = bool(events) and events[-1]["data"] == _DONE
    if complete:
        events.pop()
    documents = [_json(event["data"]) for event in events]
    if documents and all(_is_chunk(document) for document in documents):
        # What is not shaped like chunks after all is compared as it came.
        with contextlib.suppress(TypeError, AttributeError):
            return {"message": _put_together(documents), "complete": complete}
    carried = [
        {"event": event["event"], "data": document} if event["event"] else document
        for event, document in zip(events, documents, strict=True)
    ]
    return {"events": carried, "complete": complete}


def _events(text: str) -> list[dict[str, str]]:
    events: list[dict[str, str]] = []
    name = ""
    data: list[str] = []
    # A blank line ends an event; what is not ended is dropped (HTML standard, section 9.2.6).
    for line in _LINE_END.split(text.removeprefix("\ufeff")):
        if not line:
            if data:
                events.append({"event": name, "data": "\n".join(data)})
            name, data = "", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            data.append(value)
        elif field == "event":
            name = value
    return events


def _json(data: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return data


def _is_chunk(document: Any) -> bool:
    return isinstance(document, dict) and isinstance(document.get("choices"), list)


def _put_together(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    choices: dict[Any, dict[str, Any]] = {}
    for chunk in chunks:
        whole |= {key: value for key, value in chunk.items() if key != "choices" and value is not None}
        for piece in chunk["choices"]:
            if isinstance(piece, dict):
                _add_choice(choices.setdefault(piece.get("index", 0), {}), piece)
    whole["choices"] = [choices[index] for index in sorted(choices, key=str)]
    for choice in whole["choices"]:
        calls = choice.get("message", {}).get("tool_calls")
        if isinstance(calls, dict):
            choice["message"]["tool_calls"] = [calls[index] for index in sorted(calls, key=str)]
    return whole


def _add_choice(choice: dict[str, Any], piece: dict[str, Any]) -> None:
    for key, value in piece.items():
        if key == "delta" and isinstance(value, dict):
            _add_delta(choice.setdefault("message", {}), value)
        elif key == "text" and isinstance(value, str):
            choice["text"] = choice.get("text", "") + value
        elif key == "logprobs" and isinstance(value, dict):
            kept = choice.setdefault("logprobs", {})
            for name, items in value.items():
                kept[name] = [*(kept.get(name) or []), *items] if isinstance(items, list) else items
        elif value is not None or key not in choice:
            choice[key] = value


def _add_delta(message: dict[str, Any], delta: dict[str, Any]) -> None:
    for key, value in delta.items():
        if key == "tool_calls" and isinstance(value, list):
            calls = message.setdefault("tool_calls", {})
            for call in value:
                if isinstance(call, dict):
                    _add_call(calls.setdefault(call.get("index", 0), {}), call)
        elif key != "role" and isinstance(value, str):
            message[key] = (message.get(key) or "") + value
        elif value is not None or key not in message:
            message[key] = value


def _add_call(call: dict[str, Any], piece: dict[str, Any]) -> None:
    for key, value in piece.items():
        if key == "function" and isinstance(value, dict):
            function = call.setdefault("function", {})
            for name, part in value.items():
                if name == "arguments" and isinstance(part, str):
                    function[name] = function.get(name, "") + part
                elif part is not None:
                    function[name] = part
        elif key != "index" and value is not None:
            call[key] = value
