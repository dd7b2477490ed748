"""Every row of the error table, provoked on a real server by a client: status, headers and body are as documented."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import shlex
import signal
import socket
import sys
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from backline.api.error_table import TABLE, USER_ERROR_HEADER, Family
from tests.environments import environment
from tests.integration.load import Answer, request, wait_until
from tests.raw_http import Peer, Request, running_backend
from tests.serving import ServeFixture, Server

pytestmark = [pytest.mark.slow, pytest.mark.track]

TINY_BACKEND = Path(__file__).parents[1] / "tiny_backend.py"

METADATA = "name: errors\ntype: inference\ntargetType: textgeneration\ninferenceModel:\n  targetName: answer\n"

# What each hook does is said by what it is sent.
FAULTY = """
import os

import pandas as pd

from datarobot_drum import CustomHTTPError


class WerkzeugLike(Exception):
    code = 402
    description = "the account is empty"


class StarletteLike(Exception):
    status_code = 429
    detail = "slow down"
    headers = {"Retry-After": "7", "Set-Cookie": "model=1", "Content-Length": "3"}


def custom():
    raise CustomHTTPError(418, "this model is a teapot", headers={"X-Pot": "brown"})


def werkzeug_like():
    raise WerkzeugLike


def starlette_like():
    raise StarletteLike


def fail():
    raise ValueError("could not convert string to float: 'n/a'")


def allocate():
    return bytearray(3 << 30)


def die():
    os._exit(3)


def load_model(code_dir):
    return None


def act(action):
    return globals()[action]() if action in globals() else action


def score(data, model, **kwargs):
    action = str(data["action"].iloc[0])
    if action == "wrong_shape":
        return data.head(0)
    act(action)
    return pd.DataFrame({"answer": data["action"]})


def chat(completion_create_params, model, **kwargs):
    action = completion_create_params["messages"][0]["content"]
    if action == "wrong_shape":
        return 7
    act(action)
    return {"choices": []}


def score_unstructured(model, data, query, **kwargs):
    act(str(data))
    return data
"""
SCHEMA = """
typeSchema:
  input_requirements:
    - field: number_of_columns
      condition: EQUALS
      value: 1
"""

DIES_READING = """
import os


def read_input_data(input_binary_data):
    os.abort()


def score(data, model, **kwargs):
    return data


def chat(completion_create_params, model):
    return {"choices": []}
"""

# Loads, and answers, when the file that it waits for is there.
WAITS = """
import os
import time

FOLDER = os.path.dirname(os.path.abspath(__file__))


def wait_for(name):
    open(os.path.join(FOLDER, name + ".waited"), "w").close()
    while not os.path.exists(os.path.join(FOLDER, name)):
        time.sleep(0.01)


def load_model(code_dir):
    wait_for("load")


def score_unstructured(model, data, query, **kwargs):
    if query:
        wait_for(query["wait"])
    return data
"""

NOT_REACHABLE = {
    "reload_failed": "told at the admin address only, see test_admin.py",
    "internal_error": "stands for faults of the server itself: what provokes it is a bug, and gets mended",
}


@dataclass(frozen=True)
class Servers:
    """Starts the servers that scenarios ask for, each one once."""

    start: ServeFixture
    folder: Path
    started: dict[str, Server]

    @property
    def faulty(self) -> Server:
        return self._server(
            "faulty", FAULTY, METADATA + SCHEMA, *("--max-body", "64KiB", "--max-decompressed", "1MiB"),
            *("--memory-limit", "2GiB", "--restart-backoff", "0"), python="sklearn",
        )  # fmt: skip

    @property
    def dies_reading(self) -> Server:
        return self._server("dies-reading", DIES_READING, METADATA)

    @property
    def broken(self) -> Server:
        return self._server("broken", "import nonsense\n", METADATA, "--with-error-server", ready=513)

    @property
    def unbuildable(self) -> Server:
        folder = self.folder / "unbuildable"
        folder.mkdir(exist_ok=True)
        (folder / "requirements.txt").write_text("no requirement =\n")
        flags = ("--env", "auto", "--env-cache", str(self.folder / "environments"), "--with-error-server")
        return self._server("unbuildable", "", METADATA, *flags, ready=513)

    @property
    def misconfigured(self) -> Server:
        return self._server("misconfigured", "", "targetType: binry\n", "--with-error-server", ready=513)

    def waiting(self, name: str, *flags: str, loaded: bool = True) -> Server:
        """Start a server of its own, whose hooks wait for files."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        if loaded:
            (folder / "load").touch()
        ready = 200 if loaded else None
        return self._server(name, WAITS, "name: waits\ntargetType: unstructured\n", *flags, ready=ready)

    def _server(
        self, name: str, code: str, metadata: str, *flags: str, python: str = "bare", ready: int | None = 200
    ) -> Server:
        if name not in self.started:
            folder = self.folder / name
            folder.mkdir(exist_ok=True)
            (folder / "custom.py").write_text(code)
            (folder / "model-metadata.yaml").write_text(metadata)
            self.started[name] = self.start(folder, "--python", str(environment(python)), *flags, ready=ready)
        return self.started[name]


