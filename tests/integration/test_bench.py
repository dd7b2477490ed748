"""``backline bench`` on a served folder and on an address: figures that add up, a page, a comparison, exit codes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.serving import ServeFixture

pytestmark = pytest.mark.slow

CUSTOM = """
import time

def score_unstructured(model, data, query, **kwargs):
    time.sleep(0.002)
    return data.upper()
"""
TABLE = """
import pandas as pd

def load_model(code_dir):
    return None

def score(data, model, **kwargs):
    return pd.DataFrame({"Predictions": data["a"] * 2.0})
"""
FAST = ("--duration", "0.4", "--warm-up", "0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("words")
    (made / "custom.py").write_text(CUSTOM)
    (made / "model-metadata.yaml").write_text("name: upper\ntype: inference\ntargetType: unstructured\n")
    (made / "sample.txt").write_text("some words")
    return made


def run(target: object, *flags: str, command: str = "bench") -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "backline", command, str(target), *flags]
    return subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)


def text_of(folder: Path) -> tuple[str, ...]:
    return ("-i", str(folder / "sample.txt"), "--path", "/predictUnstructured/", "--rows", "0")


def test_a_folder_is_served_for_the_run_and_the_figures_add_up(folder: Path, tmp_path: Path) -> None:
    done = run(
        folder, *text_of(folder), *FAST, "--clients", "1,4", "--rate", "50", "--json", str(tmp_path / "r.json"),
        "--html", str(tmp_path / "r.html"), "--workers", "2",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    result: dict[str, Any] = json.loads((tmp_path / "r.json").read_text())
    assert [(step["kind"], step["amount"]) for step in result["steps"]] == [
        ("closed", 1),
        ("closed", 4),
        ("open", 50.0),
    ]
    one, four, at_rate = result["steps"]
    for step in (one, four):
        assert step["good"] > 0
        assert step["bad"] == 0
        # Little's law: clients are what waits for an answer, or for its turn.
        assert step["rate"] * step["mean"] == pytest.approx(step["amount"], rel=0.35)
    assert one["quantiles"]["0.5"][0] > 0.002
    assert at_rate["good"] == 20
    assert result["memory"][0][1] > 1 << 20
    assert result["memory"][0][2] > 1 << 20
    assert re.search(r"^4 clients +[0-9,.]+ ", done.stdout, re.MULTILINE)
    page = (tmp_path / "r.html").read_text()
    assert "<svg" in page and "4 clients" in page and "<script" not in page
    again = run(folder, *text_of(folder), *FAST, "--clients", "1", "--compare", str(tmp_path / "r.json"))
    assert again.returncode == 0
    assert re.search(r"1 client +p50 +[-+][0-9.]+ %", again.stdout)


def test_the_clients_are_doubled_to_the_knee_and_the_rest_is_put_on_at_a_rate(
    serve: ServeFixture, folder: Path, tmp_path: Path
) -> None:
    slow = tmp_path / "slow"
    shutil.copytree(folder, slow)
    # So much that what a busy machine adds to a call is little.
    (slow / "custom.py").write_text(CUSTOM.replace("0.002", "0.03"))
    server = serve(slow)
    done = run(
        server.url,
        *text_of(folder),
        "--duration",
        "1",
        "--warm-up",
        "0.1",
        "--json",
        str(tmp_path / "r.json"),
        command="perf-test",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    # One worker that sleeps 30 ms in each call: more than two clients only wait.
    assert result["knee"] <= 4
    rates = [step["rate"] for step in result["steps"]]
    assert max(rates) < 40
    opened = [step for step in result["steps"] if step["kind"] == "open"]
    assert [round(step["amount"] / max(rates[: -len(opened)]), 2) for step in opened] == [0.5, 0.8]
    assert "more of them only wait" in done.stdout


def test_bodies_of_growing_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    from backline.bench import run as bench_run

    (tmp_path / "custom.py").write_text(TABLE)
    (tmp_path / "model-metadata.yaml").write_text("name: double\ntype: inference\ntargetType: regression\n")
    (tmp_path / "sample.csv").write_text("a\n1\n2\n")
    monkeypatch.setattr(bench_run, "_SIZES", ((0, 5), (100_000, 3)))
    job = bench_run.BenchJob(input=tmp_path / "sample.csv", folder=tmp_path, sizes=True)
    result = asyncio.run(bench_run.measure(job, lambda text: None, lambda step: None))
    assert [(step.name, step.good, step.bad) for step in result.steps] == [("1 row", 5, 0), ("0.1 MB", 3, 0)]
    assert result.steps[1].mean > result.steps[0].mean


def test_answers_that_are_none_are_failures(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    done = run(server.url, "-i", str(folder / "sample.txt"), "--rows", "0", *FAST, "--clients", "1")
    assert done.returncode == 1
    assert re.search(r"not good: [0-9,]+ x 404", done.stdout)


@pytest.mark.parametrize(
    ("target", "flags", "message"),
    [
        ("http://127.0.0.1:9", ("-i", __file__, "--rows", "0"), "cannot be connected to"),
        ("http://127.0.0.1:9", ("-i", "none.csv"), "there is no such file"),
        ("nowhere", ("-i", __file__, "--rows", "0"), "there is no directory"),
        ("http://127.0.0.1:9", ("-i", __file__, "--clients", "many"), "is no list of numbers"),
        ("http://127.0.0.1:9", ("-i", __file__, "--header", "nothing"), "expected 'Name: value'"),
        ("http://127.0.0.1:9", ("-i", __file__, "--sizes", "--rate", "1"), "--sizes is a load of its own"),
    ],
)
def test_what_cannot_be_measured_is_told(target: str, flags: tuple[str, ...], message: str) -> None:
    done = run(target, *flags)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


AUTH = """
class Auth:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http" and dict(scope["headers"]).get(b"x-mine") != b"yes":
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body"})
        else:
            await self.app(scope, receive, send)

def init_app(app):
    app.add_middleware(Auth)
"""


def test_a_folder_with_keys_and_tls_is_measured_with_the_headers_and_without_tls(folder: Path, tmp_path: Path) -> None:
    guarded = tmp_path / "guarded"
    shutil.copytree(folder, guarded)
    (guarded / "custom_fastapi.py").write_text(AUTH)
    (guarded / "keys").write_text("someone 0123456789abcdef0123\n")
    (guarded / "tls.pem").write_text("for another name, and not to be read here")
    (guarded / "backline.toml").write_text('[security]\napi_keys_file = "keys"\ntls_cert = "tls.pem"\n')
    refused = run(guarded, *text_of(guarded), *FAST, "--clients", "1")
    assert refused.returncode != 0
    assert "401: its requests need a header" in refused.stderr
    headers = ("--header", "X-API-Key: 0123456789abcdef0123", "--header", "X-Mine: yes")
    done = run(guarded, *text_of(guarded), *FAST, "--clients", "1", *headers, "--json", str(tmp_path / "r.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    (step,) = json.loads((tmp_path / "r.json").read_text())["steps"]
    assert set(step["statuses"]) == {"200"}
