"""From start to stop as operators and clients see it: signals, exit codes, prefixes, full queues, early leavers."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import Answer, post, request, wait_until
from tests.serving import SERVER_PYTHON, ServeFixture, Server

pytestmark = pytest.mark.slow

# Answers at once; or says that it has begun, by a file, and waits until another file is there.
MODEL = """
import os
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    if "wait" in query:
        name = os.path.join(HERE, query["wait"])
        open(name + ".begun", "w").close()
        while not os.path.exists(name + ".go"):
            time.sleep(0.01)
    return data[::-1]
"""


class Gate:
    """One request that hangs in the model until it is let go."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / name
        self.query = f"?wait={name}"

    def begun(self) -> bool:
        return self._file.with_name(self._file.name + ".begun").exists()

    def wait_begun(self) -> None:
        wait_until(self.begun, "the model has begun with the request")

    def open(self) -> None:
        self._file.with_name(self._file.name + ".go").touch()


class Asking(threading.Thread):
    """A request on its way, in a thread of its own."""

    def __init__(self, url: str, body: bytes, **headers: str) -> None:
        super().__init__(daemon=True)
        self._url, self._body = url, body
        self._headers = {"Content-Type": "text/plain"} | {name.replace("_", "-"): v for name, v in headers.items()}
        self._answer: Answer | Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._answer = post(self._url, self._body, headers=self._headers)
        except (OSError, http.client.HTTPException) as exc:
            self._answer = exc

    def answer(self) -> Answer:
        self.join(60)
        assert isinstance(self._answer, Answer), self._answer
        return self._answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", MODEL)


def write_model(folder: Path, code: str) -> Path:
    folder.mkdir()
    (folder / "custom.py").write_text(code)
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    return folder


def unstructured(server: Server, query: str = "") -> str:
    return f"{server.url}/predictUnstructured/{query}"


def ask(server: Server, body: bytes = b"abc", headers: dict[str, str] | None = None) -> Answer:
    return post(unstructured(server), body, headers={"Content-Type": "text/plain", **(headers or {})})


def stats(server: Server) -> Any:
    return request("GET", f"{server.url}/stats/").json()


def pids(server: Server) -> list[int]:
    return [worker["pid"] for worker in stats(server)["workers"] if worker["state"] in ("ready", "busy")]


@contextlib.contextmanager
def client_that_leaves(url: str, body: bytes) -> Iterator[None]:
    """Send a request and close the connection at the end of the block, without reading."""
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname
    with socket.create_connection((parts.hostname, parts.port or 80)) as connection:
        head = f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        yield


# --- clients that leave


def test_a_worker_whose_client_left_is_killed_after_the_grace_and_the_others_are_not_disturbed(
    serve: ServeFixture, folder: Path
) -> None:
    server = serve(folder, "--workers", "2", "--cancel-grace", "0.3")
    wait_until(lambda: len(pids(server)) == 2, "both workers are there")
    before = pids(server)
    left, stays = Gate(folder, "left"), Gate(folder, "stays")
    other = Asking(unstructured(server, stays.query), b"other")
    stays.wait_begun()
    with client_that_leaves(unstructured(server, left.query), b"gone"):
        left.wait_begun()
    wait_until(lambda: len(set(pids(server)) - set(before)) == 1, "its worker is replaced")
    assert len(set(pids(server)) & set(before)) == 1
    assert ask(server).body == b"cba"
    stays.open()
    assert other.answer().body == b"rehto"
    wait_until(lambda: stats(server)["queue"] == {"waiting": 0, "bytes_in_flight": 0}, "nothing is held any more")
    assert "its client left" in server.log()