@pytest.fixture(scope="module")
def servers(serve_for_module: ServeFixture, tmp_path_factory: pytest.TempPathFactory) -> Servers:
    return Servers(serve_for_module, tmp_path_factory.mktemp("models"), {})


def predict(server: Server, body: bytes | str, content_type: str = "text/csv", **headers: str) -> Answer:
    return post(server, "/predict/", body, content_type, **headers)


def chat(server: Server, body: Any, **headers: str) -> Answer:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return post(server, "/v1/chat/completions", content, "application/json", **headers)


def say(server: Server, word: str, **headers: str) -> Answer:
    return chat(server, {"messages": [{"role": "user", "content": word}]}, **headers)


def post(server: Server, path: str, body: bytes | str, content_type: str, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    data = body.encode() if isinstance(body, str) else body
    return request("POST", server.url + path, data, headers={"Content-Type": content_type, **sent})


def get(server: Server, path: str) -> Answer:
    return request("GET", server.url + path)


Found = Iterator[tuple[Family, Answer]]
SCENARIOS: dict[str, Callable[[Servers], Found]] = {}


def scenario(key: str) -> Callable[[Callable[[Servers], Found]], Callable[[Servers], Found]]:
    """Note what provokes the row ``key``; yields each answer with the family of its route."""

    def note(function: Callable[[Servers], Found]) -> Callable[[Servers], Found]:
        assert key not in SCENARIOS
        SCENARIOS[key] = function
        return function

    return note


# The request cannot be used


@scenario("bad_request")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action\nx\n", X_Request_Timeout="soon")
    yield "openai", say(servers.faulty, "x", X_Request_Timeout="-1")
    yield "native", post(servers.faulty, f"/predictUnstructured/?{'a=1&' * 1001}", "x", "text/plain")
    yield "native", get(servers.faulty, "/directAccess/v1/models")


@scenario("malformed_multipart")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "no framing", "multipart/form-data; boundary=b")


@scenario("shutdown_forbidden")
def _(servers: Servers) -> Found:
    yield "native", post(servers.faulty, "/shutdown/", "", "text/plain")


@scenario("not_found")
def _(servers: Servers) -> Found:
    yield "native", get(servers.faulty, "/predcit/")


@scenario("operation_unavailable")
def _(servers: Servers) -> Found:
    yield "native", post(servers.dies_reading, "/predictUnstructured/", "x", "text/plain")
    yield "native", post(servers.dies_reading, "/transform/", "a\n1\n", "text/csv")
    yield "openai", say(servers.waiting("waits"), "x")
    yield "openai", get(servers.waiting("waits"), "/v1/models")
    yield "openai", post(servers.faulty, "/v1/completions", "{}", "application/json")


@scenario("method_not_allowed")
def _(servers: Servers) -> Found:
    for family, path, allow in (
        ("native", "/predict/", "POST, OPTIONS"),
        ("openai", "/chat/completions", "POST, OPTIONS"),
    ):
        answer = get(servers.faulty, path)
        assert answer.headers["allow"] == allow
        yield family, answer  # type: ignore[misc]  # a literal


