"""``backline parity`` with real servers on both sides."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import signal
import socket
import urllib.parse
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backline.parity.store import Store
from tests.integration.parity_tools import HOSTILE, OldServer, old_server, parity, recording, write_requests

pytestmark = pytest.mark.slow

CANDIDATE = """
import json
from decimal import Decimal

def load_model(code_dir):
    return "model"

def score_unstructured(model, data, query, **kwargs):
    if kwargs.get("headers", {}).get("x-hostile"):
        return json.dumps({"text": "plain"}), {"mimetype": "application/json"}
    numbers = json.loads(data or "[]")
    total = sum(numbers)
    if OFF and total > 40:
        total += 1e-6
    return json.dumps({"mean": 0.3, "sum": total}), {"mimetype": "application/json"}
"""


@pytest.fixture(scope="module")
def old() -> Iterator[str]:
    with old_server() as url:
        yield url


def folder(path: Path, *, off: bool = False) -> Path:
    path.mkdir()
    (path / "custom.py").write_text(f"OFF = {off}\n{CANDIDATE}")
    (path / "model-metadata.yaml").write_text("name: sums\ntargetType: unstructured\ntype: inference\n")
    return path


def ask(url: str, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[Any, ...]:
    """Return status, headers without those that tell the time, and body."""
    parts = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, path, body, headers or {}, encode_chunked=not isinstance(body, bytes | None))
        answer = connection.getresponse()
        told = sorted((name.lower(), value) for name, value in answer.getheaders() if name.lower() != "date")
        return answer.status, told, answer.read()
    finally:
        connection.close()


def test_the_recorder_passes_everything_on_unchanged_and_keeps_it(old: str, tmp_path: Path) -> None:
    asked: list[tuple[Any, ...]] = [
        ("POST", "/sum?a=%20b&c", b"[1, 2, 3]", {"content-type": "application/json"}),
        ("POST", "/sum", b"nonsense", {"x-odd": "caf\xe9"}),
        ("GET", "/sum", None, {}),
        ("POST", "/sum", iter([b"[1,", b" 2]"]), {"transfer-encoding": "chunked"}),
        ("POST", "/stream", b"[]", {}),
        ("POST", "/sum", json.dumps(list(range(200_000))).encode(), {}),
    ]
    direct = [ask(old, *each) for each in [*asked[:3], ("POST", "/sum", b"[1, 2]", {}), *asked[4:]]]
    OldServer.asked.clear()
    store = tmp_path / "calls.sqlite"
    with recording(old, store) as (url, _):
        passed = [ask(url, *each) for each in asked]
        seen = list(OldServer.asked)
    assert passed == direct
    names = {name.lower() for _, _, headers, _ in seen for name in headers}
    assert not any(name.startswith(("x-forwarded", "forwarded", "via")) for name in names)
    with Store.open(store) as calls:
        kept = [stored.call for stored in calls.calls()]
    assert [(each.request.method, each.request.target, each.request.body) for each in kept] == [
        (method, path, body) for method, path, _, body in seen
    ]
    assert [each.answer and each.answer.body for each in kept] == [body for _, _, body in direct]
    assert all(each.answer is not None and each.answer.seconds for each in kept)


def test_secrets_are_passed_on_and_not_kept(old: str, tmp_path: Path) -> None:
    OldServer.asked.clear()
    headers = {"Authorization": "Bearer s3cret", "X-Api-Key": "s3cret", "X-Other": "shown", "X-Mine": "s3cret"}
    with recording(old, tmp_path / "calls.sqlite", "--redact", "x-mine") as (url, _):
        status, told, _ = ask(url, "POST", "/secret?token=s3cret&b=1", b"[]", headers)
    assert status == 200
    assert ("set-cookie", "session=s3cret") in told
    assert OldServer.asked[0][1] == "/secret?token=s3cret&b=1"
    assert {name.lower(): value for name, value in OldServer.asked[0][2].items()}["authorization"] == "Bearer s3cret"
    content = (tmp_path / "calls.sqlite").read_bytes()
    assert b"s3cret" not in content
    assert b"shown" in content


def test_a_recorder_that_is_stopped_under_load_keeps_every_answered_call(old: str, tmp_path: Path) -> None:
    store = tmp_path / "calls.sqlite"
    answered: list[int] = []

    def load(url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        for number in range(100_000):
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
            try:
                connection.request("POST", f"/sum?{number}", b"[1]")
                answer = connection.getresponse()
                answer.read()
                if answer.status != 200:
                    return
                answered.append(number)
            except (OSError, http.client.HTTPException):
                return
            finally:
                connection.close()

    with recording(old, store) as (url, process), concurrent.futures.ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(load, url) for _ in range(4)]
        while len(answered) < 200:
            assert not all(client.done() for client in clients)
        process.send_signal(signal.SIGTERM)
        concurrent.futures.wait(clients, 60)
        process.wait(30)
    with Store.open(store) as calls:
        assert calls.count_calls() >= len(answered)


def test_a_target_that_is_down_is_told_to_the_caller(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with recording(f"http://127.0.0.1:{port}", tmp_path / "calls.sqlite") as (url, _):
        status, _, body = ask(url, "POST", "/sum", b"[]")
    assert status == 502
    assert b"no connection" in body


REQUESTS: list[dict[str, Any]] = [
    *({"path": "/predictUnstructured/", "json": list(range(count))} for count in range(2, 12)),
    {"path": "/predictUnstructured/", "body": "nonsense", "headers": {"content-type": "application/json"}},
]


def test_a_model_that_answers_the_same_is_told_so_in_every_form(old: str, tmp_path: Path) -> None:
    requests = write_requests(tmp_path / "r.jsonl", REQUESTS[:-1])
    done = parity(
        "run", "--reference", old, "--candidate", folder(tmp_path / "sums"), "--requests", requests, "--repeat", "2",
        "--order", "random", "--junit", tmp_path / "r.xml", "--json", tmp_path / "r.json",
        "--html", tmp_path / "r.html", "--store", tmp_path / "run.sqlite",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The same: no difference in 20 requests" in done.stdout
    figures = json.loads((tmp_path / "r.json").read_text())
    assert figures["verdict"] == "same"
    assert figures["verdicts"] == {"same": 20}
    assert {each["field"]: each["compared"] for each in figures["fields"]} == {
        "status": 20, "content type": 20, "$.sum": 20, "$.mean": 20,
    }  # fmt: skip
    assert figures["latency"]["candidate"]["count"] == 20
    suite = ET.parse(tmp_path / "r.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("20", "0")
    listed = parity("show", tmp_path / "run.sqlite")
    assert listed.returncode == 0
    assert len(listed.stdout.splitlines()) == 11
    again = parity("report", tmp_path / "run.sqlite")
    assert again.returncode == 0
    assert again.stdout == done.stdout


def test_a_planted_difference_is_found_and_no_other(old: str, tmp_path: Path) -> None:
    """Sums over 40 are off by a millionth; what both refuse, each in its own words, is no difference."""
    requests = write_requests(tmp_path / "r.jsonl", REQUESTS)
    done = parity(
        "run", "--reference", old, "--candidate", folder(tmp_path / "off", off=True), "--requests", requests,
        "--json", tmp_path / "r.json", "--junit", tmp_path / "r.xml", "--same-status", "400=500",
    )  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    figures = json.loads((tmp_path / "r.json").read_text())
    assert figures["verdicts"] == {"same": 9, "different": 2}
    assert [each["field"] for each in figures["fields"] if each["differing"]] == ["$.sum"]
    assert {(each["reference"], each["path"]) for each in figures["differences"]} == {(45, "$.sum"), (55, "$.sum")}
    assert figures["fields"][0]["largest"] == pytest.approx(1e-6, rel=1e-3)
    failed = [case.get("name") for case in ET.parse(tmp_path / "r.xml").getroot() if case.find("failure") is not None]
    assert failed == ["#9", "#10"]


def test_answers_with_chance_in_them_are_flaky_and_no_difference(old: str, tmp_path: Path) -> None:
    requests = write_requests(tmp_path / "r.jsonl", [{"path": "/chance", "json": [1, 2]}] * 5)
    done = parity("run", "--reference", old, "--candidate", old, "--requests", requests, "--json", tmp_path / "r.json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "5 are flaky" in done.stdout
    figures = json.loads((tmp_path / "r.json").read_text())
    assert [each["field"] for each in figures["fields"] if each["flaky"]] == ["$.noise"]
    done = parity("run", "--reference", old, "--candidate", old, "--requests", requests, "--ask-again", "0")
    assert done.returncode == 1


def test_recorded_answers_are_a_reference(old: str, tmp_path: Path) -> None:
    store = tmp_path / "calls.sqlite"
    with recording(old, store) as (url, _):
        for each in REQUESTS[:5]:
            ask(url, "POST", str(each["path"]), json.dumps(each["json"]).encode(), {"content-type": "application/json"})
    done = parity("run", "--reference", store, "--candidate", folder(tmp_path / "sums"))
    assert done.returncode == 0, done.stdout + done.stderr
    kept = parity("run", "--reference", store, "--candidate", old, "--store", store)
    assert kept.returncode == 0, kept.stdout + kept.stderr
    shown = parity("show", store, "--call", "3")
    assert "recorded answer" in shown.stdout
    assert "run 1, round 1: same" in shown.stdout


def test_a_server_that_does_not_answer_in_time_is_one_difference_and_not_the_end(old: str, tmp_path: Path) -> None:
    answer = {"json": {"sum": 1, "mean": 0.3}}
    calls: list[dict[str, Any]] = [
        {"path": "/slow", "json": [], "answer": answer},
        {"path": "/sum", "json": [1], "answer": answer},
    ]
    recorded = write_requests(tmp_path / "a.jsonl", calls)
    done = parity("run", "--reference", recorded, "--candidate", old, "--timeout", "1", "--json", "-")
    assert done.returncode == 1, done.stdout + done.stderr
    figures = json.loads(done.stdout)
    assert figures["verdicts"] == {"different": 1, "same": 1}
    assert figures["differences"][0]["kind"] == "no answer"
    assert "within 1 s" in figures["differences"][0]["candidate"]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


ASK = "--requests {requests}"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (f"--reference {{old}} --candidate http://127.0.0.1:{{free}} {ASK}", 3, "no connection"),
        (f"--reference http://127.0.0.1:{{free}} --candidate {{old}} {ASK}", 3, "no connection"),
        (f"--reference {{old}} --candidate /nowhere {ASK}", 3, "no such folder"),
        (f"--reference {{old}} --candidate {{broken}} {ASK}", 3, "its server said"),
        ("--reference {old} --candidate {old}", 2, "--requests is missing"),
        ("--reference {old} --candidate {old} --requests /nowhere", 3, "no such file"),
        ("--reference {requests} --candidate {old}", 3, "no request in it has an answer"),
        (f"--reference {{old}} --candidate {{old}} {ASK} --tolerance x", 2, "no number"),
        (f"--reference {{old}} --candidate {{old}} {ASK} --candidate-python x", 3, "is none"),
        (f"--reference ftp://x --candidate {{old}} {ASK}", 3, "--reference"),
    ],
)
def test_what_cannot_be_compared_ends_with_a_code_of_its_own(
    old: str, tmp_path: Path, words: str, code: int, told: str
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "custom.py").write_text("def load_model(code_dir):\n    raise RuntimeError('no such weights')\n")
    requests = write_requests(tmp_path / "r.jsonl", REQUESTS * 50)
    places = {"old": old, "free": free_port(), "requests": requests, "broken": broken}
    done = parity("run", *words.format(**places).split())
    assert (done.returncode, told in done.stderr) == (code, True), done.stdout + done.stderr
    assert "backline/parity" not in done.stderr  # no traceback of ours; that of the model is what is wanted


def test_hostile_answers_stay_text_in_every_report(old: str, tmp_path: Path) -> None:
    answer = {"json": {"text": "plain", "other\x1b[31m": 1}}
    recorded = write_requests(tmp_path / "a.jsonl", [{"path": "/hostile", "json": [], "answer": answer}])
    done = parity(
        "run", "--reference", recorded, "--candidate", old, "--html", tmp_path / "r.html",
        "--junit", tmp_path / "r.xml", "--json", tmp_path / "r.json",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    page = (tmp_path / "r.html").read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page
    differences = json.loads((tmp_path / "r.json").read_text())["differences"]
    assert HOSTILE in {each["candidate"] for each in differences}
    ET.parse(tmp_path / "r.xml")
    assert "\x1b" not in done.stdout
