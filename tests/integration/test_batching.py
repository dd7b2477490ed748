"""Requests that share a call of the model: each is answered as if it had been alone."""

from __future__ import annotations

import concurrent.futures
import http.client
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.environments import environment
from tests.integration.load import Answer, post, request, running_load
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

CLIENTS = 32
# Trees answer a row the same in any company, to the last bit; whole numbers and missing values make the types that a
# row has by itself uneven.
TRAIN = """
import io, json, pickle, sys
from pathlib import Path
import numpy as np, pandas as pd
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

folder = Path(sys.argv[1])
random = np.random.default_rng(0)
rows = 400
frame = pd.DataFrame({
    "x": random.normal(size=rows).round(3),
    "whole": random.integers(0, 9, rows),
    "kind": random.choice(["alpha", "beta", "gamma"], rows),
})
frame.loc[::7, "whole"] = np.nan
frame["whole"] = frame["whole"].map(lambda v: "" if v != v else "%d" % v)
bodies = [frame.iloc[[i]].to_csv(index=False) for i in range(rows)]
data = pd.concat([pd.read_csv(io.StringIO(body)) for body in bodies], ignore_index=True)
encode = ColumnTransformer(
    [("kind", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["kind"])], remainder="passthrough"
)
model = make_pipeline(encode, HistGradientBoostingRegressor(max_iter=20, random_state=0))
model.fit(data, data["x"].fillna(0) + data["whole"].fillna(-1))
(folder / "model.pkl").write_bytes(pickle.dumps(model))
(folder / "model-metadata.yaml").write_text("name: batch\\ntype: inference\\ntargetType: regression\\n")
expected = [float(model.predict(pd.read_csv(io.StringIO(body)))[0]) for body in bodies]
(folder / "expected.json").write_text(json.dumps({"bodies": bodies, "expected": expected}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "model"
    folder.mkdir()
    subprocess.run([environment("sklearn"), "-c", TRAIN, folder], check=True)
    return folder


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[tuple[bytes, float]]:
    saved = json.loads((folder / "expected.json").read_text())
    return [(body.encode(), value) for body, value in zip(saved["bodies"], saved["expected"], strict=True)]


@pytest.fixture
def server(serve: ServeFixture, folder: Path) -> Server:
    return serve(folder, "--python", str(environment("sklearn")))


def counts(server: Server) -> tuple[int, int]:
    workers = request("GET", f"{server.url}/stats/").json()["workers"]
    return sum(worker["answered"] for worker in workers), sum(worker["model_calls"] for worker in workers)


def load_on(server: Server, rows: list[tuple[bytes, float]]) -> Any:
    def is_right(number: int, answer: Any) -> bool:
        return bool(answer == {"predictions": [rows[number % len(rows)][1]]})

    return running_load(f"{server.url}/predict/", CLIENTS, lambda number: rows[number % len(rows)][0], is_right)


def test_under_load_answers_are_shared_and_each_is_what_the_library_says_of_the_row_alone(
    server: Server, rows: list[tuple[bytes, float]]
) -> None:
    with load_on(server, rows) as load:
        load.wait_for(20 * CLIENTS)
    assert load.wrong == []
    answered, calls = counts(server)
    assert calls < answered / 2


def test_batch_off_gives_every_request_a_call_of_its_own(
    serve: ServeFixture, folder: Path, rows: list[tuple[bytes, float]]
) -> None:
    server = serve(folder, "--python", str(environment("sklearn")), "--batch", "off")
    with load_on(server, rows) as load:
        load.wait_for(2 * CLIENTS)
    assert load.wrong == []
    answered, calls = counts(server)
    assert calls == answered


def test_a_bad_request_in_a_batch_gets_its_own_error_and_the_others_their_answers(
    server: Server, rows: list[tuple[bytes, float]]
) -> None:
    bad = {b"x,whole,kind\n1,2\n": "decode_failed", b"x,kind\n1,alpha\n": "schema_mismatch", b"": "empty_body"}
    with load_on(server, rows) as load:
        load.wait_for(CLIENTS)
        for body, code in list(bad.items()) * 5:
            answer = post(f"{server.url}/predict/", body, headers={"Content-Type": "text/csv", "X-Request-ID": code})
            assert (answer.status, answer.json()["code"]) == (422, code)
            assert answer.headers["x-request-id"] == code
        load.wait_for(CLIENTS)
    assert load.wrong == []


def test_different_answer_formats_and_headers_are_not_mixed_up(server: Server, rows: list[tuple[bytes, float]]) -> None:
    def ask(number: int) -> tuple[int, Answer]:
        accept = ["application/json", "text/csv"][number % 2]
        headers = {"Content-Type": "text/csv", "Accept": accept, "X-Request-ID": f"number-{number}"}
        return number, post(f"{server.url}/predict/", rows[number][0], headers=headers)

    with concurrent.futures.ThreadPoolExecutor(CLIENTS) as pool:
        for number, answer in pool.map(ask, range(200)):
            assert answer.headers["x-request-id"] == f"number-{number}"
            if number % 2:
                assert answer.headers["content-type"] == "text/csv"
                assert float(answer.body.split()[1]) == rows[number][1]
            else:
                assert answer.json() == {"predictions": [rows[number][1]]}


def test_a_worker_killed_with_a_batch_in_hand_costs_nobody_an_answer(
    server: Server, rows: list[tuple[bytes, float]]
) -> None:
    with load_on(server, rows) as load:
        for _ in range(2):
            load.wait_for(5 * CLIENTS)
            pid = next(iter(pids(server)))
            os.kill(pid, signal.SIGKILL)
        load.wait_for(5 * CLIENTS)
    assert load.wrong == []


def pids(server: Server) -> Iterator[int]:
    while True:
        for worker in request("GET", f"{server.url}/stats/").json()["workers"]:
            if worker["state"] in ("ready", "busy"):
                yield worker["pid"]


HOOK = """
import os
import pandas as pd