@scenario("not_acceptable")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action\nx\n", Accept="image/png")


@scenario("body_too_large")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action\n" + "x\n" * 50_000)
    yield "openai", say(servers.faulty, "x" * 70_000)


@scenario("decompressed_too_large")
def _(servers: Servers) -> Found:
    bomb = gzip.compress(bytes(4 << 20))
    yield "native", predict(servers.faulty, bomb, Content_Encoding="gzip")
    yield "openai", chat(servers.faulty, bomb, Content_Encoding="gzip")


@scenario("unsupported_media_type")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "%PDF", "application/pdf")


@scenario("unsupported_encoding")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action\nx\n", Content_Encoding="br")
    yield "openai", say(servers.faulty, "x", Content_Encoding="br")


@scenario("empty_body")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "")
    yield "openai", chat(servers.faulty, b"")


@scenario("decode_failed")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action\nx,y\n")
    yield "openai", chat(servers.faulty, b'{"messages": ')


@scenario("missing_part")
def _(servers: Servers) -> Found:
    part = '--b\r\nContent-Disposition: form-data; name="Y"\r\n\r\naction\r\nx\r\n--b--\r\n'
    yield "native", predict(servers.faulty, part, "multipart/form-data; boundary=b")


@scenario("schema_mismatch")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action,more\nx,y\n")


@scenario("worker_died/decoding")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.dies_reading, "a\n1\n")


@scenario("poison_request")
def _(servers: Servers) -> Found:
    """The same content is refused on every route: what it would do on another one is not found out."""
    killed = post(servers.faulty, "/predictUnstructured/", "die", "text/plain")
    assert killed.json()["code"] == "worker_died"
    yield "native", post(servers.faulty, "/predictUnstructured/", "die", "text/plain")
    yield "openai", chat(servers.faulty, b"die")


# The model's own code or results


@scenario("user_http_error")
def _(servers: Servers) -> Found:
    """By what marks the answer: CustomHTTPError sets the header, other HTTP exceptions do not."""
    for action, status, message, marked in (
        ("custom", 418, "this model is a teapot", "true"),
        ("werkzeug_like", 402, "the account is empty", None),
        ("starlette_like", 429, "slow down", None),
    ):
        native = predict(servers.faulty, f"action\n{action}\n")
        openai = say(servers.faulty, action)
        unstructured = post(servers.faulty, "/predictUnstructured/", action, "text/plain")
        for answer in (native, openai, unstructured):
            assert answer.status == status, answer.body
            assert answer.json()["message"] == f"ERROR: {message}"
            assert answer.headers.get(USER_ERROR_HEADER.lower()) == marked
            assert answer.headers.get("x-pot") == ("brown" if action == "custom" else None)
            assert answer.headers.get("retry-after") == ("7" if action == "starlette_like" else None)
        yield "native", native
        yield "openai", openai
        yield "native", unstructured


@scenario("hook_failed")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action\nfail\n")
    yield "native", post(servers.faulty, "/predictUnstructured/", "fail", "text/plain")
    yield "openai", say(servers.faulty, "fail")


@scenario("result_invalid")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action\nwrong_shape\n")
    yield "openai", say(servers.faulty, "wrong_shape")


@scenario("out_of_memory")
def _(servers: Servers) -> Found:
    yield "native", predict(servers.faulty, "action\nallocate\n")
    yield "openai", say(servers.faulty, "allocate")


@scenario("worker_died")
def _(servers: Servers) -> Found:
    """A prediction is tried once more; a chat may have cost money, and is not."""
    native = predict(servers.faulty, "action\ndie\n")
    openai = say(servers.faulty, "die")
    assert "twice" in native.json()["message"]
    assert "not asked again" in openai.json()["message"]
    yield "native", native
    yield "openai", openai


@scenario("load_failed")
def _(servers: Servers) -> Found:
    for path in ("/readyz", "/health/", "/ping"):
        yield "native", get(servers.broken, path)
    yield "native", predict(servers.broken, "a\n1\n")
    yield "openai", say(servers.broken, "x")
    yield "openai", get(servers.broken, "/models")