def test_a_call_that_ends_within_the_grace_costs_no_worker(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--cancel-grace", "30")
    before = pids(server)
    gate = Gate(folder, "left")
    with client_that_leaves(unstructured(server, gate.query), b"gone"):
        gate.wait_begun()
    with client_that_leaves(unstructured(server), b"leaves later"):
        wait_until(lambda: stats(server)["queue"]["waiting"] == 1, "it waits")
    # That the server has seen this one go shows that it has seen the first.
    wait_until(lambda: stats(server)["queue"]["waiting"] == 0, "it is dropped")
    waits = Asking(unstructured(server), b"next")
    wait_until(lambda: stats(server)["queue"]["waiting"] == 1, "the next request waits for the only worker")
    gate.open()
    assert waits.answer().body == b"txen"
    assert pids(server) == before
    assert stats(server)["queue"] == {"waiting": 0, "bytes_in_flight": 0}


def test_a_client_that_leaves_the_queue_is_never_worked_for(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--cancel-grace", "30")
    first, never = Gate(folder, "first"), Gate(folder, "never")
    asking = Asking(unstructured(server, first.query), b"first")
    first.wait_begun()
    with client_that_leaves(unstructured(server, never.query), b"never"):
        wait_until(lambda: stats(server)["queue"]["waiting"] == 1, "it waits")
    wait_until(lambda: stats(server)["queue"] == {"waiting": 0, "bytes_in_flight": 5}, "it is dropped")
    first.open()
    assert asking.answer().body == b"tsrif"
    assert ask(server).body == b"cba"
    assert not never.begun()


# --- limits and deadlines


@pytest.mark.parametrize("queue", [0, 1])
def test_a_full_queue_is_answered_at_once_with_when_to_come_back(serve: ServeFixture, folder: Path, queue: int) -> None:
    server = serve(folder, "--queue", str(queue))
    assert ask(server).body == b"cba"  # a free worker needs no queue
    gate = Gate(folder, "gate")
    taken = [Asking(unstructured(server, gate.query), b"running")]
    gate.wait_begun()
    taken += [Asking(unstructured(server), b"waiting") for _ in range(queue)]
    wait_until(lambda: stats(server)["queue"]["waiting"] == queue, "the queue is full")
    refused = ask(server)
    assert (refused.status, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    gate.open()
    assert [asking.answer().status for asking in taken] == [200] * (1 + queue)
    assert ask(server).body == b"cba"


def test_bodies_over_the_bytes_in_flight_are_refused_until_there_is_room(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--workers", "2", "--max-bytes-in-flight", "1000")
    gate = Gate(folder, "gate")
    running = Asking(unstructured(server, gate.query), b"x" * 600)
    gate.wait_begun()
    refused = ask(server, b"y" * 600)
    assert (refused.status, refused.json()["code"]) == (503, "queue_full")
    assert int(refused.headers["retry-after"]) >= 1
    assert ask(server, b"y" * 400).status == 200
    gate.open()
    assert running.answer().status == 200
    wait_until(lambda: stats(server)["queue"]["bytes_in_flight"] == 0, "the room is free again")
    assert ask(server, b"y" * 600).status == 200


def test_a_deadline_in_the_queue_costs_neither_the_worker_nor_the_call_it_is_busy_with(
    serve: ServeFixture, folder: Path
) -> None:
    server = serve(folder, "--timeout-grace", "0")
    before = pids(server)
    first, never = Gate(folder, "first"), Gate(folder, "never")
    running = Asking(unstructured(server, first.query), b"first")
    first.wait_begun()
    late = post(unstructured(server, never.query), b"late", headers={"X-Request-Timeout": "0.2"})
    assert (late.status, late.json()["code"]) in ((503, "deadline_exceeded"), (504, "deadline_exceeded"))
    assert "waited for a worker" in late.json()["message"]
    first.open()
    assert running.answer().body == b"tsrif"
    assert ask(server).body == b"cba"
    assert pids(server) == before
    assert not never.begun()


def test_a_client_may_shorten_its_deadline_and_not_lengthen_it(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--timeout", "1", "--timeout-grace", "0")
    for wished, seconds in (("0.2", 0.2), ("1000", 1.0)):
        gate = Gate(folder, f"gate-{wished}")
        started = time.monotonic()
        late = post(unstructured(server, gate.query), b"late", headers={"X-Request-Timeout": wished})
        assert (late.status, late.json()["code"]) == (504, "deadline_exceeded")
        assert seconds <= time.monotonic() - started < seconds + 5
        wait_until(lambda: len(pids(server)) == 1, "its worker is replaced")
    for wrong in ("0", "-1", "nan", "inf", "soon", ""):
        refused = ask(server, headers={"X-Request-Timeout": wrong})
        assert (refused.status, refused.json()["code"]) == (400, "bad_request"), wrong


def test_an_answer_within_the_timeout_grace_costs_no_worker(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--timeout-grace", "30")
    before = pids(server)
    gate = Gate(folder, "gate")
    late = post(unstructured(server, gate.query), b"late", headers={"X-Request-Timeout": "0.2"})
    assert late.status == 504
    gate.open()
    assert ask(server).body == b"cba"
    assert pids(server) == before


# --- stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_a_signal_lets_accepted_requests_finish_and_takes_no_new_ones(
    serve: ServeFixture, folder: Path, number: signal.Signals, code: int
) -> None:
    server = serve(folder)
    workers = pids(server)
    gate = Gate(folder, "gate")
    running = Asking(unstructured(server, gate.query), b"running")
    gate.wait_begun()
    waiting = Asking(unstructured(server), b"waiting")
    wait_until(lambda: stats(server)["queue"]["waiting"] == 1, "another one waits")
    server.process.send_signal(number)
    wait_until(lambda: not accepts(server), "no new connection is taken")
    gate.open()
    assert running.answer().body == b"gninnur"
    assert waiting.answer().body == b"gnitiaw"
    assert server.process.wait(20) == code, server.tail()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "the workers are gone")
    assert "Traceback" not in server.log()


def accepts(server: Server) -> bool:
    try:
        return ask(server).status == 200
    except (OSError, http.client.HTTPException):
        return False


def test_a_request_that_never_ends_holds_up_the_stop_for_the_drain_time_only(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--drain-timeout", "1")
    worker = pids(server)[0]
    gate = Gate(folder, "never")
    running = Asking(unstructured(server, gate.query), b"running")
    gate.wait_begun()
    started = time.monotonic()
    server.process.terminate()
    assert server.process.wait(20) == 0, server.tail()
    assert 1 <= time.monotonic() - started < 15
    running.join(10)
    assert not running.is_alive()
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), "the worker is gone")


def test_a_second_signal_stops_at_once(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    gate = Gate(folder, "never")
    Asking(unstructured(server, gate.query), b"running")
    gate.wait_begun()
    server.process.send_signal(signal.SIGINT)
    wait_until(lambda: not accepts(server), "the first signal is taken")
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(15) == 130, server.tail()


def test_a_signal_while_the_model_loads_ends_the_server(serve: ServeFixture, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", "import time\n\nopen(__file__ + '.begun', 'w').close()\ntime.sleep(600)\n")
    server = serve(folder, ready=503)
    wait_until((folder / "custom.py.begun").exists, "the model loads")
    server.process.terminate()
    assert server.process.wait(15) == 0, server.tail()


def test_shutdown_is_off_unless_the_operator_allows_it(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    refused = request("POST", f"{server.url}/shutdown/")
    assert (refused.status, refused.json()["code"]) == (403, "shutdown_forbidden")
    assert "--allow-shutdown" in refused.json()["message"]
    assert ask(server).status == 200
    allowing = serve(folder, "--allow-shutdown")
    assert request("GET", f"{allowing.url}/shutdown/").status == 405
    assert request("POST", f"{allowing.url}/shutdown/").status == 200
    assert allowing.process.wait(15) == 0, allowing.tail()


# --- a model that does not load

BROKEN = (
    "def load_model(code_dir):\n    raise RuntimeError('the weights are of another kind')\n"
    + MODEL[MODEL.index("\n\ndef score") :]
)


def test_a_model_that_does_not_load_ends_the_server_with_the_reason(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", BROKEN)
    done = subprocess.run(
        [SERVER_PYTHON, "-m", "backline", "serve", str(folder), "--address", "127.0.0.1:0"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Error: " in done.stderr
    assert "the weights are of another kind" in done.stderr
    assert "custom.py" in done.stderr  # the author's own frames
    assert "stays up" not in done.stderr


def test_the_error_server_answers_513_with_the_reason_and_stays_up(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(write_model(tmp_path / "model", BROKEN), "--with-error-server", ready=513)
    for method, path in (
        ("POST", "/predict/"),
        ("POST", "/predictUnstructured/"),
        ("POST", "/transform/"),
        ("GET", "/health/"),
        ("GET", "/ping/"),
        ("GET", "/readyz"),
    ):
        answer = request(method, server.url + path, b"a\n1\n" if method == "POST" else None)
        assert answer.status == 513, path
        assert "the weights are of another kind" in answer.json()["message"], path
    for path in ("/", "/livez", "/info/", "/stats/", "/capabilities/"):
        assert request("GET", server.url + path).status == 200, path
    assert "the weights are of another kind" in request("GET", f"{server.url}/info/").json()["failure"]
    assert server.process.poll() is None


# --- addresses and headers

PREDICTING = {"/predictUnstructured", "/predictionsUnstructured"}
GET = {"", "/ping", "/health", "/stats", "/info", "/capabilities", "/livez", "/readyz"}
# Not of this model: the route is there, and says so.
OTHERS = {
    "/predict": "POST",
    "/predictions": "POST",
    "/invocations": "POST",
    "/transform": "POST",
    "/chat/completions": "POST",
    "/v1/chat/completions": "POST",
    "/models": "GET",
    "/v1/models": "GET",
    "/shutdown": "POST",
    "/directAccess/x/y": "GET",
    "/nim/x": "POST",
}


@pytest.mark.track
@pytest.mark.parametrize("prefix", ["", "/model/a", "model/a/", "/"])
def test_every_route_answers_under_the_prefix_with_and_without_a_slash(
    serve: ServeFixture, folder: Path, prefix: str
) -> None:
    server = serve(folder, env={"URL_PREFIX": prefix} if prefix else None)
    path = urllib.parse.urlsplit(server.url).path
    assert path == ("/model/a" if "model" in prefix else "")
    for slash in ("", "/"):
        for route in GET:
            if route or slash or path:
                answer = request("GET", f"{server.url}{route}{slash}")
                assert (answer.status, answer.headers["content-type"]) == (200, "application/json"), route + slash
        for route in PREDICTING:
            assert post(f"{server.url}{route}{slash}", b"abc").body == b"cba", route + slash
        for route, method in OTHERS.items():
            answer = request(method, f"{server.url}{route}{slash}", b"" if method == "POST" else None)
            assert 400 <= answer.status < 500, route + slash
            content = answer.json()
            code = content["error"]["code"] if "error" in content else content["code"]
            assert code != "not_found", route + slash
    if path:
        root = server.url.removesuffix(path)
        for probe in ("/", "/livez", "/readyz", "/ping", "/ping/"):
            answer = request("GET", root + probe)
            assert answer.status in (200, 404), probe
        for probe in ("/", "/livez", "/readyz", "/ping"):
            assert request("GET", root + probe).status == 200, probe
        missing = post(f"{root}/predictUnstructured/", b"abc")
        assert (missing.status, missing.json()["code"]) == (404, "not_found")


def test_a_request_id_is_echoed_if_harmless_and_made_otherwise(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--logging-level", "debug")
    for url, method, status in (
        (unstructured(server), "POST", 200),
        (f"{server.url}/readyz", "GET", 200),
        (f"{server.url}/predict/", "POST", 404),
        (f"{server.url}/readyz", "DELETE", 405),
        (f"{server.url}/nowhere", "GET", 404),
    ):
        given = request(method, url, b"x" if method == "POST" else None, headers={"X-Request-ID": "Trace:1/2+3="})
        assert (given.status, given.headers["x-request-id"]) == (status, "Trace:1/2+3="), url
    made = {ask(server).headers["x-request-id"] for _ in range(3)}
    assert len(made) == 3
    for harmful in ("a b", "x" * 129, "é", '<script>"', ""):
        echoed = ask(server, headers={"X-Request-ID": harmful}).headers["x-request-id"]
        assert echoed != harmful
        assert 1 <= len(echoed) <= 128


def test_head_options_and_wrong_methods(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    head = request("HEAD", f"{server.url}/readyz")
    assert (head.status, head.body) == (200, b"")
    assert int(head.headers["content-length"]) == len(request("GET", f"{server.url}/readyz").body)
    for path, allowed in (
        ("/readyz", "GET, HEAD, OPTIONS"),
        ("/predict/", "POST, OPTIONS"),
        ("/shutdown", "POST, OPTIONS"),
    ):
        options = request("OPTIONS", server.url + path)
        assert (options.status, options.headers["allow"], options.body) == (204, allowed, b"")
        wrong = request("PATCH", server.url + path)
        assert (wrong.status, wrong.headers["allow"]) == (405, allowed)
        assert wrong.json()["code"] == "method_not_allowed"
    wrong = request("GET", f"{server.url}/predict/")
    assert wrong.status == 405
    assert "use POST" in wrong.json()["message"]


def test_a_connection_is_kept_over_answers_and_errors(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    parts = urllib.parse.urlsplit(server.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.connect()
        port = connection.sock.getsockname()[1]
        for path, body, status in (
            ("/predictUnstructured/", b"abc", 200),
            ("/predict/", b"a\n1\n", 404),
            ("/predictUnstructured/", b"x" * 3_000_000, 200),
            ("/nowhere", b"", 404),
            ("/predictUnstructured/", b"abc", 200),
        ):
            connection.request("POST", path, body, {"Content-Type": "text/plain"})
            response = connection.getresponse()
            content = response.read()
            assert response.status == status, content[:200]
            if status == 200:
                assert content == body[::-1]
        assert connection.sock.getsockname()[1] == port
    finally:
        connection.close()


def test_an_address_in_use_is_said_before_the_model_loads(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    address = urllib.parse.urlsplit(server.url).netloc
    done = subprocess.run(
        [SERVER_PYTHON, "-m", "backline", "serve", str(folder), "--address", address],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "ADDRESS"},
    )
    assert done.returncode == 1, done.stderr
    assert f"--address {address}" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Listening" not in done.stderr
