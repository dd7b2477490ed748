"""The log of a running server, as programs and people read it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

HOOKS = """
def load_model(code_dir):
    import os, time
    while not os.path.exists(os.path.join(code_dir, "go")):
        time.sleep(0.02)

def score_unstructured(model, data, query):
    print("got", data, "Authorization: Bearer abcdef0123456789")
    return {"ok": "fine"}[data]
"""


def lines(server: Server) -> list[dict[str, Any]]:
    """Return the records; every line of the log is one."""
    return [json.loads(line) for line in server.log().splitlines()]


def wait_for(server: Server, text: str) -> None:
    deadline = time.monotonic() + 20
    while text not in server.log():
        assert time.monotonic() < deadline, f"{text!r} is not in the log"
        time.sleep(0.02)


def test_a_server_logs_json_with_ids_and_without_secrets(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(HOOKS)
    flags = ["--target-type", "unstructured", "--workers", "1"]
    env = {"BACKLINE_LOG_FORMAT": "json"}
    server = serve(tmp_path, *flags, env=env, ready=None)
    with httpx2.Client(base_url=server.url, trust_env=False, timeout=30) as client:
        polls = [client.post("/predictUnstructured/", content="x").status_code for _ in range(50)]
        assert polls == [503] * 50
        (tmp_path / "go").touch()
        server.wait_ready()
        answers = [
            client.post("/predictUnstructured/", content=word, headers={"X-Request-ID": f"order-{word}"}).status_code
            for word in ("ok", "bad")
        ]
    assert answers == [200, 500]
    wait_for(server, "order-bad")
    assert server.stop() == 0
    records = lines(server)
    model = tmp_path.name
    assert {record["model"] for record in records} == {model}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record["time"]) for record in records)
    assert records[0]["message"].startswith("Listening on http://")
    polled = [record for record in records if "still loading" in record["message"]]
    assert [record["level"] for record in polled] == ["info"] * 2
    assert "repeated 49 times" in polled[1]["message"]
    printed = next(record for record in records if "got bad" in record["message"])
    assert (printed["worker"], printed["request_id"]) == (1, "order-bad")
    assert printed["message"] == "got bad Authorization: [redacted]"
    failed = next(record for record in records if record.get("status") == 500)
    assert (failed["level"], failed["code"], failed["request_id"]) == ("error", "hook_failed", "order-bad")
    assert "score_unstructured" in failed["exception"]
    assert "abcdef0123456789" not in server.log()
