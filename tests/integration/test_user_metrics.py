"""What the model's own code counts is on ``/metrics``, exactly, whatever becomes of its workers."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import post, request, running_load
from tests.integration.scrape import scrape
from tests.integration.test_metrics import wait_until
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

MODEL = """
import os
import sys

sys.path.append(os.environ["SITE"])  # where prometheus_client is

import prometheus_client
from backline_worker import metrics

CHECKS = metrics.Counter("fraud_checks", "Checks by outcome.", labels=["parity"])
LOADS = metrics.Counter("model_loads", "Copies of the model that were loaded.")
PID = metrics.Gauge("model_pid")
SIZE = metrics.Histogram("number_size", "Digits.", buckets=[1, 2, 3])
PLAIN = prometheus_client.Counter("plain_checks", "The same with prometheus_client.")
LAST = prometheus_client.Gauge("plain_last", "The last number.")


def load_model(code_dir):
    LOADS.inc()
    PID.set(os.getpid())
    return None


def score_unstructured(model, data, query, **kwargs):
    CHECKS.inc(parity="odd" if int(data) % 2 else "even")
    SIZE.observe(len(data))
    PLAIN.inc()
    LAST.set(int(data))
    if data == "13":
        raise ValueError("unlucky")
    return data
"""
PATH = "/predictUnstructured"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "custom.py").write_text(MODEL)
    (tmp_path / "model-metadata.yaml").write_text("name: counts\ntype: inference\ntargetType: unstructured\n")
    return tmp_path


@pytest.fixture
def env() -> dict[str, str]:
    import prometheus_client

    return {"SITE": str(Path(prometheus_client.__file__).parents[1])}


def workers(server: Server) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = request("GET", f"{server.url}/stats/").json()["workers"]
    return [worker for worker in found if worker["state"] in ("ready", "busy")]


def ask(server: Server, number: int) -> int:
    return post(f"{server.url}{PATH}", b"%d" % number, headers={"Content-Type": "text/plain"}).status


def test_what_both_libraries_count_is_there_at_once(serve: ServeFixture, folder: Path, env: dict[str, str]) -> None:
    server = serve(folder, env=env)
    assert scrape(server).value("model_loads_total") == 1  # before the first request
    assert [ask(server, number) for number in (1, 2, 13, 400)] == [200, 200, 500, 200]
    page = scrape(server)
    assert page.value("fraud_checks_total", parity="odd") == page.value("fraud_checks_total", parity="even") == 2
    assert page.value("number_size_bucket", le="1.0") == 2
    assert page.value("number_size_count") == page.value("plain_checks_total") == 4
    assert page.value("plain_last", worker="1") == 400
    assert page.value("model_pid", worker="1") == workers(server)[0]["pid"]
    assert not [name for name in page.names if name.endswith("_created")]
    assert page.value("backline_user_metrics_dropped_total") == 0


def test_counts_of_answered_requests_survive_kills(serve: ServeFixture, folder: Path, env: dict[str, str]) -> None:
    server = serve(folder, "--workers", "2", env=env)
    seen = 0.0
    with running_load(
        f"{server.url}{PATH}", 4, lambda number: b"%d" % (100 + number), lambda n, a: a == 100 + n
    ) as load:
        for _ in range(3):
            wait_until(lambda: len(workers(server)) == 2, "both workers are there")
            os.kill(workers(server)[0]["pid"], signal.SIGKILL)
            load.wait_for(50)
            now = scrape(server).value("fraud_checks_total")
            assert now > seen
            seen = now
    assert load.wrong == []
    wait_until(lambda: len(workers(server)) == 2, "both workers are there")
    page = scrape(server)
    assert page.value("fraud_checks_total") == page.value("number_size_count") == load.right
    assert page.value("model_loads_total") == 5
    assert {sample.labels["worker"] for sample in page.find("model_pid")} == {"1", "2"}
    assert {sample.value for sample in page.find("model_pid")} == {worker["pid"] for worker in workers(server)}


RETIRES = """
import os
import threading
import time

from backline_worker import metrics

HERE = os.path.dirname(os.path.abspath(__file__))
CALLS = metrics.Counter("calls")
SIZE = metrics.Gauge("size")


def load_model(code_dir):
    SIZE.set(1)
    while os.path.exists(HERE + "/full") and not os.path.exists(HERE + "/counted"):
        time.sleep(0.005)
    return None


def score_unstructured(model, data, query, **kwargs):
    CALLS.inc()
    if data == "full":
        open(HERE + "/full", "w").close()
        threading.Thread(target=count_on).start()
        raise MemoryError
    return data


def count_on():
    time.sleep(0.2)  # until the answer is out, and nothing is asked any more
    for _ in range(1000):
        CALLS.inc()
    SIZE.set(2)
    open(HERE + "/counted", "w").close()
"""


def test_a_worker_that_is_retired_takes_nothing_with_it(serve: ServeFixture, tmp_path: Path) -> None:
    (tmp_path / "custom.py").write_text(RETIRES)
    (tmp_path / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    server = serve(tmp_path)
    before = workers(server)[0]["pid"]
    assert post(f"{server.url}{PATH}", b"full", headers={"Content-Type": "text/plain"}).status == 500
    wait_until(lambda: [worker["pid"] for worker in workers(server)] not in ([], [before]), "it is replaced")
    wait_until(lambda: not Path(f"/proc/{before}").exists(), "it is gone")
    page = scrape(server)
    assert page.value("backline_worker_restarts_total", cause="memory_limit") == 1
    assert page.value("calls_total") == 1001
    assert [sample.value for sample in page.find("size")] == [1]  # that of the worker that serves
