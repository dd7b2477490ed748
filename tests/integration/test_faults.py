"""The server outlives its models: whatever a request does to its worker, the others get right answers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.environments import environment
from tests.integration.load import Load, post, request, running_load, wait_until
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

CLIENTS = 32
MODEL = """
import ctypes, os, signal, sys
import numpy as np
import pandas as pd


def segfault():
    ctypes.string_at(0)


def exit_at_once():
    os._exit(0)


def kill_itself():
    os.kill(os.getpid(), signal.SIGKILL)


def loop_for_ever():
    while True:
        pass


def allocate():
    return np.ones(2 << 30, dtype=np.uint8).sum()


def print_a_lot():
    for number in range(1_000_000):
        print("line", number)


def close_stdout():
    sys.stdout.close()
    sys.stderr.close()


def nothing():
    pass


def load_model(code_dir):
    return "loaded"


def score(data, model, **kwargs):
    globals()[str(data["action"].iloc[0])]()
    return pd.DataFrame({"Predictions": data["x"] * 2.0 + 1.0})
"""


def write_model(folder: Path, code: str = MODEL) -> Path:
    folder.mkdir()
    (folder / "custom.py").write_text(code)
    (folder / "model-metadata.yaml").write_text("name: faults\ntype: inference\ntargetType: regression\n")
    return folder


def row(number: int) -> bytes:
    return b"x,action\n%d,nothing\n" % number


def is_right(number: int, answer: Any) -> bool:
    return bool(answer == {"predictions": [number * 2.0 + 1.0]})


def load_on(server: Server, **options: Any) -> Any:
    return running_load(f"{server.url}/predict/", CLIENTS, row, is_right, **options)


def worker_pids(server: Server) -> set[int]:
    stats = request("GET", f"{server.url}/stats/").json()
    return {worker["pid"] for worker in stats["workers"] if worker["state"] in ("ready", "busy")}


def assert_all_right(load: Load) -> None:
    assert load.wrong == []
    assert load.right > CLIENTS


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("sklearn")


@pytest.fixture
def server(serve: ServeFixture, tmp_path: Path, python: Path) -> Server:
    folder = write_model(tmp_path / "model")
    server = serve(folder, "--workers", "2", "--python", str(python), "--memory-limit", "1GiB")
    wait_until(lambda: len(worker_pids(server)) == 2, "both workers are there")
    return server


@pytest.mark.parametrize(
    ("action", "status", "code", "workers_lost"),
    [
        ("segfault", 500, "worker_died", 2),
        ("exit_at_once", 500, "worker_died", 2),
        ("kill_itself", 500, "worker_died", 2),
        ("loop_for_ever", 504, "deadline_exceeded", 1),
        ("allocate", 500, "out_of_memory", 1),
        ("print_a_lot", 200, None, 0),
        ("close_stdout", 200, None, 0),
    ],
)
def test_an_offending_request_gets_one_clear_error_and_nobody_else_notices(
    server: Server, action: str, status: int, code: str | None, workers_lost: int
) -> None:
    before = worker_pids(server)
    with load_on(server) as load:
        load.wait_for(CLIENTS)
        offender = post(
            f"{server.url}/predict/",
            f"x,action\n1,{action}\n".encode(),
            headers={"Content-Type": "text/csv", "X-Request-Timeout": "2" if action == "loop_for_ever" else "60"},
        )
        load.wait_for(CLIENTS)
        wait_until(
            lambda: len(worker_pids(server)) == 2 and len(worker_pids(server) - before) >= workers_lost,
            f"{workers_lost} workers replaced",
        )
        load.wait_for(CLIENTS)
    assert_all_right(load)
    assert offender.status == status, offender.body
    assert offender.headers["content-type"] == "application/json"
    if code is not None:
        assert offender.json()["code"] == code
        assert offender.json()["message"].startswith("ERROR: ")
    assert request("GET", f"{server.url}/readyz").status == 200
    assert len(worker_pids(server) - before) == workers_lost


def test_a_worker_killed_from_outside_costs_nobody_an_answer(server: Server) -> None:
    before = worker_pids(server)
    with load_on(server) as load:
        for pid in sorted(before):
            load.wait_for(CLIENTS)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: len(worker_pids(server)) == 2, "two workers are back")
        load.wait_for(CLIENTS)
    assert_all_right(load)
    assert not worker_pids(server) & before


def test_a_request_that_killed_two_workers_is_refused_for_a_while(server: Server) -> None:
    body = b"x,action\n7,segfault\n"
    first = post(f"{server.url}/predict/", body, headers={"Content-Type": "text/csv"})
    wait_until(lambda: len(worker_pids(server)) == 2, "two workers are back")
    pids = worker_pids(server)
    again = post(f"{server.url}/predict/", body, headers={"Content-Type": "text/csv"})
    other = post(f"{server.url}/predict/", row(7), headers={"Content-Type": "text/csv"})
    assert (first.status, first.json()["code"]) == (500, "worker_died")
    assert (again.status, again.json()["code"]) == (422, "poison_request")
    assert int(again.headers["retry-after"]) > 0
    assert other.json() == {"predictions": [15.0]}
    assert worker_pids(server) == pids


def test_printed_lines_carry_the_request_id_and_a_flood_is_dropped_not_logged(server: Server) -> None:
    headers = {"Content-Type": "text/csv", "X-Request-ID": "flood-1"}
    assert post(f"{server.url}/predict/", b"x,action\n1,print_a_lot\n", headers=headers).status == 200
    wait_until(lambda: "lines of output dropped" in server.log(), "the log says what was dropped")
    log = server.log()
    assert "[flood-1] line 0\n" in log
    assert log.count("[flood-1] line ") < 100_000


DIES_WHILE_LOADING = (
    """
