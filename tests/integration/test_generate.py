"""Rows answered by an LLM backend: order, bound, formats, failures, retries, deadlines, clients that leave."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.environments import environment
from tests.integration.load import Answer, request
from tests.raw_http import Backend, Peer, Request, connect, running_backend
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

FLAGS = ("--target-type", "textgeneration", "--target-name", "resultText", "--backend-ready-path", "/ok")


class Seen:
    """What the backend was asked, and how many at a time."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.now = self.most = self.closed = 0
        self.busy_answers = 0


SEEN = Seen()


def reply(peer: Peer, content: Any, status: int = 200, more: bytes = b"") -> None:
    body = json.dumps(content).encode()
    head = b"HTTP/1.1 %d X\r\n%bContent-Length: %d\r\n\r\n" % (status, more, len(body))
    peer.sock.sendall(head + body)


def behave(peer: Peer, asked: Request) -> None:
    peer.read_body(asked)
    if asked.method == b"GET":
        reply(peer, {"data": [{"id": "first"}, {"id": "second"}]})
        return
    body = json.loads(asked.body)
    prompt = body["messages"][-1]["content"]
    with SEEN.lock:
        SEEN.bodies.append(body)
        SEEN.headers.append(dict(asked.headers))
        SEEN.now += 1
        SEEN.most = max(SEEN.most, SEEN.now)
        busy = prompt == "busy" and SEEN.busy_answers < 2
        SEEN.busy_answers += busy
    try:
        if prompt.startswith("sleep"):
            time.sleep(float(prompt.split()[1]))
        if prompt == "hang":
            peer.sock.settimeout(20)
            if not peer.sock.recv(1):  # the other side has closed
                SEEN.closed += 1
            return
        if busy:
            reply(peer, {"error": {"message": "too many"}}, 429, b"Retry-After: 0.1\r\n")
        elif prompt == "bad":
            reply(peer, {"error": {"message": "the context is too long"}}, 400)
        else:
            reply(peer, {"choices": [{"message": {"content": f"re: {prompt}"}, "finish_reason": "stop"}]})
    finally:
        with SEEN.lock:
            SEEN.now -= 1


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    with running_backend(behave) as running:
        yield running


@pytest.fixture(scope="module")
def front(serve_for_module: ServeFixture, backend: Backend) -> Server:
    return serve_for_module(
        None, "--backend", backend.url, *FLAGS, "--python", str(environment("bare")),
        "--generation-concurrency", "4", "--system-prompt", "Be brief.", "--max-tokens", "7", "--temperature", "0",
        "--generation-parameters", '{"top_p": 0.5}', "--backend-api-key-variable", "THE_KEY", env={"THE_KEY": "k1"},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def seen() -> Seen:
    SEEN.__init__()  # type: ignore[misc]
    return SEEN


def predict(server: Server, body: bytes, content_type: str = "text/csv", **headers: str) -> Answer:
    sent = {"Content-Type": content_type} | {name.replace("_", "-"): value for name, value in headers.items()}
    return request("POST", f"{server.url}/predict/", body, headers=sent)


def csv_of(*prompts: str) -> bytes:
    return "\n".join(["id,promptText", *(f"{number},{prompt}" for number, prompt in enumerate(prompts))]).encode()


def test_rows_are_asked_for_several_at_a_time_and_answered_in_their_order(front: Server, seen: Seen) -> None:
    prompts = [f"sleep {0.2 - 0.02 * number:.2f}" for number in range(10)]
    answer = predict(front, csv_of(*prompts))
    assert answer.json() == {"predictions": [f"re: {prompt}" for prompt in prompts]}
    assert 2 <= seen.most <= 4


def test_each_request_to_the_backend_is_as_the_settings_say(front: Server, seen: Seen) -> None:
    assert predict(front, csv_of("hello")).status == 200
    assert seen.bodies == [
        {
            "top_p": 0.5,
            "model": "first",
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}],
            "stream": False,
            "max_tokens": 7,
            "temperature": 0,
        }
    ]
    assert seen.headers[0][b"authorization"] == b"Bearer k1"
    assert predict(front, csv_of("hello"), Authorization="Bearer theirs").status == 200
    assert seen.headers[1][b"authorization"] == b"Bearer theirs"


AWKWARD = ["NA", "1.0", "007", 'two\nlines, "quoted"']


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("text/csv", b'promptText,x\nNA,1\n1.0,2\n007,3\n"two\nlines, ""quoted""",4\n'),
        ("application/json", json.dumps([{"promptText": text} for text in AWKWARD]).encode()),
        ("application/json", json.dumps({"columns": ["promptText"], "data": [[text] for text in AWKWARD]}).encode()),
        ("application/x-ndjson", "".join(json.dumps({"promptText": text}) + "\n" for text in AWKWARD).encode()),
    ],
    ids=["CSV", "records", "split", "lines"],
)
def test_prompts_are_texts_whatever_they_look_like(front: Server, content_type: str, body: bytes) -> None:
    wanted = [f"re: {text}" for text in AWKWARD]
    assert predict(front, body, content_type).json() == {"predictions": wanted}
    multipart = (
        b'--b\r\nContent-Disposition: form-data; name="X"; filename="a"\r\nContent-Type: %b\r\n\r\n%b\r\n--b--\r\n'
        % (content_type.encode(), body)
    )
    assert predict(front, multipart, "multipart/form-data; boundary=b").json() == {"predictions": wanted}