@scenario("environment_failed")
def _(servers: Servers) -> Found:
    yield "native", get(servers.unbuildable, "/health/")
    yield "native", predict(servers.unbuildable, "a\n1\n")
    yield "openai", say(servers.unbuildable, "x")


@scenario("config_error")
def _(servers: Servers) -> Found:
    yield "native", get(servers.misconfigured, "/health/")
    yield "native", predict(servers.misconfigured, "a\n1\n")
    yield "openai", say(servers.misconfigured, "x")


# Not now


@scenario("queue_full")
def _(servers: Servers) -> Found:
    server = servers.waiting("queue", "--queue", "0")
    with running_call(servers, server, "queue"):
        yield "native", post(server, "/predictUnstructured/", "x", "text/plain")
        yield "openai", say(server, "x")
    small = servers.waiting("bytes", "--max-bytes-in-flight", "10")
    yield "native", post(small, "/predictUnstructured/", "eleven bytes", "text/plain")


@scenario("loading")
def _(servers: Servers) -> Found:
    server = servers.waiting("loading", loaded=False)
    for path in ("/readyz", "/health/", "/ping/"):
        yield "native", get(server, path)
    yield "native", post(server, "/predictUnstructured/", "x", "text/plain")
    yield "openai", say(server, "x")
    assert get(server, "/livez").status == 200
    (servers.folder / "loading" / "load").touch()
    server.wait_ready()
    assert post(server, "/predictUnstructured/", "x", "text/plain").body == b"x"


@scenario("draining")
def _(servers: Servers) -> Found:
    """The listener and idle connections stay open until the accepted call is answered; then the server ends well."""
    server = servers.waiting("draining")
    kept = connect(server)
    assert ask(kept, "GET", "/readyz").status == 200
    with running_call(servers, server, "draining") as call:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: get(server, "/readyz").status != 200, "the server knows that it has to stop")
        told = ask(kept, "POST", "/predictUnstructured/", b"x")
        assert told.headers["connection"] == "close"
        yield "native", told
        yield "native", get(server, "/readyz")
        yield "openai", say(server, "x")
        assert get(server, "/livez").status == 200
    assert call.answer is not None
    assert (call.answer.status, call.answer.body) == (200, b"accepted")
    assert server.process.wait(20) == 0


@scenario("deadline_exceeded")
def _(servers: Servers) -> Found:
    server = servers.waiting("deadline", "--timeout-grace", "0")
    running = post(server, "/predictUnstructured/?wait=never", "x", "text/plain", X_Request_Timeout="0.2")
    assert "before the model answered" in running.json()["message"]
    yield "native", running
    with running_call(servers, server, "deadline"):
        queued = post(server, "/predictUnstructured/", "x", "text/plain", X_Request_Timeout="0.2")
        assert "waited for a worker" in queued.json()["message"]
        yield "native", queued
        yield "openai", say(server, "x", X_Request_Timeout="0.1")


# The backend behind direct access


def _misbehave(peer: Peer, request: Request) -> None:
    if request.target == b"/silent":
        peer.wait_closed(60)
    raise EOFError


@scenario("backend_loading")
def _(servers: Servers) -> Found:
    command = shlex.join([sys.executable, str(TINY_BACKEND), "{port}", "--load", "600"])
    server = servers.start(None, "--backend-kind", "vllm", "--backend-command", command, ready=503)
    yield "native", get(server, "/readyz")
    yield "openai", say(server, "x")


@scenario("backend_failed")
def _(servers: Servers) -> Found:
    command = shlex.join([sys.executable, str(TINY_BACKEND), "{port}", "--exit", "3"])
    flags = ("--backend-max-restarts", "0", "--with-error-server")
    server = servers.start(None, "--backend-kind", "vllm", "--backend-command", command, *flags, ready=513)
    yield "native", get(server, "/health/")
    yield "openai", say(server, "x")