import os
from pathlib import Path

deaths = Path(__file__).with_name("deaths")
if deaths.exists() and int(deaths.read_text()):
    deaths.write_text(str(int(deaths.read_text()) - 1))
    os.abort()
"""
    + MODEL
)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_that_dies_while_loading_is_started_again_while_the_others_are_answered(
    serve: ServeFixture, tmp_path: Path, python: Path, workers: int
) -> None:
    """With one worker the requests wait in the queue for as long as there is none."""
    folder = write_model(tmp_path / "model", DIES_WHILE_LOADING)
    server = serve(folder, "--workers", str(workers), "--python", str(python), "--restart-backoff", "0.1")
    with load_on(server) as load:
        load.wait_for(CLIENTS)
        (folder / "deaths").write_text("2")
        killed = min(worker_pids(server))
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: (folder / "deaths").read_text() == "0", "two workers died while loading")
        wait_until(lambda: len(worker_pids(server) - {killed}) == workers, "all workers are back")
        load.wait_for(CLIENTS)
    assert_all_right(load)


def test_workers_that_always_die_while_loading_fail_the_model_and_the_server_says_why(
    serve: ServeFixture, tmp_path: Path, python: Path
) -> None:
    code = "import os, sys\nprint('about to die', file=sys.stderr)\nos.abort()\n"
    folder = write_model(tmp_path / "model", code)
    server = serve(
        folder,
        "--python",
        str(python),
        "--with-error-server",
        "--max-restarts",
        "2",
        "--restart-backoff",
        "0.05",
        ready=513,
    )
    answer = post(f"{server.url}/predict/", row(1), headers={"Content-Type": "text/csv"})
    assert answer.status == 513
    assert "SIGABRT" in answer.json()["message"]
    assert "about to die" in answer.json()["message"]
    assert request("GET", f"{server.url}/livez").status == 200
    assert request("GET", f"{server.url}/health/").status == 513


def test_a_deadline_frees_the_worker_for_the_next_request(serve: ServeFixture, tmp_path: Path, python: Path) -> None:
    server = serve(write_model(tmp_path / "model"), "--python", str(python), "--timeout", "1")
    started = time.monotonic()
    late = post(f"{server.url}/predict/", b"x,action\n1,loop_for_ever\n", headers={"Content-Type": "text/csv"})
    assert late.status == 504
    assert time.monotonic() - started < 1 + 5
    answer = post(
        f"{server.url}/predict/", row(2), headers={"Content-Type": "text/csv"}
    )  # waits for the replacement; its own second may pass first
    assert answer.status in (200, 504)
    wait_until(
        lambda: post(f"{server.url}/predict/", row(3), headers={"Content-Type": "text/csv"}).status == 200,
        "the replacement answers",
    )


def test_no_process_and_no_file_is_left_when_the_server_is_killed(
    serve: ServeFixture, tmp_path: Path, python: Path
) -> None:
    server = serve(write_model(tmp_path / "model"), "--workers", "2", "--python", str(python))
    wait_until(lambda: len(worker_pids(server)) == 2, "both workers are there")
    pids = worker_pids(server)
    server.process.kill()
    server.process.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the workers end with the server")
