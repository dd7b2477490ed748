"""Streamed chats: chunks as server-sent events, and completions made into chunks and back."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping

from ..errors import ResultInvalid
from .chat import ASSOCIATION_ID, to_json, to_plain

CONTENT_TYPE = "text/event-stream; charset=utf-8"


def encode_chunk(chunk: Any, association: str) -> bytes:
    """Return one chunk of the hook's as an event. Raises ``ResultInvalid``."""
    fields = _fields(chunk)
    if fields is not chunk:
        # An object names all that it could hold. In a delta null would be news, to a client that adds deltas up.
        choices = [_without_null_news(choice) for choice in fields.get("choices") or ()]
        fields = {**fields, "choices": choices}
    return b"data: " + to_json({**fields, ASSOCIATION_ID: association}, "chat") + b"\n\n"


def completion_to_chunks(completion: Mapping[str, Any], *, with_usage: bool) -> Iterator[Dict[str, Any]]:
    """Yield a finished completion as chunks: one with what was said, one with its end, and the usage if asked for."""
    common = {key: value for key, value in completion.items() if key not in ("object", "choices", "usage")}
    common["object"] = "chat.completion.chunk"
    said: List[Dict[str, Any]] = []
    ended: List[Dict[str, Any]] = []
    for place, given in enumerate(completion.get("choices") or ()):
        choice = _fields(given)
        index = choice.get("index", place)
        delta = {key: value for key, value in _fields(choice.get("message") or {}).items() if value is not None}
        if delta.get("tool_calls"):
            calls = [_fields(call) for call in delta["tool_calls"]]
            delta["tool_calls"] = [{"index": number, **call} for number, call in enumerate(calls)]
        first = {"index": index, "delta": delta, "finish_reason": None}
        if choice.get("logprobs") is not None:
            first["logprobs"] = choice["logprobs"]
        said.append(first)
        ended.append({"index": index, "delta": {}, "finish_reason": choice.get("finish_reason") or "stop"})
    usage = {"usage": None} if with_usage else {}
    yield {**common, "choices": said, **usage}
    yield {**common, "choices": ended, **usage}
    if with_usage and completion.get("usage") is not None:
        yield {**common, "choices": [], "usage": completion["usage"]}


class Collector:
    """Puts chunks together to a completion, for a client that asked for no stream of a hook that always streams."""

    def __init__(self) -> None:
        self._completion: Dict[str, Any] = {}
        self._choices: Dict[Any, Dict[str, Any]] = {}

    def add(self, chunk: Any) -> None:
        """Take the next chunk. Raises ``ResultInvalid``."""
        fields = _fields(chunk)
        for key, value in fields.items():
            if key != "choices" and value is not None:
                self._completion[key] = value
        for place, given in enumerate(fields.get("choices") or ()):
            part = _fields(given)
            index = part.get("index", place)
            choice = self._choices.setdefault(
                index, {"index": index, "message": {"role": "assistant", "content": None}, "finish_reason": None}
            )
            if part.get("finish_reason") is not None:
                choice["finish_reason"] = part["finish_reason"]
            _add_logprobs(choice, part.get("logprobs"))
            _add_delta(choice["message"], _fields(part.get("delta") or {}))

    def completion(self) -> Dict[str, Any]:
        """Return what the chunks have said."""
        choices = [self._choices[index] for index in sorted(self._choices, key=str)]
        for choice in choices:
            for call in choice["message"].get("tool_calls", ()):
                call.pop("index", None)
        return {**self._completion, "object": "chat.completion", "choices": choices}


def _add_delta(message: Dict[str, Any], delta: Mapping[str, Any]) -> None:
    for key, value in delta.items():
        if value is None:
            continue
        if key == "tool_calls":
            _add_tool_calls(message.setdefault("tool_calls", []), value)
        elif isinstance(value, str) and isinstance(message.get(key), str) and key != "role":
            message[key] += value
        else:
            message[key] = value


def _add_tool_calls(calls: List[Dict[str, Any]], parts: Any) -> None:
    for given in parts:
        part = _fields(given)
        index = part.get("index", len(calls))
        call = next((call for call in calls if call["index"] == index), None)
        if call is None:
            call = {"index": index, "function": {"name": "", "arguments": ""}}
            calls.append(call)
        function = _fields(part.get("function") or {})
        call.update({key: value for key, value in part.items() if value is not None and key != "function"})
        for key in ("name", "arguments"):
            call["function"][key] += function.get(key) or ""


def _add_logprobs(choice: Dict[str, Any], given: Any) -> None:
    if given is None:
        return
    gathered = choice.setdefault("logprobs", {})
    for key, value in _fields(given).items():
        if isinstance(value, (list, tuple)):
            gathered[key] = [*(gathered.get(key) or ()), *value]


def _without_null_news(choice: Any) -> Any:
    if isinstance(choice, dict) and isinstance(choice.get("delta"), dict):
        return {**choice, "delta": _without_null(choice["delta"])}
    return choice


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_null(item) for item in value]
    return value


def _fields(value: Any) -> Mapping[str, Any]:
    plain = value if isinstance(value, Mapping) else to_plain(value)
    if not isinstance(plain, Mapping):
        raise ResultInvalid(
            "the stream that chat returned has {} {!r:.100} in it; expected ChatCompletionChunk objects, or dicts of "
            "their fields".format(type(value).__name__, value)
        )
    return plain
