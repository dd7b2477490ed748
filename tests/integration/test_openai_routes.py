"""The OpenAI routes over a backend: where they lead, whose they are, how they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.environments import environment
from tests.raw_http import Answer, Backend, Peer, Request, exchange, running_backend
from tests.serving import ServeFixture, Server

pytestmark = [pytest.mark.slow, pytest.mark.track]

ECHO = (
    "def load_model(code_dir):\n    return 1\ndef score_unstructured(model, data, query, **kwargs):\n    return data\n"
)
CHAT = """
def load_model(code_dir):
    return 1
def chat(completion_create_params, model):
    return {"choices": [{"message": {"role": "assistant", "content": "of the hook"}}]}
"""
EVENTS = [b'data: {"choices": [{"delta": {"content": "%d"}}]}\n\n' % number for number in range(3)] + [
    b"data: [DONE]\n\n"
]


def behave(peer: Peer, request: Request) -> None:
    peer.read_body(request)
    if request.target.endswith(b"/models") and request.method == b"GET":
        answer = b'{"object": "list", "data": [{"id": "tiny"}]}'
        peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer)
        return
    if b'"stream"' in request.body:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        peer.sock.sendall(head + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS) + b"0\r\n\r\n")
        return
    body = json.dumps(
        {
            "target": request.target.decode(),
            "method": request.method.decode(),
            "body": request.body.decode(),
            "key": dict(request.headers).get(b"authorization", b"").decode(),
        }
    ).encode()
    peer.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-From: backend\r\n\r\n" % len(body) + body)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running_backend(behave) as running:
        yield running


@pytest.fixture(scope="module")
def front(serve_for_module: ServeFixture, backend: Backend) -> Server:
    return serve_for_module(
        None, "--backend", backend.url + "/team/v1/", "--backend-ready-path", "/ok", env={"URL_PREFIX": "/p"}
    )


def ask(server: Server, method: str, path: str, body: bytes = b"", headers: str = "") -> Answer:
    head = f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return exchange(server.url, head.encode() + body, method.encode())


def content(answer: Answer) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(answer.body)
    return parsed


@pytest.mark.parametrize("prefix", ["", "/v1", "/p", "/p/v1"])
@pytest.mark.parametrize(
    ("method", "path", "reached"),
    [
        ("POST", "/chat/completions", "/team/v1/chat/completions"),
        ("POST", "/chat/completions/?a=1", "/team/v1/chat/completions?a=1"),
        ("POST", "/completions", "/team/v1/completions"),
        ("POST", "/embeddings/", "/team/v1/embeddings"),
        ("POST", "/responses", "/team/v1/responses"),
        ("GET", "/responses/resp_1?include=x", "/team/v1/responses/resp_1?include=x"),
        ("DELETE", "/responses/resp_1", "/team/v1/responses/resp_1"),
        ("POST", "/responses/resp_1/cancel", "/team/v1/responses/resp_1/cancel"),
        ("GET", "/models/org/name%2Fmore", "/team/v1/models/org/name%2Fmore"),
    ],
)
def test_every_spelling_leads_to_the_one_place_at_the_backend(
    front: Server, prefix: str, method: str, path: str, reached: str
) -> None:
    seen = content(ask(front, method, prefix + path, b"{}"))
    assert (seen["target"], seen["method"], seen["body"]) == (reached, method, "{}")


@pytest.mark.parametrize("path", ["/models", "/v1/models", "/p/models/", "/p/v1/models"])
def test_the_models_are_the_backends(front: Server, path: str) -> None:
    assert content(ask(front, "GET", path))["data"] == [{"id": "tiny"}]


def test_a_stream_comes_through_byte_for_byte(front: Server) -> None:
    answer = ask(front, "POST", "/v1/chat/completions", b'{"stream": true}')
    assert answer.body == b"".join(EVENTS)
    assert answer.all(b"content-type") == [b"text/event-stream"]


def test_chats_carry_an_association_id_in_a_header_and_the_callers_own_where_it_has_one(front: Server) -> None:
    first, second = (ask(front, "POST", "/chat/completions", b"{}") for _ in range(2))
    (one,), (other,) = first.all(b"x-datarobot-association-id"), second.all(b"x-datarobot-association-id")
    assert len(one) == len(other) == 36
    assert one != other
    assert first.all(b"x-request-id") != [b""]
    given = ask(front, "POST", "/chat/completions", b"{}", "X-DataRobot-Association-Id: mine\r\n")
    assert given.all(b"x-datarobot-association-id") == [b"mine"]
    assert not ask(front, "POST", "/embeddings", b"{}").all(b"x-datarobot-association-id")


def test_the_servers_key_goes_where_a_client_has_none_and_never_by_direct_access(
    serve: ServeFixture, backend: Backend
) -> None:
    server = serve(None, "--backend", backend.url, "--backend-api-key-variable", "KEY", env={"KEY": "ours"})
    theirs = "Authorization: Bearer theirs\r\n"
    assert content(ask(server, "POST", "/v1/chat/completions", b"{}"))["key"] == "Bearer ours"
    assert content(ask(server, "POST", "/v1/chat/completions", b"{}", theirs))["key"] == "Bearer theirs"
    assert content(ask(server, "POST", "/directAccess/v1/chat/completions", b"{}"))["key"] == ""


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("POST", "/v1/models", 405, "method_not_allowed"),
        ("GET", "/v1/models/..%2f..%2fadmin", 400, "bad_request"),
        ("GET", "/v1/responses/../../admin", 400, "bad_request"),
        ("POST", "/predict", 404, "operation_unavailable"),
    ],
)
def test_what_cannot_be_passed_on_is_refused_in_openai_form(
    front: Server, backend: Backend, method: str, path: str, status: int, code: str
) -> None:
    backend.requests.clear()
    answer = ask(front, method, path if path != "/predict" else "/p/predict", b"{}")
    assert (answer.status, content(answer)["code"]) == (status, code)
    assert ("error" in content(answer)) is (path != "/predict")
    assert not [request for request in backend.requests if request.target != b"/team/v1/ok"]


def test_a_backend_that_is_down_is_told_in_openai_form(serve: ServeFixture) -> None:
    server = serve(None, "--backend", "http://127.0.0.1:9", ready=None)
    answer = ask(server, "POST", "/v1/chat/completions", b"{}")
    assert (answer.status, content(answer)["error"]["code"]) == (502, "backend_down")
    assert content(answer)["error"]["type"] == "server_error"
    assert answer.all(b"x-should-retry") == [b"false"]


def test_a_chat_hook_has_its_chats_and_the_backend_what_no_hook_answers(
    serve: ServeFixture, backend: Backend, tmp_path: Path
) -> None:
    (tmp_path / "custom.py").write_text(CHAT)
    python = str(environment("bare"))
    server = serve(tmp_path, "--python", python, "--backend", backend.url, "--backend-ready-path", "/ok")
    chat = content(ask(server, "POST", "/v1/chat/completions", b'{"messages": []}'))
    assert chat["choices"][0]["message"]["content"] == "of the hook"
    assert content(ask(server, "GET", "/v1/models"))["data"] == []
    assert ask(server, "GET", "/v1/models/tiny").status == 404
    assert content(ask(server, "POST", "/v1/embeddings", b"{}"))["target"] == "/v1/embeddings"


def test_a_model_without_a_chat_hook_leaves_chats_to_the_backend(
    serve: ServeFixture, backend: Backend, tmp_path: Path
) -> None:
    (tmp_path / "custom.py").write_text(ECHO)
    python = str(environment("bare"))
    server = serve(tmp_path, "--python", python, "--backend", backend.url, "--backend-ready-path", "/ok")
    assert content(ask(server, "POST", "/chat/completions", b"{}"))["target"] == "/v1/chat/completions"
    assert content(ask(server, "GET", "/models"))["data"] == [{"id": "tiny"}]
    assert content(ask(server, "GET", "/capabilities/"))["supported_methods"]["chat"] is True
    assert ask(server, "POST", "/predictUnstructured", b"x", "Content-Type: text/plain\r\n").body == b"x"


def test_without_a_backend_the_routes_say_what_is_missing(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(ECHO)
    server = serve(tmp_path, "--python", str(environment("bare")))
    for method, path in (
        ("POST", "/v1/embeddings"), ("POST", "/chat/completions"), ("GET", "/v1/models/x"), ("GET", "/responses/x"),
    ):  # fmt: skip
        answer = ask(server, method, path, b"{}")
        assert (answer.status, content(answer)["error"]["code"]) == (404, "operation_unavailable"), path
