"""``backline top`` against a running server, as a program of its own."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.load import post
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

MODEL = """
def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    if data == "wrong":
        raise ValueError("wrong")
    return data
"""


@pytest.fixture(scope="module")
def server(serve_for_module: ServeFixture, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("model")
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text("name: echo\ntype: inference\ntargetType: unstructured\n")
    server = serve_for_module(folder, "--workers", "2", "--url-prefix", "/p")
    for body in (b"a", b"b", b"wrong"):
        post(f"{server.url}/predictUnstructured", body, headers={"Content-Type": "text/plain", "X-Request-ID": "mine"})
    return server


def top(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "backline", "top", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_json_says_what_the_server_does(server: Server) -> None:
    result = top(server.url, "--json", "--interval", "0.1")
    assert result.returncode == 0, result.stderr
    shown = json.loads(result.stdout)
    assert (shown["model"], shown["state"], shown["target_type"]) == ("echo", "ready", "unstructured")
    assert sum(worker["answered"] for worker in shown["workers"]) == 3
    assert all(worker["memory_bytes"] > 1_000_000 and worker["pid"] for worker in shown["workers"])
    (error,) = shown["last_errors"]
    assert (error["status"], error["code"], error["request_id"]) == (500, "hook_failed", "mine")


def test_without_a_terminal_it_prints_one_page(server: Server) -> None:
    result = top(server.url.removeprefix("http://"), "--interval", "0.1")
    assert result.returncode == 0, result.stderr
    for text in ("echo", "/predictUnstructured", "hook_failed", "ready", "MiB"):
        assert text in result.stdout


def test_who_cannot_be_asked_is_told_with_the_mend(server: Server) -> None:
    nobody = top("http://127.0.0.1:1")
    assert nobody.returncode == 1
    assert "no server answers at http://127.0.0.1:1" in nobody.stderr
    assert "backline serve" in nobody.stderr
    elsewhere = top(server.url.removesuffix("/p"))
    assert elsewhere.returncode == 1
    assert "--url-prefix" in elsewhere.stderr
    assert top("ftp://somewhere").returncode == 2


@pytest.mark.parametrize("leave", ["q", "Ctrl-C"])
def test_on_a_terminal_it_goes_on_until_told_to_leave(server: Server, leave: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "backline", "top", server.url, "--interval", "0.1"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    with (
        subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(process.kill)  # a failure here must not wait for it for ever
        os.close(theirs)
        seen = b""
        deadline = time.monotonic() + 30
        while seen.count(b"requests/s") < 3:  # drawn again and again
            assert time.monotonic() < deadline, seen
            if select.select([ours], [], [], 0.1)[0]:
                seen += os.read(ours, 1 << 16)
        if leave == "q":
            os.write(ours, b"q")
        else:
            process.send_signal(signal.SIGINT)
        while process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    os.read(ours, 1 << 16)
                except OSError:
                    break
        assert process.wait(10) == 0
    os.close(ours)


def test_a_server_that_asks_for_keys_is_shown_one(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(MODEL)
    (tmp_path / "model-metadata.yaml").write_text("name: echo\ntype: inference\ntargetType: unstructured\n")
    key = "a-key-of-this-test-and-no-other"
    for name, line in (("keys", f"me {key}"), ("mine", key)):
        (tmp_path / name).write_text(line + "\n")
        (tmp_path / name).chmod(0o600)
    server = serve(tmp_path, "--api-keys-file", str(tmp_path / "keys"))
    refused = top(server.url, "--once")
    assert refused.returncode == 1
    assert "--api-key-file" in refused.stderr
    shown = json.loads(top(server.url, "--json", "--interval", "0.1", "--api-key-file", str(tmp_path / "mine")).stdout)
    assert [(error["status"], error["code"]) for error in shown["last_errors"]] == [(401, "unauthorized")]