@scenario("generation_failed")
def _(servers: Servers) -> Found:
    """The row is named, and what the backend said to it."""

    def refuse(peer: Peer, asked: Request) -> None:
        peer.read_body(asked)
        status = b"200 OK" if asked.method == b"GET" else b"400 Bad Request"
        peer.sock.sendall(b'HTTP/1.1 %s\r\nContent-Length: 11\r\n\r\n{"data":[]}' % status)

    folder = servers.folder / "generates"
    folder.mkdir()
    (folder / "model-metadata.yaml").write_text("name: g\ntargetType: textgeneration\n")
    with running_backend(refuse) as backend:
        server = servers.start(
            folder, "--backend", backend.url, "--generation-model", "m", "--target-name", "text",
            "--python", str(environment("sklearn")),
        )  # fmt: skip
        yield "native", post(server, "/predict/", "promptText\nhello\n", "text/csv")


@contextlib.contextmanager
def _proxy(servers: Servers) -> Iterator[Server]:
    limits = ("--backend-timeout", "0.3", "--backend-idle-timeout", "0.3", "--backend-connections", "1")
    with running_backend(_misbehave) as backend:
        yield servers.start(None, "--backend", backend.url, *limits, ready=None)


@scenario("backend_broken")
def _(servers: Servers) -> Found:
    with _proxy(servers) as server:
        yield "native", get(server, "/directAccess/x")


@scenario("backend_too_slow")
def _(servers: Servers) -> Found:
    with _proxy(servers) as server:
        yield "native", get(server, "/nim/silent")


@scenario("client_too_slow")
def _(servers: Servers) -> Found:
    with _proxy(servers) as server, contextlib.closing(connect(server)) as connection:
        connection.putrequest("POST", "/directAccess/silent")
        connection.putheader("Content-Length", "10")
        connection.endheaders(b"half")
        yield "native", answer_on(connection)


@scenario("backend_busy")
def _(servers: Servers) -> Found:
    with _proxy(servers) as server, contextlib.closing(connect(server)) as connection:
        connection.request("GET", "/directAccess/silent")
        wait_until(lambda: get(server, "/stats").json()["backend"]["in_flight"] == 1, "the first request is under way")
        yield "native", get(server, "/directAccess/x")


@scenario("backend_down")
def _(servers: Servers) -> Found:
    yield "native", get(servers.start(None, "--backend", "http://127.0.0.1:1", ready=503), "/directAccess/x")


@scenario("backend_unready")
def _(servers: Servers) -> Found:
    server = servers.start(None, "--backend", "http://127.0.0.1:1", ready=503)
    for path in ("/readyz", "/ping/", "/health/"):
        yield "native", get(server, path)


@scenario("head_too_large")
def _(servers: Servers) -> Found:
    server = servers.waiting("head")
    yield "native", request("GET", f"{server.url}/livez", headers={"X-Long": "x" * 100_000})


@scenario("too_many_connections")
def _(servers: Servers) -> Found:
    server = servers.waiting("connections", "--max-connections", "1")
    with contextlib.closing(connect(server)) as connection:
        connection.connect()
        connection.putrequest("GET", "/livez")
        connection.putheader("X-Never", "ends")
        connection.send(b"GET /livez HTTP/1.1\r\n")
        wait_until(lambda: get(server, "/info/").status != 200, "the connection counts")
        yield "native", get(server, "/info/")


@scenario("client_over_share")
def _(servers: Servers) -> Found:
    server = servers.waiting("share", "--max-per-client", "1")
    with running_call(servers, server, "share"):
        yield "native", post(server, "/predictUnstructured/", "x", "text/plain")
        yield "openai", say(server, "x")


@scenario("unauthorized")
def _(servers: Servers) -> Found:
    keys = servers.folder / "keys.txt"
    keys.write_text("0123456789abcdef\n")
    server = servers.waiting("keys", "--api-keys-file", str(keys))
    yield "native", get(server, "/info/")
    yield "openai", say(server, "x")


