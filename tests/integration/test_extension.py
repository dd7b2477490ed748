"""The operator's extension file: what it adds covers the prediction routes, and what is wrong with it is said by line.

The models are unstructured ones, which need no package and load at once.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import Answer, request
from tests.serving import SERVER_PYTHON, ServeFixture, Server, running_server

pytestmark = [pytest.mark.slow, pytest.mark.track]

KEY = {"X-Key": "secret"}
AUTH = """
import hmac

class CheckKey:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        given = dict(scope.get("headers", ())).get(b"x-key", b"")
        if scope["type"] == "http" and scope["path"] not in ("/livez", "/readyz"):
            if not hmac.compare_digest(given, b"secret"):
                await send({"type": "http.response.start", "status": 401, "headers": []})
                await send({"type": "http.response.body", "body": b"show your key"})
                return
        await self.app(scope, receive, send)

def init_app(app):
    app.add_middleware(CheckKey)
"""
FULL = """
import asyncio, time
from fastapi import Request

async def lifespan(app):
    app.state.greeting = "hello"
    print("start work done", flush=True)
    yield
    print("stop work done", flush=True)

def init_app(app):
    @app.get("/hello")
    async def hello(request: Request):
        return {"message": request.app.state.greeting}

    @app.get("/block")
    async def block():
        time.sleep(0.8)

    @app.get("/wait")
    async def wait():
        await asyncio.sleep(0.8)

    @app.get("/fault")
    async def fault():
        raise LookupError("nothing there")

    from fastapi import APIRouter, HTTPException
    router = APIRouter()

    @router.get("/items/{number}")
    async def item(number: int):
        if number > 8:
            raise HTTPException(404, "no such item")
        return number

    app.include_router(router, prefix="/shop")

    @app.middleware("http")
    async def mark(request, call_next):
        answer = await call_next(request)
        answer.headers["x-marked"] = "yes"
        return answer
"""
DEPENDENCY = """
from fastapi import Depends, HTTPException, Security
from fastapi.security import APIKeyHeader

def check_key(key: str | None = Security(APIKeyHeader(name="X-Key", auto_error=False))):
    if key != "secret":
        raise HTTPException(401, "show your key", headers={"WWW-Authenticate": "Key"})

def init_app(app):
    app.router.dependencies.append(Depends(check_key))
"""
FLASK = """
from flask import abort, jsonify, request

def init_app(app):
    @app.before_request
    def check_key():
        if request.headers.get("X-Key") != "secret":
            abort(401)

    @app.route("/items/<int:number>", methods=["GET", "POST"])
    def item(number):
        return jsonify(number=number, sent=request.get_data(as_text=True))
"""


def make_folder(folder: Path, name: str = "custom_fastapi.py", text: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "custom.py").write_text(
        "def score_unstructured(model, data, query, **kwargs):\n    return data.upper()\n"
    )
    (folder / "model-metadata.yaml").write_text("name: upper\ntype: inference\ntargetType: unstructured\n")
    (folder / name).write_text(text)
    return folder


def ask(server: Server, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
    return request("POST" if body is not None else "GET", server.url + path, body, headers=headers)


def predict(server: Server, headers: dict[str, str] | None = None) -> Answer:
    return ask(server, "/predictUnstructured/", {"Content-Type": "text/plain", **(headers or {})}, b"rows")


def extension_of(server: Server, headers: dict[str, str] | None = None) -> Any:
    return ask(server, "/info/", headers).json()["extension"]


def failed_start(folder: Path, *flags: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Return exit code and standard error of a server that ends by itself."""
    command = [SERVER_PYTHON, "-m", "backline", "serve", str(folder), "--address", "127.0.0.1:0", *flags]
    environ = {**os.environ, **(env or {})}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
    return done.returncode, done.stderr


def wait_logged(server: Server, pattern: str) -> None:
    """The log is written by a thread: what is logged before an answer may be there after it."""
    deadline = time.monotonic() + 10
    while not re.search(pattern, server.log()):
        assert time.monotonic() < deadline, f"{pattern} is not in the log:\n{server.log()}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def full(serve_for_module: ServeFixture, tmp_path_factory: pytest.TempPathFactory) -> Server:
    return serve_for_module(make_folder(tmp_path_factory.mktemp("full"), text=FULL))


