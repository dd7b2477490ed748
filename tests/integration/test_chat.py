"""Chats of a model's own hook, whole and streamed, plain and async: what clients get, and what becomes of them."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chat_model import write_chat_model
from tests.integration.load import post, request
from tests.raw_http import Answer, Reader, connect, read_answer
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

STOPPED_WITHIN = 0.25  # seconds from a client's leaving to the end of its hook
DEADLINE = 20.0  # seconds of every wait in here


@pytest.fixture(scope="module", params=["plain", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_chat_model(tmp_path_factory.mktemp("chat") / "model", kind)


@pytest.fixture(scope="module")
def server(folder: Path, serve_for_module: ServeFixture) -> Server:
    return serve_for_module(folder, "--stream-keep-alive", "0.4", "--cancel-grace", "1")


def body_of(text: str, **more: Any) -> bytes:
    return json.dumps({"messages": [{"role": "user", "content": text}], **more}).encode()


def send_chat(server: Server, text: str, *, headers: str = "", **more: Any) -> socket.socket:
    body = body_of(text, **more)
    sock = connect(server.url)
    sock.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b"
        % (headers.encode(), len(body), body)
    )
    return sock


def ask(server: Server, text: str, **more: Any) -> Answer:
    with send_chat(server, text, **more) as sock:
        return read_answer(Reader(sock))


def events(answer: Answer) -> list[Any]:
    """Return the data of a stream's events; comments are left out."""
    assert answer.complete
    assert answer.all(b"content-type") == [b"text/event-stream; charset=utf-8"]
    found = []
    assert answer.body.endswith(b"\n\n")
    for event in answer.body.decode().removesuffix("\n\n").split("\n\n"):
        if event.startswith(":"):
            continue
        field, _, data = event.partition(": ")
        assert field == "data"
        found.append("[DONE]" if data == "[DONE]" else json.loads(data))
    return found


