"""What a hostile client or a careless model sends costs its own request, and nobody else anything."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.integration.load import post, request
from tests.serving import ServeFixture

pytestmark = pytest.mark.slow

MODEL = """
import os
import subprocess
import sys


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    if data == "raise":
        raise ValueError("x" * 20_000_000)
    if data == "binary":
        sys.stdout.buffer.write(bytes(20_000_000))
        sys.stdout.buffer.flush()
    if data == "orphan":
        child = subprocess.Popen(["sleep", "30"], start_new_session=True)
        return str(child.pid)
    if data == "mimetype":
        return data, {"mimetype": query["is"]}
    return data[::-1]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "custom.py").write_text(MODEL)
    (tmp_path / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    return tmp_path


def test_requests_of_no_reasonable_size_or_content_leave_the_worker_alone(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    url = f"{server.url}/predictUnstructured/"
    text = {"Content-Type": "text/plain"}

    def pid() -> int:
        (worker,) = request("GET", f"{server.url}/stats/").json()["workers"]
        return int(worker["pid"])

    before = pid()
    for name in ("Content-Type", "Accept", "X-Other"):
        refused = post(url, b"abc", headers={**text, name: "\x80" * 100_000})
        assert (refused.status, refused.json()["code"]) == (431, "head_too_large")
    failed = post(url, b"raise", headers=text)
    assert (failed.status, failed.json()["code"]) == (500, "hook_failed")
    assert len(failed.body) < 100_000
    for mimetype in ("text/a%00b", "text/%0d%0aX-Evil:1", "text/%E2%82%AC"):
        failed = post(f"{url}?is={mimetype}", b"mimetype", headers=text)
        assert (failed.status, failed.json()["code"]) == (500, "result_invalid"), mimetype
    assert post(url, b"abc", headers=text).body == b"cba"
    assert pid() == before


def test_binary_output_without_line_breaks_does_not_hold_up_the_server(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    started = time.monotonic()
    printed = post(f"{server.url}/predictUnstructured/", b"binary", headers={"Content-Type": "text/plain"})
    assert printed.body == b"yranib"
    assert time.monotonic() - started < 10


def test_a_process_that_the_model_leaves_behind_does_not_hold_up_the_exit(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    orphan = post(f"{server.url}/predictUnstructured/", b"orphan", headers={"Content-Type": "text/plain"})
    try:
        assert server.stop() == 0
        assert "Traceback" not in server.log()
    finally:
        os.kill(int(orphan.body), 9)
