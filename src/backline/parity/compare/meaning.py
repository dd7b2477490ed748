"""What an answer says, as plain values: JSON, lines of JSON, tables by column, event streams by what they add up to."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from backline.parity.compare import columnar, events
from backline.parity.exchange import Answer, media_type

_LINES = frozenset({"application/x-ndjson", "application/ndjson", "application/jsonl", "application/jsonlines",
                    "application/x-jsonlines"})  # fmt: skip
_CSV = frozenset({"text/csv", "application/csv"})
# As numbers are written; 007 is a name.
_INTEGER = re.compile(r"[+-]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]*)?\.[0-9]+|(?:0|[1-9][0-9]*)\.?)(?:[eE][+-]?[0-9]+)?")
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf,
               "infinity": math.inf, "-infinity": -math.inf}  # fmt: skip
_MOST_UNPACKED = 512 << 20


class Unreadable(Exception):
    """The body is not what its content type says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning:
    """``document`` is what the answer says. For a table it maps columns to their values; then ``columns`` has their
    order, and ``types`` those that the format itself states. ``kind`` is a word for people.
    """

    kind: str
    document: Any
    columns: tuple[str, ...] | None = None
    types: Mapping[str, str] | None = None


def meaning_of(answer: Answer) -> Meaning:
    """Return what an answer says. Raises ``Unreadable`` where it is not what its content type says."""
    body = _unpacked(answer)
    content_type = answer.header("content-type")
    media = media_type(content_type)
    if not body:
        return Meaning(kind="nothing", document=None)
    if media == "application/json" or media.endswith("+json") or media == "text/json":
        return Meaning(kind="JSON", document=_json(body))
    if media in _LINES:
        lines = [line for line in body.split(b"\n") if line.strip()]
        return Meaning(kind="JSON lines", document=[_json(line) for line in lines])
    if media in _CSV:
        return _csv(_text(body, content_type))
    if media == "text/event-stream":
        return Meaning(kind="event stream", document=events.assembled(_text(body, content_type)))
    if media in columnar.ARROW or media in columnar.PARQUET:
        try:
            columns, types = columnar.read(body, media)
        except ValueError as exc:
            raise Unreadable(str(exc)) from exc
        return Meaning(kind="table", document=columns, columns=tuple(columns), types=types)
    if not media:
        try:
            return Meaning(kind="JSON", document=_json(body))
        except Unreadable:
            pass
    if media.startswith("text/") or not media:
        return Meaning(kind="text", document=_text(body, content_type))
    return Meaning(kind="bytes", document=body)


def _unpacked(answer: Answer) -> bytes:
    coding = answer.header("content-encoding").strip().lower()
    unpack: Callable[[bytes], bytes] | None = {"gzip": _gunzip, "x-gzip": _gunzip, "deflate": _inflate}.get(coding)
    if unpack is None:
        return answer.body
    try:
        return unpack(answer.body)
    except (OSError, EOFError, zlib.error) as exc:
        raise Unreadable(f"it says that it is {coding}, and is not: {exc}") from exc


def _gunzip(body: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(body)) as file:
        return _bounded(file.read(_MOST_UNPACKED + 1))


def _inflate(body: bytes) -> bytes:
    try:
        return _bounded(zlib.decompressobj().decompress(body, _MOST_UNPACKED + 1))
    except zlib.error:
        return _bounded(zlib.decompressobj(-zlib.MAX_WBITS).decompress(body, _MOST_UNPACKED + 1))  # as some do


def _bounded(content: bytes) -> bytes:
    if len(content) > _MOST_UNPACKED:
        raise Unreadable(f"it unpacks to more than {_MOST_UNPACKED >> 20} MiB")
    return content


def _json(body: bytes) -> Any:
    try:
        return _by_column(json.loads(body))
    except (ValueError, RecursionError) as exc:
        raise Unreadable(f"it is no JSON: {exc}") from exc


def _by_column(value: Any) -> Any:
    """Return a document with its tables in split form turned around, so that a field has its column's name.

    ``{"columns": ["a", "b"], "data": [[1, 2]]}`` becomes ``{"columns": ["a", "b"], "data": {"a": [1], "b": [2]}}``.
    """
    if isinstance(value, list):
        return [_by_column(each) if isinstance(each, list | dict) else each for each in value]
    if not isinstance(value, dict):
        return value
    names, rows = value.get("columns"), value.get("data")
    if (
        isinstance(names, list)
        and isinstance(rows, list)
        and rows
        and len({name for name in names if isinstance(name, str)}) == len(names)
        and all(isinstance(row, list) and len(row) == len(names) for row in rows)
    ):
        return {**value, "data": {name: [row[place] for row in rows] for place, name in enumerate(names)}}
    return {key: _by_column(each) if isinstance(each, list | dict) else each for key, each in value.items()}


def _text(body: bytes, content_type: str) -> str:
    found = re.search(r"charset=\"?([\w-]+)", content_type, re.IGNORECASE)
    try:
        return body.decode(found[1] if found else "utf-8")
    except (LookupError, UnicodeDecodeError) as exc:
        raise Unreadable(f"its text cannot be read: {exc}") from exc


def _csv(text: str) -> Meaning:
    try:
        rows = [row for row in csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True) if row]
    except csv.Error as exc:
        raise Unreadable(f"it is no CSV: {exc}") from exc
    if not rows:
        return Meaning(kind="table", document={}, columns=())
    head, *data = rows
    for number, row in enumerate(data, 2):
        if len(row) != len(head):
            raise Unreadable(f"it is no CSV: row {number} has {len(row)} fields and the header {len(head)}")
    names = [name if head.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(head)]
    columns = {name: [_cell(row[place]) for row in data] for place, name in enumerate(names)}
    return Meaning(kind="table", document=columns, columns=tuple(names))


def _cell(text: str) -> Any:
    if text == "":
        return None
    if _INTEGER.fullmatch(text) and len(text) < 300:
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return _NOT_FINITE.get(text.lower(), text)