def test_the_answer_can_be_csv_with_the_targets_name(front: Server) -> None:
    answer = predict(front, csv_of("a", "b"), Accept="text/csv")
    assert answer.body == b"resultText\nre: a\nre: b\n"


def test_a_row_that_fails_is_named_and_ends_the_request(front: Server, seen: Seen) -> None:
    answer = predict(front, csv_of("a", "b", "bad", *["sleep 0.5"] * 20))
    assert (answer.status, answer.json()["code"]) == (502, "generation_failed")
    assert answer.json()["message"] == "ERROR: row 3 of 23: the backend answered 400: the context is too long"
    assert len(seen.bodies) < 10


def test_a_backend_that_is_busy_is_asked_again(front: Server, seen: Seen) -> None:
    assert predict(front, csv_of("busy", "a")).json() == {"predictions": ["re: busy", "re: a"]}
    prompts = [body["messages"][-1]["content"] for body in list(seen.bodies)]
    assert sorted(prompt for prompt in prompts if prompt in {"busy", "a"}) == ["a", "busy", "busy", "busy"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"id,prompt\n1,a\n", 422, "'promptText' (--prompt-column), and the data has 'id', 'prompt'"),
        (b"promptText,x\na,1\n,2\nb,3\n ,4\n", 422, "2 of 4 rows have no text in 'promptText', counted from 1: 2, 4"),
        (b"promptText,x\na\n", 422, "line 2 of the CSV has 1 fields where the header has 2"),
        (b"promptText\n", 422, "no rows"),
        (b"promptText\n\xff\n", 422, "not UTF-8"),
        (b"", 422, "empty"),
    ],
)
def test_rows_that_cannot_be_used_are_refused_before_the_backend_is_asked(
    front: Server, seen: Seen, body: bytes, status: int, said: str
) -> None:
    answer = predict(front, body)
    assert (answer.status, said in answer.json()["message"]) == (status, True), answer.body
    assert predict(front, csv_of("a"), Accept="application/xml").status == 406
    assert not seen.bodies


def test_a_deadline_ends_it_and_closes_the_connections(front: Server, seen: Seen) -> None:
    answer = predict(front, csv_of("hang", "hang"), X_Request_Timeout="0.5")
    assert (answer.status, answer.json()["code"]) == (504, "deadline_exceeded")
    wait_for_closed(seen, 2)
    assert predict(front, csv_of("a")).status == 200


def test_a_client_that_leaves_ends_it_and_closes_the_connections(front: Server, seen: Seen) -> None:
    body = csv_of("hang", "hang")
    with connect(front.url) as sock:
        sock.sendall(
            b"POST /predict/ HTTP/1.1\r\nHost: a\r\nContent-Type: text/csv\r\nContent-Length: %d\r\n\r\n" % len(body)
            + body
        )
        deadline = time.monotonic() + 10
        while len(seen.bodies) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    wait_for_closed(seen, 2)


def wait_for_closed(seen: Seen, wanted: int) -> None:
    deadline = time.monotonic() + 10
    while seen.closed < wanted:
        assert time.monotonic() < deadline, seen.closed
        time.sleep(0.01)


def test_a_folder_that_only_says_what_it_is_is_enough(serve: ServeFixture, backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "model-metadata.yaml").write_text(
        "name: writer\ntype: inference\ntargetType: textgeneration\ninferenceModel:\n  targetName: answer\n"
    )
    python = str(environment("bare"))
    flags = ("--backend", backend.url, "--backend-ready-path", "/ok", "--python", python, "--prompt-column", "q")
    server = serve(tmp_path, *flags)
    assert predict(server, b"q\nhello\n", Accept="text/csv").body == b"answer\nre: hello\n"
    assert request("POST", f"{server.url}/v1/chat/completions", b'{"messages": [{"content": "x"}]}').status == 200


def test_a_chat_hook_is_not_gone_past(serve: ServeFixture, backend: Backend, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(
        "def load_model(code_dir):\n    return 1\ndef chat(params, model):\n    return {'choices': []}\n"
    )
    server = serve(tmp_path, "--backend", backend.url, *FLAGS, "--python", str(environment("bare")))
    assert predict(server, csv_of("a")).json()["code"] == "operation_unavailable"


def test_a_backend_that_is_down_is_said_after_a_few_tries(serve: ServeFixture) -> None:
    server = serve(
        None, "--backend", "http://127.0.0.1:9", *FLAGS, "--python", str(environment("bare")), ready=None,
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while (answer := predict(server, csv_of("a"))).status == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (answer.status, answer.json()["code"]) == (502, "backend_down")


def test_a_key_that_is_not_there_is_said_at_the_start(tmp_path: Path) -> None:
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-m", "backline", "serve", "--backend", "http://127.0.0.1:9",
         "--backend-api-key-variable", "NO_SUCH_KEY", "--address", "127.0.0.1:0"],
        capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "the variable NO_SUCH_KEY is not set" in done.stderr.replace("environment variable", "variable")
