"""``/metrics`` of a running server says what its clients have seen."""

from __future__ import annotations

import os
import signal
import socket
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.load import post, request, running_load
from tests.integration.scrape import Page, scrape, scrape_openmetrics
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

MODEL = """
import os
import time


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    if data == "die":
        os._exit(3)
    if data == "slow":
        time.sleep(30)
    if data == "wrong":
        raise ValueError("wrong")
    return data
"""
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TEXT = {"Content-Type": "text/plain"}
PATH = "/predictUnstructured"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "custom.py").write_text(MODEL)
    (tmp_path / "model-metadata.yaml").write_text("name: echo\ntype: inference\ntargetType: unstructured\n")
    return tmp_path


def ask(server: Server, body: bytes, **headers: str) -> int:
    return post(f"{server.url}{PATH}/", body, headers=TEXT | headers).status


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
        time.sleep(0.02)


def requests_of(page: Page, route: str, status: int, method: str = "POST") -> float:
    return page.value("backline_requests_total", model="echo", route=route, method=method, status=str(status))


def test_counts_are_what_clients_have_seen(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--queue", "1", "--timeout-grace", "0.05")
    assert [ask(server, b"hello") for _ in range(5)] == [200] * 5
    assert ask(server, b"wrong") == 500
    assert ask(server, b"slow", **{"X-Request-Timeout": "0.2"}) == 504
    wait_until(lambda: scrape(server).value("backline_worker_load_seconds_count") == 2, "the worker is replaced")
    assert ask(server, b"x", **{"X-Request-Timeout": "soon"}) == 400
    assert request("GET", f"{server.url}/secret/path").status == 404
    assert request("BREW", f"{server.url}{PATH}").status == 400  # not HTTP: uvicorn answers by itself
    assert request("LINK", f"{server.url}{PATH}").status == 405
    page = scrape(server)
    assert requests_of(page, PATH, 200) == 5
    assert requests_of(page, PATH, 500) == 1
    assert requests_of(page, PATH, 504) == 1
    assert requests_of(page, PATH, 400) == 1
    assert requests_of(page, PATH, 405, "_OTHER") == 1
    assert requests_of(page, "other", 404, "GET") == 1
    assert page.value("backline_requests_total") == 10
    assert page.value("backline_request_seconds_count", route=PATH) == 9
    assert page.value("backline_stage_seconds_count", stage="queue") == 6
    assert page.value("backline_stage_seconds_count", stage="predict") == 5
    assert page.value("backline_batch_requests_sum") == 6
    assert page.value("backline_errors_total", code="hook_failed") == 1
    assert page.value("backline_rejections_total", reason="bad_request") == 1
    assert page.value("backline_deadlines_exceeded_total", where="worker") == 1
    assert page.value("backline_worker_restarts_total", cause="deadline") == 1
    assert page.value("backline_worker_load_seconds_count") == 2
    assert page.value("backline_workers", state="ready") == 1
    assert page.value("backline_model_state", state="ready") == 1
    assert page.value("backline_requests_in_flight") == page.value("backline_queue_requests") == 0
    for name in ("backline_worker_resident_memory_bytes", "backline_worker_proportional_memory_bytes"):
        assert page.value(name, worker="1") > 1_000_000
    assert page.value("backline_worker_cpu_seconds_total", worker="1") > 0
    assert page.value("process_resident_memory_bytes") > 1_000_000
    assert not [name for name in page.names if name.endswith("_created")]


def test_probes_and_scrapes_are_no_requests(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--url-prefix", "/p")
    for path in ("/", "/livez", "/readyz", "/ping", "/stats/", "/metrics", "/v1/metrics"):
        assert request("GET", server.url + path).status == 200
    assert scrape(server).value("backline_requests_total") == 0
    assert request("GET", f"{server.url}/info/").status == 200
    page = scrape(server, "/v1/metrics")
    assert page.value("backline_requests_total", route="/info", method="GET", status="200") == 1


def test_openmetrics_has_the_traces_of_requests_as_exemplars(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder)
    ask(server, b"1", traceparent=f"00-{TRACE_ID}-{SPAN_ID}-01")
    ask(server, b"2", traceparent=f"00-{'1' * 32}-{'2' * 16}-00")  # not sampled: there is nothing to look at
    ask(server, b"3", traceparent="00-" + "g" * 32 + "-" + "3" * 16 + "-01")
    buckets = scrape_openmetrics(server).find("backline_request_seconds_bucket", route=PATH)
    assert max(bucket.value for bucket in buckets) == 3
    (exemplar,) = [bucket.exemplar for bucket in buckets if bucket.exemplar]
    assert exemplar.labels == {"trace_id": TRACE_ID, "span_id": SPAN_ID}


def test_a_client_that_leaves_is_a_cancellation_and_status_499(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--queue", "4", "--cancel-grace", "0.05")
    parts = urllib.parse.urlsplit(server.url)
    clients: list[socket.socket] = []

    def all_there() -> bool:
        return scrape(server).value("backline_requests_in_flight") == len(clients)

    for _ in range(2):
        client = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=10)
        client.sendall(f"POST {PATH} HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nslow".encode())
        clients.append(client)
        wait_until(all_there, "it is there")
    wait_until(lambda: scrape(server).value("backline_queue_requests") == 1, "the second one waits")
    for client in reversed(clients):
        client.close()
    wait_until(lambda: requests_of(scrape(server), PATH, 499) == 2, "both are seen to have left")
    page = scrape(server)
    assert page.value("backline_cancellations_total", where="queue") == 1
    assert page.value("backline_cancellations_total", where="worker") == 1
    assert page.value("backline_requests_in_flight") == 0
    wait_until(lambda: scrape(server).value("backline_worker_restarts_total", cause="client_left") == 1, "it is killed")


def test_totals_stay_exact_while_workers_are_killed(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--workers", "2")

    def pids() -> list[int]:
        workers = request("GET", f"{server.url}/stats/").json()["workers"]
        return [worker["pid"] for worker in workers if worker["state"] in ("ready", "busy")]

    seen = 0.0
    with running_load(f"{server.url}{PATH}", 4, lambda number: b"%d" % number, lambda n, answer: n == answer) as load:
        for _ in range(3):
            wait_until(lambda: len(pids()) == 2, "both workers are there")
            os.kill(pids()[0], signal.SIGKILL)
            load.wait_for(50)
            now = requests_of(scrape(server), PATH, 200)
            assert now > seen  # never back
            seen = now
    assert load.wrong == []
    page = scrape(server)
    assert requests_of(page, PATH, 200) == load.right == page.value("backline_requests_total")
    assert page.value("backline_worker_restarts_total", cause="SIGKILL") == 3
    assert page.value("backline_worker_requests_total") == load.right
