"""The admin address: a reload is asked for, and answered, apart from where the clients come in."""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import Answer, post, wait_until
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

TOKEN = "a-token-of-the-operators"


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(str(self._path))


def ask(connection: http.client.HTTPConnection, method: str, path: str, **headers: str) -> tuple[int, Any]:
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    return response.status, json.loads(response.read() or b"null")


def write_model(folder: Path, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "custom.py").write_text(f"def score_unstructured(model, data, **kwargs):\n    return {version!r}\n")
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    return folder


def predict(server: Server) -> Answer:
    return post(f"{server.url}/predictUnstructured/", b"x", headers={"Content-Type": "text/plain"})


def test_a_unix_socket_for_the_servers_user_alone(serve: ServeFixture, tmp_path: Path) -> None:
    folder, path = write_model(tmp_path / "model", "A"), tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    server = serve(folder, "--admin-address", f"unix:{path}")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    connection = UnixConnection(path)
    write_model(folder, "B")
    status, told = ask(connection, "POST", "/reload")
    assert (status, told["generation"], told["last"]["error"]) == (200, 2, None)
    assert predict(server).body == b"B"
    (folder / "custom.py").write_text("raise RuntimeError('half a file')\n")
    status, told = ask(connection, "POST", "/reload/")
    assert (status, told["code"]) == (513, "reload_failed")
    assert "model 2 goes on serving" in told["message"]
    assert "half a file" in told["message"]
    assert predict(server).body == b"B"
    status, told = ask(connection, "GET", "/status")
    assert (status, told["model_state"], told["reload"]["generation"]) == (200, "ready", 2)
    assert "half a file" in told["reload"]["last"]["error"]
    assert [worker["generation"] for worker in told["workers"]] == [2]
    assert ask(connection, "GET", "/reload")[0] == 405
    assert ask(connection, "GET", "/predict/")[0] == 404
    connection.close()
    # And nothing of it where the clients come in.
    assert post(f"{server.url}/reload", b"").status == 404
    assert server.stop() == 0
    assert not path.exists()


def test_an_address_that_others_reach_asks_for_its_token(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = serve(
        write_model(tmp_path / "model", "A"),
        *("--admin-address", f"127.0.0.1:{port}", "--admin-keys-file", str(tmp_path / "token")),
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    for shown in ({}, {"Authorization": "Bearer other"}, {"Authorization": TOKEN}):
        for method, path in (("POST", "/reload"), ("GET", "/status"), ("GET", "/other")):
            status, told = ask(connection, method, path, **shown)
            assert (status, told["code"]) == (401, "unauthorized")
            assert TOKEN not in json.dumps(told)
    status, told = ask(connection, "POST", "/reload", Authorization=f"Bearer {TOKEN}")
    assert (status, told["generation"]) == (200, 2)
    connection.close()
    assert TOKEN not in server.log()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--admin-address", "127.0.0.1:1"], "--admin-keys-file"),
        (["--admin-address", "127.0.0.1:1", "--admin-keys-file", "short"], "16 characters or more"),
        (["--admin-address", "127.0.0.1:1", "--admin-keys-file", "missing"], "there is no file"),
        (["--admin-address", "nowhere"], "host:port"),
        (["--admin-address", "unix:short"], "no socket"),
    ],
    ids=["no token", "short", "missing", "no address", "a file"],
)
def test_an_admin_address_that_cannot_be_used_is_said_at_the_start(tmp_path: Path, flags: list[str], said: str) -> None:
    (tmp_path / "short").write_text("secret")
    command = [sys.executable, "-m", "backline", "serve", str(write_model(tmp_path / "model", "A")), *flags]
    done = subprocess.run(
        [*command, "--address", "127.0.0.1:0"], capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path
    )
    assert done.returncode in (1, 2), done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_changed_file_is_loaded_while_developing(serve: ServeFixture, tmp_path: Path) -> None:
    """And a mistake in it is told, while the last good model goes on."""
    folder = tmp_path / "model"
    write_model(folder, "A")
    (folder / "custom.py").write_text("no python")
    server = serve(folder, "--reload", ready=513)  # the server stays up: the mistake is being mended
    write_model(folder, "A")
    server.wait_ready()
    assert predict(server).body == b"A"
    (folder / "__pycache__").mkdir(exist_ok=True)
    (folder / "__pycache__" / "x.pyc").write_bytes(b"x")
    write_model(folder, "B")
    wait_until(lambda: predict(server).body == b"B", "the change is loaded")
    (folder / "custom.py").write_text("no python")
    wait_until(lambda: "goes on serving" in server.log(), "the mistake is told")
    assert predict(server).body == b"B"
    write_model(folder, "C")
    wait_until(lambda: predict(server).body == b"C", "the mended one is loaded")
    assert "custom.py" in server.log()
    assert "__pycache__" not in server.log()


def test_nobody_starts_where_another_server_listens(serve: ServeFixture, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    folder = write_model(tmp_path / "model", "A")
    serve(folder, "--admin-address", f"unix:{path}")
    command = [sys.executable, "-m", "backline", "serve", str(folder), "--admin-address", f"unix:{path}"]
    done = subprocess.run(
        [*command, "--address", "127.0.0.1:0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "another server listens there" in done.stderr
    connection = UnixConnection(path)
    assert ask(connection, "GET", "/status")[0] == 200
    connection.close()
    assert os.path.exists(path)
