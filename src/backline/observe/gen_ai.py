"""What a chat is about, by OpenTelemetry's conventions for generative AI, read along as it passes.

Only requests that are traced are read along, and never more than ``_MOST_BYTES`` of them: what is longer has fewer
attributes. What is said stays out unless the operator asks for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_MOST_BYTES = 256 << 10  # of a request, of an answer, of an event of a stream
_MOST_EVENTS = 64  # that tell something, of a stream
_MOST_CHARACTERS = 256  # of a value
_OPERATIONS = {
    "/chat/completions": "chat",
    "/completions": "text_completion",
    "/embeddings": "embeddings",
    "/responses": "chat",
}
# Of a stream's events, most say nothing but a word: those that tell more have a reason or figures.
_TELLING = re.compile(rb'"finish_reason"\s*:\s*"|"usage"\s*:\s*\{')
_NUMBERS = {
    "temperature": "gen_ai.request.temperature",
    "top_p": "gen_ai.request.top_p",
    "frequency_penalty": "gen_ai.request.frequency_penalty",
    "presence_penalty": "gen_ai.request.presence_penalty",
}
_WHOLE = {
    "max_tokens": "gen_ai.request.max_tokens",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "top_k": "gen_ai.request.top_k",
    "seed": "gen_ai.request.seed",
}


def operation_of(path: str) -> str | None:
    """Return the conventions' name for what is asked for at this path, ``None`` where it is none of them."""
    path = path.rstrip("/")
    return next((operation for end, operation in _OPERATIONS.items() if path.endswith(end)), None)


class ChatWatch:
    """Reads one request and its answer along. ``content``: also what is said."""

    def __init__(self, operation: str, *, content: bool) -> None:
        self.operation = operation
        self.model: str | None = None
        """The model that was asked for, once ``attributes`` has been called."""
        self._content = content
        self._request = bytearray()
        self._answer = bytearray()
        self._too_long = False
        self._streamed = False
        self._readable = True
        self._events: list[dict[str, Any]] = []
        self._said: dict[int, list[str]] = {}
        self._said_characters = 0

    def asked(self, piece: bytes) -> None:
        """A piece of the request's body has come."""
        if len(self._request) + len(piece) <= _MOST_BYTES:
            self._request += piece
        else:
            self._request.clear()
            self._too_long = True

    def answer_begins(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """The answer's head is sent."""
        named = {name.lower(): value for name, value in headers}
        self._streamed = named.get(b"content-type", b"").startswith(b"text/event-stream")
        self._readable = named.get(b"content-encoding", b"identity") == b"identity"

    def answered(self, piece: bytes) -> None:
        """A piece of the answer's body is sent."""
        if not self._readable or not piece:
            return
        self._answer += piece
        if self._streamed:
            *lines, rest = self._answer.split(b"\n")
            self._answer = rest
            for line in lines:
                telling = not self._events or _TELLING.search(line) is not None
                if line.startswith(b"data:") and (telling or self._content):
                    self._take_event(bytes(line[5:]), telling=telling)
        if len(self._answer) > _MOST_BYTES:
            self._answer.clear()
            self._readable = False

    def attributes(self) -> dict[str, Any]:
        """Return what is known in the end."""
        found: dict[str, Any] = {"gen_ai.operation.name": self.operation}
        request = {} if self._too_long else _object(bytes(self._request))
        _describe_request(request, found)
        self.model = found.get("gen_ai.request.model")
        answers = self._events if self._streamed else [_object(bytes(self._answer))]
        _describe_answers(answers, found)
        if self._content:
            _add(found, "gen_ai.input.messages", _messages(request.get("messages")))
            _add(found, "gen_ai.output.messages", self._output(answers))
        return found

    def _take_event(self, data: bytes, *, telling: bool) -> None:
        event = _object(data)
        if not event:
            return
        for choice in _dicts(event.get("choices")):
            said = _dict(choice.get("delta")).get("content")
            if self._content and isinstance(said, str) and self._said_characters < _MOST_BYTES:
                self._said_characters += len(said)
                self._said.setdefault(_whole(choice.get("index")) or 0, []).append(said)
        if telling and len(self._events) < _MOST_EVENTS:
            self._events.append({key: event.get(key) for key in ("id", "model", "choices", "usage")})

    def _output(self, answers: list[dict[str, Any]]) -> str | None:
        if self._streamed:
            said = [{"role": "assistant", "content": "".join(pieces)} for _, pieces in sorted(self._said.items())]
        else:
            said = [_dict(choice.get("message")) for choice in _dicts(answers[0].get("choices"))]
        return _messages(said)


def _describe_request(request: Mapping[str, Any], found: dict[str, Any]) -> None:
    _add(found, "gen_ai.request.model", _text(request.get("model")))
    for name, attribute in _NUMBERS.items():
        value = request.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[attribute] = float(value)
    for name, attribute in _WHOLE.items():
        _add(found, attribute, _whole(request.get(name)))
    choices = _whole(request.get("n"))
    if choices not in (None, 1):
        found["gen_ai.request.choice.count"] = choices
    stop = request.get("stop")
    stops = [stop] if isinstance(stop, str) else stop if isinstance(stop, list) else []
    texts = [text for each in stops[:16] if (text := _text(each)) is not None]
    _add(found, "gen_ai.request.stop_sequences", texts or None)
    wanted = _text(_dict(request.get("response_format")).get("type"))
    if wanted is not None:
        found["gen_ai.output.type"] = "json" if wanted.startswith("json") else wanted


def _describe_answers(answers: Iterable[Mapping[str, Any]], found: dict[str, Any]) -> None:
    reasons: dict[int, str] = {}
    for answer in answers:
        _add(found, "gen_ai.response.id", _text(answer.get("id")))
        _add(found, "gen_ai.response.model", _text(answer.get("model")))
        for choice in _dicts(answer.get("choices")):
            reason = _text(choice.get("finish_reason"))
            if reason is not None:
                reasons[_whole(choice.get("index")) or 0] = reason
        usage = _dict(answer.get("usage"))
        for attribute, names in (
            ("gen_ai.usage.input_tokens", ("prompt_tokens", "input_tokens")),
            ("gen_ai.usage.output_tokens", ("completion_tokens", "output_tokens")),
        ):
            for name in names:
                _add(found, attribute, _whole(usage.get(name)))
    _add(found, "gen_ai.response.finish_reasons", [reasons[index] for index in sorted(reasons)] or None)


def _messages(messages: Any) -> str | None:
    """Return messages in the form that the conventions give them, as JSON."""
    shaped = []
    for message in _dicts(messages):
        content = message.get("content")
        texts = [content] if isinstance(content, str) else [part.get("text") for part in _dicts(content)]
        parts: list[dict[str, Any]] = [{"type": "text", "content": text} for text in texts if isinstance(text, str)]
        parts += [
            {"type": "tool_call", "id": call.get("id"), **_dict(call.get("function"))}
            for call in _dicts(message.get("tool_calls"))
        ]
        shaped.append({"role": message.get("role"), "parts": parts})
    return json.dumps(shaped, ensure_ascii=False) if shaped else None


def _object(text: bytes) -> dict[str, Any]:
    try:
        return _dict(json.loads(text))
    except (ValueError, RecursionError):
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: Any) -> str | None:
    return value[:_MOST_CHARACTERS] if isinstance(value, str) and value else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 62 else None


def _add(found: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        found[name] = value