def text_of(found: list[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or "" for chunk in found if chunk != "[DONE]" for choice in chunk["choices"]
    )


def noted(folder: Path, event: str) -> float | None:
    """Return when the hook noted an event, if it has."""
    return all_noted(folder).get(event)


def all_noted(folder: Path) -> dict[str, float]:
    """Return all that the hook has noted, and when."""
    path = folder / "events"
    lines = path.read_text().splitlines() if path.exists() else []
    return {what: float(when) for what, _, when in (line.rpartition(" ") for line in lines)}


def wait_noted(folder: Path, event: str) -> float:
    found: list[float] = []

    def look() -> bool:
        when = noted(folder, event)
        found.extend([] if when is None else [when])
        return when is not None

    wait_for(look)
    return found[0]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


# What clients get


def test_a_stream_is_events_in_order_with_one_association_id_and_done(server: Server) -> None:
    answer = ask(server, "say a b c", stream=True, headers="X-Request-ID: mine\r\n")
    assert (answer.status, answer.all(b"x-request-id")) == (200, [b"mine"])
    assert answer.all(b"cache-control") == [b"no-cache"]
    assert answer.all(b"x-accel-buffering") == [b"no"]
    found = events(answer)
    assert found[-1] == "[DONE]"
    assert text_of(found) == "a b c "
    assert [chunk["choices"][0]["finish_reason"] for chunk in found[:-1]] == [None] * 4 + ["stop"]
    assert len({chunk["datarobot_association_id"] for chunk in found[:-1]}) == 1


def test_each_piece_arrives_when_it_was_said(server: Server) -> None:
    with send_chat(server, "trickle", stream=True) as sock:
        reader = Reader(sock)
        reader.head()
        pieces = [reader.chunked_piece() for _ in range(3)]
    assert all(piece.startswith(b"data: {") and piece.endswith(b"}\n\n") for piece in pieces)


def test_an_association_id_of_the_callers_is_kept(server: Server) -> None:
    found = events(ask(server, "say a", stream=True, datarobot_association_id="own"))
    assert {chunk["datarobot_association_id"] for chunk in found[:-1]} == {"own"}
    answer = ask(server, "whole x", datarobot_association_id="own")
    assert json.loads(answer.body)["datarobot_association_id"] == "own"


@pytest.mark.parametrize("usage", [False, True])
def test_a_hook_that_ignores_stream_is_streamed_all_the_same(server: Server, usage: bool) -> None:
    more = {"stream_options": {"include_usage": True}} if usage else {}
    found = events(ask(server, "whole hello", stream=True, **more))
    assert found.pop() == "[DONE]"
    assert {chunk["object"] for chunk in found} == {"chat.completion.chunk"}
    if usage:
        last = found.pop()
        assert (last["choices"], last["usage"]["total_tokens"]) == ([], 3)
        assert all(chunk["usage"] is None for chunk in found)
    assert found[0]["choices"][0]["delta"] == {"role": "assistant", "content": "hello"}
    assert found[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_error_before_the_first_chunk_is_a_status(server: Server) -> None:
    failed = ask(server, "fail-first", stream=True)
    content = json.loads(failed.body)
    assert (failed.status, content["error"]["code"], content["error"]["type"]) == (500, "hook_failed", "server_error")
    assert "no word from me" in content["error"]["message"]
    teapot = ask(server, "teapot", stream=True)
    assert (teapot.status, json.loads(teapot.body)["error"]["message"]) == (418, "a teapot")


def test_an_error_in_the_middle_is_an_event_and_the_end(server: Server) -> None:
    found = events(ask(server, "fail", stream=True, headers="X-Request-ID: middle\r\n"))
    assert "error" not in found[0]
    assert len(found) == 2
    assert found[-1]["error"]["code"] == "hook_failed"
    assert "in the middle" in found[-1]["error"]["message"]
    assert found[-1]["request_id"] == "middle"


def test_silence_is_filled_with_comments(server: Server) -> None:
    answer = ask(server, "silence 1.1", stream=True)
    assert answer.body.count(b": keep-alive\n\n") >= 2
    assert events(answer)[-1] == "[DONE]"


def test_what_a_chat_prints_is_logged_with_its_request(server: Server) -> None:
    with contextlib.ExitStack() as open_chats:
        socks = {
            name: open_chats.enter_context(
                send_chat(server, f"say {name} {name} {name}", stream=True, headers=f"X-Request-ID: {name}\r\n")
            )
            for name in ("print-a", "print-b", "print-c")
        }
        for sock in socks.values():
            assert events(read_answer(Reader(sock)))[-1] == "[DONE]"
    for name in socks:
        wait_for(lambda name=name: server.log().count(f"[{name}] say {name}\n") == 3)  # type: ignore[misc]


# Beside each other


def test_chats_run_beside_each_other_and_beside_predictions(server: Server, folder: Path) -> None:
    with contextlib.ExitStack() as open_chats:
        for number in range(10):
            open_chats.enter_context(send_chat(server, "trickle", stream=True, name=f"beside-{number}"))
        for number in range(10):
            wait_noted(folder, f"begun beside-{number}")
        answer = post(f"{server.url}/predict", b"promptText\nhello\n", headers={"Content-Type": "text/csv"})
        assert answer.json()["predictions"] == ["HELLO"]
        assert [model["id"] for model in request("GET", f"{server.url}/v1/models").json()["data"]] == ["one", "two"]
        assert not any(noted(folder, f"closed beside-{number}") for number in range(10))


def test_one_thread_answers_one_chat_at_a_time(tmp_path: Path, serve: ServeFixture) -> None:
    folder = write_chat_model(tmp_path / "model", "plain")
    server = serve(folder, "--threads", "1", "--queue", "1")
    with send_chat(server, "trickle", stream=True, name="one"):
        wait_noted(folder, "begun one")
        with send_chat(server, "say hello", stream=True, name="two") as second:
            wait_for(lambda: request("GET", f"{server.url}/stats").json()["chats"]["waiting"] == 1)
            refused = ask(server, "say no", stream=True)
            assert (refused.status, json.loads(refused.body)["error"]["code"]) == (503, "queue_full")
            assert refused.all(b"retry-after") == [b"1"]
            late = ask(server, "say no", stream=True, headers="X-Request-Timeout: 0.2\r\n")
            assert late.status == 503
            assert noted(folder, "begun two") is None
            second.settimeout(DEADLINE)
    # The first one's client has left, and so has the second one's before its turn came.
    wait_noted(folder, "closed one")
    assert ask(server, "say hello", stream=True, name="three").status == 200
    assert noted(folder, "begun two") is None


def test_a_slow_client_holds_up_its_own_hook_only(server: Server, folder: Path) -> None:
    chunks = 20_000  # of a kilobyte
    with send_chat(server, f"flood {chunks}", stream=True, name="slow"):
        wait_noted(folder, "flooded 10")
        assert text_of(events(ask(server, "say quick", stream=True))) == "quick "
        stats = request("GET", f"{server.url}/stats").json()
        assert stats["mem_info"]["server_resident_bytes"] < 300 << 20
        # What is on its way lies in the sockets and in one window: the hook waits long before its end.
        assert noted(folder, f"flooded {chunks - 1}") is None
    wait_noted(folder, "closed slow")


def test_a_flood_arrives_whole(server: Server) -> None:
    assert len(text_of(events(ask(server, "flood 3000", stream=True)))) == 3_000_000


# Leaving, dying, stopping


def leave_before_the_first_word(server: Server, folder: Path, name: str) -> float:
    with send_chat(server, "wait for-ever", stream=True, name=name):
        wait_noted(folder, f"begun {name}")
    return time.time()


def leave_in_the_middle(server: Server, folder: Path, name: str) -> float:
    with send_chat(server, "trickle", stream=True, name=name) as sock:
        wait_noted(folder, f"begun {name}")
        sock.recv(1)
    return time.time()


def test_a_client_that_leaves_in_the_middle_stops_its_hook_and_no_other(server: Server, folder: Path) -> None:
    with send_chat(server, "trickle", stream=True, name="stays") as other:
        left = leave_in_the_middle(server, folder, "leaves")
        assert wait_noted(folder, "closed leaves") - left < STOPPED_WITHIN
        for _ in range(20):
            assert other.recv(1 << 16)
        assert noted(folder, "closed stays") is None


def test_a_client_that_leaves_before_the_first_word_stops_its_hook(kind: str, server: Server, folder: Path) -> None:
    if kind == "plain":
        pytest.skip("a plain hook is stopped at its next yield, see the next test")
    left = leave_before_the_first_word(server, folder, "early")
    assert wait_noted(folder, "closed early") - left < STOPPED_WITHIN


def test_clients_that_leave_at_a_thousand_random_moments(kind: str, server: Server, folder: Path) -> None:
    """Some have not been heard yet, some wait for the first word, some are in the middle; one stays all the while."""
    words = ["trickle"] if kind == "plain" else ["trickle", "silence 60", "wait for-ever"]
    moments = random.Random(4)
    plans = [(f"random-{number}", moments.choice(words), moments.uniform(0, 0.2)) for number in range(1000)]
    left: dict[str, float] = {}

    def come_and_leave(plan: tuple[str, str, float]) -> None:
        name, word, stay = plan
        with send_chat(server, word, stream=True, name=name):
            time.sleep(stay)
        left[name] = time.time()

    with send_chat(server, "trickle", stream=True, name="bystander") as bystander, ThreadPoolExecutor(24) as clients:
        for _ in clients.map(come_and_leave, plans):
            pass
        wait_for(lambda: request("GET", f"{server.url}/stats").json()["chats"] == {"open": 1, "waiting": 0})
        assert bystander.recv(1 << 20).count(b"data: ") > 10
        assert noted(folder, "closed bystander") is None
        assert bystander.recv(1 << 20)
    noticed = all_noted(folder)
    begun = {name for name in left if f"begun {name}" in noticed}
    assert len(begun) > 300
    stopped = sorted(noticed[f"closed {name}"] - max(left[name], noticed[f"begun {name}"]) for name in begun)
    assert stopped[int(0.99 * len(stopped))] < STOPPED_WITHIN, stopped[-20:]
    print(f"stopped after, median and p99: {stopped[len(stopped) // 2]:.3f} {stopped[int(0.99 * len(stopped))]:.3f} s")


def test_a_plain_hook_that_never_yields_is_killed_once_nothing_else_is_open(
    kind: str, server: Server, folder: Path
) -> None:
    if kind == "async":
        pytest.skip("an asynchronous hook is stopped where it waits")
    pid = request("GET", f"{server.url}/stats").json()["workers"][0]["pid"]
    with send_chat(server, "trickle", stream=True, name="spared") as other:
        left = leave_before_the_first_word(server, folder, "stuck")
        while time.time() < left + 2.5:  # the grace is 1 s
            assert other.recv(1 << 16)
    wait_for(lambda: str(pid) in server.log() and f"worker 1 (pid {pid}) is gone" in server.log())
    server.wait_ready(200)
    assert ask(server, "say hello", stream=True).status == 200


def test_a_worker_that_dies_ends_its_streams_with_an_error(server: Server) -> None:
    with send_chat(server, "trickle", stream=True) as other:
        assert other.recv(1)
        found = events(ask(server, "die", stream=True))
        assert found[-1]["error"]["code"] == "worker_died"
        rest = b""
        while piece := other.recv(1 << 16):
            rest += piece
            if b"worker_died" in rest:
                break
        assert b"worker_died" in rest
    server.wait_ready(200)
    assert ask(server, "say hello", stream=True).status == 200


def test_a_deadline_is_for_the_first_chunk(server: Server, folder: Path) -> None:
    late = ask(server, "wait for-ever-2", stream=True, headers="X-Request-Timeout: 0.3\r\n", name="late")
    assert (late.status, json.loads(late.body)["error"]["code"]) == (504, "deadline_exceeded")
    server.wait_ready(200)
    found = events(ask(server, "silence 0.8", stream=True, headers="X-Request-Timeout: 0.5\r\n"))
    assert found[-1] == "[DONE]"


def test_a_stream_has_a_time_limit_and_the_end_of_the_server_is_told(
    kind: str, tmp_path: Path, serve: ServeFixture
) -> None:
    folder = write_chat_model(tmp_path / "model", kind)
    server = serve(folder, "--stream-timeout", "1", "--drain-timeout", "1")
    found = events(ask(server, "trickle", stream=True, name="long"))
    assert found[-1]["error"]["code"] == "deadline_exceeded"
    wait_noted(folder, "closed long")
    with send_chat(server, "silence 30", stream=True) as sock:
        reader = Reader(sock)
        reader.head()
        server.process.terminate()
        body, complete = reader.chunked()
    assert complete
    last = body.decode().removesuffix("\n\n").split("\n\n")[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] in ("draining", "deadline_exceeded")
    assert server.stop() == 0
