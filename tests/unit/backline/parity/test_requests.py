from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from backline.errors import ConfigError
from backline.parity.exchange import Answer, Call, Request
from backline.parity.redaction import REDACTED, Redaction, without_redacted
from backline.parity.requests import Defaults, read_calls
from backline.parity.store import Store


def calls(file: Path, content: str | bytes, **defaults: Any) -> list[Call]:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_calls(file, Defaults(**defaults)))


def test_json_lines(tmp_path: Path) -> None:
    lines = [
        {"json": {"a": 1}},
        {"method": "get", "path": "/info/?x=1 2", "headers": {"Accept": "text/csv"}},
        {"body": "a,b\n1,2\n", "headers": [["content-type", "text/csv"]], "path": "/p"},
        {
            "body_base64": base64.b64encode(b"\x00\xff").decode(),
            "answer": {"status": 422, "json": {"m": 1}, "seconds": 0.5},
        },
    ]
    found = calls(tmp_path / "r.jsonl", "\n".join(map(json.dumps, lines)) + "\n\n", path="/x")
    assert found[0].request == Request(
        method="POST", target="/x", headers=[("content-type", "application/json")], body=b'{"a": 1}'
    )
    assert (found[1].request.method, found[1].request.target) == ("GET", "/info/?x=1%202")
    assert found[2].request.body == b"a,b\n1,2\n"
    assert found[3].request.body == b"\x00\xff"
    assert found[3].answer == Answer(
        status=422, headers=[("content-type", "application/json")], body=b'{"m": 1}', seconds=0.5
    )


def test_lines_that_are_bodies(tmp_path: Path) -> None:
    found = calls(tmp_path / "r.jsonl", '{"path": 1}\n[2]\n', lines_are_bodies=True)
    assert [each.request.body for each in found] == [b'{"path": 1}', b"[2]"]


def test_csv_rows_become_requests(tmp_path: Path) -> None:
    found = calls(tmp_path / "r.csv", 'a,b\n1,"x,\ny"\n2,z\n\n3,w\n', rows=2, path="/predict/")
    assert [each.request.body for each in found] == [b'a,b\n1,"x,\ny"\n2,z\n', b"a,b\n3,w\n"]
    assert found[0].request.headers == [("content-type", "text/csv; charset=utf-8")]


def test_a_cell_may_be_as_long_as_a_prompt(tmp_path: Path) -> None:
    (call,) = calls(tmp_path / "r.csv", "prompt\n" + "x" * 500_000 + "\n")
    assert len(call.request.body) > 500_000


def test_har(tmp_path: Path) -> None:
    entry = {
        "startedDateTime": "2026-11-24T10:00:00.000Z",
        "time": 12.5,
        "request": {
            "method": "POST",
            "url": "https://old.example/predict/?v=1",
            "headers": [{"name": ":method", "value": "POST"}, {"name": "Accept", "value": "*/*"}],
            "postData": {"mimeType": "application/json", "text": '{"a": 1}'},
        },
        "response": {
            "status": 200,
            "headers": [
                {"name": "Content-Type", "value": "application/json"},
                {"name": "Content-Encoding", "value": "gzip"},
            ],
            "content": {"text": base64.b64encode(b"[1]").decode(), "encoding": "base64"},
        },
    }
    (found,) = calls(tmp_path / "r.har", json.dumps({"log": {"entries": [entry]}}))
    assert found.request.target == "/predict/?v=1"
    assert found.request.headers == [("accept", "*/*"), ("content-type", "application/json")]
    assert found.answer == Answer(
        status=200, headers=[("content-type", "application/json")], body=b"[1]", seconds=0.0125
    )
    assert found.at == 1795514400.0


def test_a_store_is_a_file_of_requests_too(tmp_path: Path) -> None:
    call = Call(
        request=Request(method="POST", target="/", headers=[], body=b"x"),
        answer=Answer(status=200, headers=[], body=b"y"),
        at=1.0,
    )
    with Store.create(tmp_path / "calls.sqlite") as store:
        store.add_call(call)
        store.commit()
    assert list(read_calls(tmp_path / "calls.sqlite", Defaults())) == [call]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("r.jsonl", "{", r"line 1: is no JSON"),
        ("r.jsonl", '{}\n{"pth": "/x"}', r"line 2: unknown key 'pth'.*--bodies"),
        ("r.jsonl", "[1]", r"line 1: is no object"),
        ("r.jsonl", '{"path": "x"}', r"path is 'x'"),
        ("r.jsonl", '{"body": "a", "json": 1}', r"both there"),
        ("r.jsonl", '{"body_base64": "%"}', r"no base64"),
        ("r.jsonl", '{"headers": {"a b": "c"}}', r"'a b'"),
        ("r.jsonl", '{"headers": {"a": "c\\nd"}}', r"the header 'a'"),
        ("r.jsonl", "[" * 100_000, r"line 1: is no JSON"),
        ("r.jsonl", '{"body": "\\ud800"}', r"line 1: body: has half"),
        ("r.jsonl", '{"path": "/\\ud800"}', r"line 1: has half"),
        ("r.jsonl", '{"answer": {"status": 1e999}}', r"status is inf"),
        ("r.jsonl", '{"method": "GÉT"}', r"method is 'GÉT'"),
        ("r.jsonl", "", "holds no request"),
        ("r.csv", "a,b\n", "holds no request"),
        ("r.csv", b"a\n\xff\n", "not UTF-8"),
        ("r.har", "{}", "no log.entries"),
        (
            "r.har",
            '{"log": {"entries": [{"request": {"method": "GET", "url": "/"}, "response": {"status": 1e999}}]}}',
            "entry 0",
        ),
        ("r.har", '{"log": {"entries": [{}]}}', "entry 0"),
        ("r.har", '{"log":' * 100_000, "is no JSON"),
        ("r.txt", "x", "--format"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        calls(tmp_path / name, content)


def test_secrets_are_redacted_by_name_and_left_out_when_sent_again() -> None:
    headers = [
        ("Authorization", "Bearer x"), ("cookie", "a"), ("X-Api-Key", "k"), ("x-auth-token", "t"), ("accept", "*/*"),
        ("x-mine", "m"),
    ]  # fmt: skip
    redacted = Redaction(more=("x-mine",)).headers(headers)
    assert [name for name, value in redacted if value == REDACTED] == [
        "Authorization", "cookie", "X-Api-Key", "x-auth-token", "x-mine",
    ]  # fmt: skip
    assert without_redacted(redacted) == [("accept", "*/*")]
    assert Redaction(keep=("x-api-key",)).headers([("X-API-Key", "k")]) == [("X-API-Key", "k")]


def test_secrets_in_the_query_are_redacted() -> None:
    assert Redaction().target("/p?api_key=1&x=2&token=3") == f"/p?api_key={REDACTED}&x=2&token={REDACTED}"
    assert Redaction().target("/key/token") == "/key/token"