def load_model(code_dir):
    return None


def score(data, model, **kwargs):
    if (data["x"] == 666).any():
        os._exit(1)
    if (data["x"] == 13).any():
        raise ValueError("thirteen")
    return pd.DataFrame({"Predictions": data["x"] * 2.0})
"""


def test_a_request_that_kills_the_worker_of_its_batch_is_found_out_by_trying_each_alone(
    serve: ServeFixture, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "custom.py").write_text(HOOK)
    (folder / "model-metadata.yaml").write_text("name: hook\ntype: inference\ntargetType: regression\n")
    server = serve(folder, "--python", str(environment("sklearn")), "--batch", "on", "--batch-delay", "0.05")

    def make(number: int) -> bytes:
        return b"x,y\n%d.5,a\n" % number

    def is_right(number: int, answer: Any) -> bool:
        return bool(answer == {"predictions": [number * 2.0 + 1.0]})

    with running_load(f"{server.url}/predict/", CLIENTS, make, is_right) as load:
        load.wait_for(CLIENTS)
        for value, status in ((13, 500), (666, 500)):
            answer = post(f"{server.url}/predict/", b"x,y\n%d,a\n" % value, headers={"Content-Type": "text/csv"})
            assert answer.status == status
        load.wait_for(CLIENTS)
    assert load.wrong == []
    answered, calls = counts(server)
    assert calls < answered


# Notes the rows of each call; a negative row is a fault.
NOTING = """
import os
import pandas as pd

def load_model(code_dir):
    return os.path.join(code_dir, "calls.txt")

def score(data, model):
    with open(model, "a") as file:
        file.write(" ".join(map(str, sorted(data["x"]))) + "\\n")
    if (data["x"] < 0).any():
        raise ValueError("a negative row")
    return pd.DataFrame({"Predictions": data["x"] * 2.0})
"""


def test_a_client_that_sent_a_fault_shares_no_call_until_it_sends_something_sound(
    serve: ServeFixture, tmp_path: Path
) -> None:
    folder = tmp_path / "noting"
    folder.mkdir()
    (folder / "custom.py").write_text(NOTING)
    (folder / "model-metadata.yaml").write_text("name: noting\ntype: inference\ntargetType: regression\n")
    server = serve(folder, "--python", str(environment("sklearn")), "--batch", "on", "--batch-delay", "1s")
    host, port = server.url.removeprefix("http://").split(":")
    clients = [http.client.HTTPConnection(host, int(port), timeout=30) for _ in range(3)]

    def send(client: http.client.HTTPConnection, value: int) -> int:
        client.request("POST", "/predict/", f"x,y\n{value},0\n", {"Content-Type": "text/csv"})
        answer = client.getresponse()
        answer.read()
        return answer.status

    def at_once(*values: int) -> list[int]:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            return list(pool.map(send, clients, values))

    def calls() -> list[str]:
        lines = (folder / "calls.txt").read_text().splitlines()
        (folder / "calls.txt").unlink()
        return sorted(lines)

    try:
        assert send(clients[0], -1) == 500
        calls()
        assert at_once(-2, 3, 4) == [500, 200, 200]
        assert calls() == ["-2", "3 4"]
        assert at_once(5, 6, 7) == [200, 200, 200]
        assert calls() == ["5", "6 7"]  # sound again, from the next request on
        assert at_once(8, 9, 10) == [200, 200, 200]
        assert calls() == ["8 9 10"]
    finally:
        for client in clients:
            client.close()
