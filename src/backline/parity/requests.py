"""Reads calls from files: JSON lines, HAR, CSV rows, and stores.

A line of JSON lines has ``method`` (POST), ``path`` (the default path), ``headers``, one of ``body`` (text),
``body_base64`` and ``json``, and where the answer is known ``answer`` with ``status``, ``headers``, ``seconds`` and a
body in the same three forms.
"""

from __future__ import annotations

import base64
import csv
import datetime as dt
import io
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from backline.errors import ConfigError
from backline.parity.exchange import Answer, Call, Request
from backline.parity.store import Store, is_store

FORMATS = ("jsonl", "har", "csv", "store")
_SUFFIXES = {".jsonl": "jsonl", ".ndjson": "jsonl", ".har": "har", ".csv": "csv"}
_LONGEST_CELL = 1 << 30  # bytes
_REQUEST_KEYS = frozenset({"method", "path", "headers", "body", "body_base64", "json", "answer", "at"})
_ANSWER_KEYS = frozenset({"status", "headers", "body", "body_base64", "json", "seconds"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a file leaves open: the path of requests, how many CSV rows make one, whether lines are bodies."""

    path: str = "/predict/"
    rows: int = 1
    lines_are_bodies: bool = False


def read_calls(path: Path, defaults: Defaults, *, format_: str | None = None) -> Iterator[Call]:
    """Yield the calls of a file, told by its content and its name. Raises ``ConfigError`` naming file and place."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file")
    kind = format_ or ("store" if is_store(path) else _SUFFIXES.get(path.suffix.lower()))
    if kind is None:
        raise ConfigError(
            f"{path}: its name does not tell what it is: .jsonl, .har and .csv do, or name one of {', '.join(FORMATS)} "
            "with --format"
        )
    if kind == "store":
        with Store.open(path) as store:
            for stored in store.calls():
                yield stored.call
        return
    reader = {"jsonl": _read_lines, "har": _read_har, "csv": _read_csv}[kind]
    found = False
    csv.field_size_limit(_LONGEST_CELL)  # the whole process's; a prompt may be longer than the 128 KiB of its default
    try:
        for call in reader(path, defaults):
            found = True
            yield call
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: is not UTF-8 (byte {exc.start}); convert it") from exc
    except csv.Error as exc:
        raise ConfigError(f"{path}: is no CSV: {exc}") from exc
    if not found:
        raise ConfigError(f"{path}: holds no request")


def _read_lines(path: Path, defaults: Defaults) -> Iterator[Call]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except (ValueError, RecursionError) as exc:
                raise ConfigError(f"{where}: is no JSON: {exc}") from exc
            if defaults.lines_are_bodies:
                yield Call(request=_json_request(defaults.path, line.strip().encode()))
            else:
                yield _call_from(record, where, defaults)


def _json_request(path: str, body: bytes) -> Request:
    return Request(method="POST", target=path, headers=[("content-type", "application/json")], body=body)


def _call_from(record: Any, where: str, defaults: Defaults) -> Call:
    if not isinstance(record, dict):
        raise ConfigError(f'{where}: is no object; write {{"path": ..., "json": ...}}, or read bodies with --bodies')
    _check_keys(record, _REQUEST_KEYS, where, "; where lines are bodies, give --bodies")
    headers = _headers(record.get("headers"), where)
    body, is_json = _body(record, where)
    if is_json and not any(name.lower() == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    method = record.get("method", "POST")
    target = record.get("path", defaults.path)
    method = _method(method, where)
    if not isinstance(target, str) or not target.startswith("/"):
        raise ConfigError(f"{where}: path is {target!r}; it begins with a slash")
    answer = None
    if (given := record.get("answer")) is not None:
        there = f"{where}: answer"
        if not isinstance(given, dict):
            raise ConfigError(f"{there} is no object")
        _check_keys(given, _ANSWER_KEYS, there, "")
        answer_body, answer_is_json = _body(given, there)
        answer_headers = _headers(given.get("headers"), there)
        if answer_is_json and not any(name.lower() == "content-type" for name, _ in answer_headers):
            answer_headers.append(("content-type", "application/json"))
        answer = Answer(
            status=int(_number(given.get("status", 200), f"{there}: status")),
            headers=answer_headers,
            body=answer_body,
            seconds=None if given.get("seconds") is None else _number(given["seconds"], f"{there}: seconds"),
        )
    request = Request(method=method, target=_target(target, where), headers=headers, body=body)
    return Call(request=request, answer=answer, at=_number(record.get("at", 0), f"{where}: at"))


def _check_keys(record: Mapping[str, Any], known: frozenset[str], where: str, more: str) -> None:
    unknown = sorted(set(record) - known)
    if unknown:
        raise ConfigError(f"{where}: unknown key {unknown[0]!r}; there are {', '.join(sorted(known))}{more}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        raise ConfigError(f"{where} is {value!r}, not a number")
    return value


def _method(given: Any, where: str) -> str:
    if not isinstance(given, str) or not given.isalpha() or not given.isascii():
        raise ConfigError(f"{where}: method is {given!r}, not a word such as POST")
    return given.upper()


def _headers(given: Any, where: str) -> list[tuple[str, str]]:
    if given is None:
        return []
    pairs = list(given.items()) if isinstance(given, dict) else given
    if not isinstance(pairs, list) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(each, str) for each in pair)
        for pair in pairs
    ):
        raise ConfigError(f"{where}: headers are an object of texts, or a list of pairs of texts")
    for name, value in pairs:
        if not _is_header(name, value):
            raise ConfigError(f"{where}: the header {name!r} has a character that no header may have")
    return [(name, value) for name, value in pairs]


def _is_header(name: str, value: str) -> bool:
    return (
        name.isascii()
        and name.replace("-", "").replace("_", "").isalnum()
        and not any(character in value for character in "\r\n\x00")
        and all(ord(character) < 256 for character in value)
    )


def _body(record: Mapping[str, Any], where: str) -> tuple[bytes, bool]:
    """Return the body and whether it was given as JSON."""
    given = [key for key in ("body", "body_base64", "json") if key in record]
    if len(given) > 1:
        raise ConfigError(f"{where}: {given[0]} and {given[1]} are both there; write one of them")
    if not given:
        return b"", False
    value = record[given[0]]
    if given[0] == "json":
        return json.dumps(value, ensure_ascii=False).encode(errors="replace"), True
    if not isinstance(value, str):
        raise ConfigError(f"{where}: {given[0]} is no text; an object goes into json")
    if given[0] == "body":
        return _encoded(value, f"{where}: {given[0]}"), False
    try:
        return base64.b64decode(value, validate=True), False
    except ValueError as exc:
        raise ConfigError(f"{where}: body_base64 is no base64: {exc}") from exc


def _encoded(text: str, where: str) -> bytes:
    try:
        return text.encode(errors="surrogateescape")
    except UnicodeEncodeError as exc:
        raise ConfigError(f"{where}: has half of a surrogate pair, which is no character") from exc


def _target(text: str, where: str) -> str:
    target = urllib.parse.quote(_encoded(text, where), safe="/?&=%:@!$'()*+,;~[]-._")
    if "#" in text:
        raise ConfigError(f"{where}: the path has a #; that part stays with the client and is never sent")
    return target


def _read_har(path: Path, defaults: Defaults) -> Iterator[Call]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
        entries = document["log"]["entries"]
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path}: is no JSON: {exc}") from exc
    except (KeyError, TypeError) as exc:
        raise ConfigError(f"{path}: is no HAR: there are no log.entries") from exc
    for number, entry in enumerate(entries):
        where = f"{path}, entry {number}"
        try:
            yield _har_call(entry, where)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as exc:
            raise ConfigError(f"{where}: is no HAR entry: {type(exc).__name__}: {exc}") from exc