def test_auth_in_a_middleware_covers_every_route_and_lets_probes_through(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(make_folder(tmp_path, text=AUTH))
    for path in (
        "/predictUnstructured/",
        "/predict",
        "/predictions/",
        "/chat/completions",
        "/info/",
        "/nim/x",
        "/none",
    ):
        assert ask(server, path, body=b"rows").status == 401, path
    assert predict(server, KEY).body == b"ROWS"
    assert ask(server, "/livez").status == 200
    assert extension_of(server, KEY)["middleware"] == ["CheckKey (custom_fastapi.py:4)"]


def test_auth_in_a_dependency_covers_our_own_routes(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(make_folder(tmp_path, text=DEPENDENCY), ready=401)
    answer = predict(server)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Key")
    assert answer.json()["message"] == "ERROR: show your key"
    assert predict(server, KEY).body == b"ROWS"
    assert ask(server, "/directAccess/x").status == 401
    assert ask(server, "/directAccess/x", KEY).status == 400
    assert extension_of(server, KEY)["dependencies"] == ["check_key"]


def test_a_route_a_middleware_and_start_work_are_there_and_are_shown(full: Server) -> None:
    answer = ask(full, "/hello")
    assert answer.json() == {"message": "hello"}
    assert predict(full).headers["x-marked"] == "yes"
    shown = extension_of(full)
    assert shown["routes"][0] == "GET /hello (custom_fastapi.py:12)"
    assert shown["lifespan"] is True
    assert "BaseHTTPMiddleware" in shown["warnings"][0]
    wait_logged(full, "BaseHTTPMiddleware")
    assert "/hello" in ask(full, "/openapi.json").json()["paths"]


def test_added_routes_are_counted_by_their_templates(full: Server) -> None:
    for number in range(10):
        assert ask(full, f"/shop/items/{number}").status == (200 if number <= 8 else 404)
    assert "no such item" in ask(full, "/shop/items/9").json()["message"]
    assert ask(full, "/shop/items/x").status == 422
    assert request("PUT", full.url + "/shop/items/1", None).status == 405
    assert ask(full, "/nowhere").status == 404
    assert predict(full).status == 200
    page = ask(full, "/metrics").body.decode()
    counted = {}
    for line in page.splitlines():
        if line.startswith("backline_requests_total{"):
            labels = dict(re.findall(r'(\w+)="([^"]*)"', line))
            counted[labels["route"], labels["method"], labels["status"]] = float(line.rpartition(" ")[2])
    items = "/shop/items/{number}"
    assert {key: count for key, count in counted.items() if key[0] == items} == {
        (items, "GET", "200"): 9, (items, "GET", "404"): 2, (items, "GET", "422"): 1, (items, "PUT", "405"): 1
    }  # fmt: skip
    assert counted["other", "GET", "404"] >= 1
    assert counted["/predictUnstructured", "POST", "200"] >= 1


def test_a_route_that_blocks_the_event_loop_is_told_by_line_and_one_that_waits_is_not(full: Server) -> None:
    assert ask(full, "/wait").status == 200
    seen = extension_of(full)["event_loop_blocked"]["times"]
    assert ask(full, "/block").status == 200
    blocked = extension_of(full)["event_loop_blocked"]
    assert (blocked["times"], blocked["last"]) == (seen + 1, "custom_fastapi.py line 18, in block")
    wait_logged(full, r"blocked for [0-9.]+ s by custom_fastapi.py line 18, in block")
    assert "line 22" not in full.log()


def test_a_fault_in_a_route_is_answered_in_the_documented_shape_and_told_by_line(full: Server) -> None:
    answer = ask(full, "/fault")
    assert answer.status == 500
    assert answer.json()["message"] == "ERROR: LookupError in custom_fastapi.py line 26; its log has more"
    wait_logged(full, r"LookupError: nothing there \(custom_fastapi.py line 26\)")


def test_stop_work_is_done(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(make_folder(tmp_path, text=FULL))
    assert server.stop() == 0
    assert "start work done" in server.log() and "stop work done" in server.log()


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("def init_app(app):\n    pass\n}\n", 3, "SyntaxError: unmatched '}'"),
        ("import os\nimport nothing_of_that_name\n", 2, "No module named 'nothing_of_that_name'"),
        ("def init_app(app):\n    app.no_such_thing()\n", 2, "has no attribute 'no_such_thing'"),
        ("def init_app(app):\n    raise SystemExit(0)\n", 2, "SystemExit: 0"),
        ("async def init_app(app):\n    pass\n", 1, "init_app is a coroutine function"),
        ("x = 1\n", None, "defines no init_app(app)"),
        ("async def lifespan(app):\n    1 / 0\n    yield\n", 2, "ZeroDivisionError: division by zero (start work)"),
        ("def init_app(app):\n    @app.post('/predict/')\n    def mine(): ...\n", 2, "which Backline answers itself"),
    ],
    ids=["syntax", "import", "attribute", "exit", "coroutine", "nothing", "start-work", "taken"],
)
def test_a_broken_file_stops_the_start_and_is_told_by_line(
    tmp_path: Path, text: str, line: int | None, message: str
) -> None:
    file = make_folder(tmp_path / "model", text=text) / "custom_fastapi.py"
    # Also with the error server: who is let in may be decided in that file.
    code, told = failed_start(file.parent, "--with-error-server")
    assert code == 1
    assert message in told
    assert f"where: {file}{f':{line}' if line else ''}\n" in told
    assert "Traceback" not in told


def test_start_work_that_hangs_has_a_deadline_and_can_be_interrupted(serve: ServeFixture, tmp_path: Path) -> None:
    text = "import asyncio\nasync def lifespan(app):\n    print('begun', flush=True)\n"
    text += "    await asyncio.sleep(600)\n    yield\n"
    folder = make_folder(tmp_path, text=text)
    server = serve(folder, "--start-timeout", "0.5", ready=None)
    assert server.process.wait(30) == 1
    assert "the start work took longer than 0.5 s" in server.log()
    server = serve(folder, ready=None)
    while "begun" not in server.log():
        assert server.process.poll() is None
    os.kill(server.process.pid, signal.SIGINT)
    assert server.process.wait(30) == 130


def test_flask_code_keeps_its_auth_and_its_routes(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(make_folder(tmp_path, "custom_flask.py", FLASK), ready=401)
    assert predict(server).status == 401
    assert predict(server, KEY).body == b"ROWS"
    assert ask(server, "/items/7").status == 401
    assert ask(server, "/items/7", KEY, b"text").json() == {"number": 7, "sent": "text"}
    assert ask(server, "/items/x", KEY).json()["code"] == "not_found"
    assert extension_of(server, KEY)["dependencies"] == ["before_request init_app.<locals>.check_key"]
    wait_logged(server, "write custom_fastapi.py instead")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def init_app(app):\n    app.wsgi_app = lambda e, s: []\n", "wraps app.wsgi_app"),
        (
            "def init_app(app):\n    app.add_url_rule('/predict/', view_func=init_app)\n",
            "which Backline answers itself",
        ),
    ],
    ids=["wsgi-middleware", "taken"],
)
def test_flask_code_that_cannot_be_carried_over_stops_the_start(tmp_path: Path, text: str, message: str) -> None:
    code, told = failed_start(make_folder(tmp_path, "custom_flask.py", text))
    assert code == 1
    assert message in told


def test_flask_code_without_flask_stops_the_start_unless_it_is_left_out(serve: ServeFixture, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", "custom_flask.py", FLASK)
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "sitecustomize.py").write_text(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *a: None if name == 'flask' else find(name, *a)\n"
    )
    without = {"PYTHONPATH": str(tmp_path / "without")}
    code, told = failed_start(folder, env=without)
    assert code == 1
    assert "needs flask in the server's environment" in told
    assert "--no-custom-flask" in told
    server = serve(folder, "--no-custom-flask", env=without)
    assert predict(server).status == 200


def test_a_backend_without_a_directory_runs_no_file_of_the_place_where_it_is_started(tmp_path: Path) -> None:
    text = "raise SystemExit\n"
    make_folder(tmp_path / "model", text=text)
    (tmp_path / "custom_fastapi.py").write_text(text)
    with running_server(tmp_path / "server.log", None, "--backend", "http://127.0.0.1:9", ready=503) as server:
        assert extension_of(server) is None
    code, _ = failed_start(tmp_path / "model", "--sidecar", "--backend", "http://127.0.0.1:9")
    assert code == 1