class RunningCall:
    """A request in another thread; ``answer`` once it is there."""

    answer: Answer | None = None

    def __init__(self, server: Server, name: str) -> None:
        self._server, self._name = server, name

    def run(self) -> None:
        self.answer = post(self._server, f"/predictUnstructured/?wait={self._name}", "accepted", "text/plain")


@contextlib.contextmanager
def running_call(servers: Servers, server: Server, name: str) -> Iterator[RunningCall]:
    """Keep the server's worker busy during the block."""
    call = RunningCall(server, name)
    thread = threading.Thread(target=call.run)
    thread.start()
    folder = servers.folder / name
    try:
        wait_until((folder / f"{name}.waited").exists, "the worker has the call")
        yield call
    finally:
        (folder / name).touch()
        thread.join(30)


def connect(server: Server) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(server.url)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: bytes | None = None) -> Answer:
    connection.request(method, path, body, {"Content-Type": "text/plain"})
    return answer_on(connection)


def answer_on(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())


def test_every_row_has_a_scenario_or_a_reason_why_no_client_can_reach_it() -> None:
    assert SCENARIOS.keys() | NOT_REACHABLE.keys() == TABLE.keys()
    assert not SCENARIOS.keys() & NOT_REACHABLE.keys()


@pytest.mark.parametrize("key", SCENARIOS)
def test_the_row_is_what_a_client_gets(servers: Servers, key: str) -> None:
    row = TABLE[key]
    answers = 0
    for family, answer in SCENARIOS[key](servers):
        answers += 1
        body = answer.json()
        message = body["message"]
        assert body["code"] == row.code, body
        if not row.status_from_user:
            assert answer.status == row.status
        assert message.startswith("ERROR: ")
        assert len(message) > len("ERROR: ")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-request-id"] == body["request_id"]
        assert int(answer.headers["content-length"]) == len(answer.body)
        if not row.status_from_user:
            assert ("retry-after" in answer.headers) == (row.retry_after is not None)
        assert "traceback" not in body
        if family == "native":
            assert body.keys() == {"message", "code", "request_id"}
            assert "x-should-retry" not in answer.headers
        else:
            assert body.keys() == {"message", "error", "code", "request_id"}
            assert body["error"].keys() == {"message", "type", "param", "code"}
            assert f"ERROR: {body['error']['message']}" == message
            assert body["error"]["code"] == row.code
            if not row.status_from_user:
                assert answer.headers["x-should-retry"] == ("true" if row.status in {429, 503} else "false")
    assert answers


def test_the_clients_own_request_id_comes_back(servers: Servers) -> None:
    for answer in (
        get(servers.faulty, "/nowhere"),
        predict(servers.faulty, "", X_Request_ID="order-7/1"),
        say(servers.faulty, "fail", X_Request_ID="order-7/1"),
    ):
        if answer.status != 404:
            assert answer.json()["request_id"] == answer.headers["x-request-id"] == "order-7/1"
    wait_until(lambda: "[order-7/1] 500 hook_failed" in servers.faulty.log(), "the log has the id")


def test_what_is_no_http_is_answered_and_costs_nothing(servers: Servers) -> None:
    parts = urllib.parse.urlsplit(servers.faulty.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10) as connection:
        connection.sendall(b"\x16\x03\x01 this is TLS\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
    assert get(servers.faulty, "/readyz").status == 200


def test_a_call_over_the_drain_timeout_is_answered_503(servers: Servers) -> None:
    server = servers.waiting("overdue", "--drain-timeout", "0.3")
    with running_call(servers, server, "overdue") as call:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
    assert call.answer is not None
    assert (call.answer.status, call.answer.json()["code"]) == (503, "draining")


def test_the_traceback_is_in_the_answer_where_it_was_asked_for(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text("def score_unstructured(model, data, query):\n    return {}[data]\n")
    server = serve(tmp_path, "--python", str(environment("bare")), "--show-stacktrace")
    answer = post(server, "/predictUnstructured/", "x", "text/plain").json()
    assert answer["code"] == "hook_failed"
    assert answer["traceback"].startswith("Traceback (most recent call last):\n")
    assert "custom.py" in answer["traceback"]
    assert "backline_worker" not in answer["traceback"]