def _har_call(entry: Any, where: str) -> Call:
    request, response = entry["request"], entry.get("response") or {}
    parts = urllib.parse.urlsplit(request["url"])
    target = _target((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), where)
    post = request.get("postData") or {}
    headers = _har_headers(request)
    body = _har_text(post)
    if post.get("mimeType") and not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", post["mimeType"]))
    answer = None
    if response.get("status"):
        content = response.get("content") or {}
        answer_headers = [pair for pair in _har_headers(response) if pair[0] != "content-encoding"]  # it is decoded
        milliseconds = entry.get("time")
        answer = Answer(
            status=int(response["status"]),
            headers=answer_headers,
            body=_har_text(content),
            seconds=milliseconds / 1000 if isinstance(milliseconds, int | float) and milliseconds > 0 else None,
        )
    started = entry.get("startedDateTime")
    at = dt.datetime.fromisoformat(started).timestamp() if started else 0.0
    return Call(
        request=Request(method=_method(request["method"], where), target=target, headers=headers, body=body),
        answer=answer,
        at=at,
    )


def _har_headers(message: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs = [(str(each["name"]).lower(), str(each["value"])) for each in message.get("headers", [])]
    return [(name, value) for name, value in pairs if not name.startswith(":") and _is_header(name, value)]


def _har_text(content: Mapping[str, Any]) -> bytes:
    text = content.get("text") or ""
    return base64.b64decode(text) if content.get("encoding") == "base64" else text.encode(errors="replace")


def _read_csv(path: Path, defaults: Defaults) -> Iterator[Call]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        head = next(rows, None)
        if not head:
            return
        while chunk := [row for _, row in zip(range(defaults.rows), _filled(rows), strict=False)]:
            text = io.StringIO(newline="")
            csv.writer(text, lineterminator="\n").writerows([head, *chunk])
            headers = [("content-type", "text/csv; charset=utf-8")]
            body = text.getvalue().encode()
            yield Call(request=Request(method="POST", target=defaults.path, headers=headers, body=body))


def _filled(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    return (row for row in rows if row)
