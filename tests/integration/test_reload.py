"""Another model in place of the one that serves: no request fails, and none is answered by half of each."""

from __future__ import annotations

import json
import os
import signal
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import Answer, asking, post, request, wait_until
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

# Says in each answer which code, which weights and which metadata gave it.
MODEL = """
import os
import time

CODE = "{version}"


def load_model(code_dir):
    while os.path.exists(os.path.join(code_dir, "hold-loading")):
        time.sleep(0.01)
    with open(os.path.join(code_dir, "weights")) as weights:
        return weights.read()


def score_unstructured(model, data, query, **kwargs):
    time.sleep(float(query.get("seconds", 0)))
    return " ".join([data, CODE, model, os.environ["VERSION"]])
"""
METADATA = """
name: m
type: inference
targetType: unstructured
runtimeParameterDefinitions:
  - fieldName: VERSION
    type: string
    defaultValue: "{version}"
"""


def write_model(folder: Path, version: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in (("custom.py", MODEL), ("model-metadata.yaml", METADATA), ("weights", "{version}")):
        (folder / f".{name}").write_text(text.replace("{version}", version))
        (folder / f".{name}").rename(folder / name)
    return folder


def point(link: Path, folder: Path) -> None:
    """Switch a link as deployments do, in one step."""
    new = link.with_name("new")
    new.symlink_to(folder)
    new.rename(link)


@pytest.fixture
def link(tmp_path: Path) -> Path:
    """A link to the model A, beside B."""
    for version in "AB":
        write_model(tmp_path / version, version)
    (tmp_path / "current").symlink_to(tmp_path / "A")
    return tmp_path / "current"


def ask(server: Server, text: str = "x", query: str = "") -> Answer:
    url = f"{server.url}/predictUnstructured/{query}"
    return post(url, text.encode(), headers={"Content-Type": "text/plain"})


def answer_of(version: str, text: str = "x") -> bytes:
    return f"{text} {version} {version} {version}".encode()


def info(server: Server) -> Any:
    return request("GET", f"{server.url}/info/").json()


def workers(server: Server) -> list[Any]:
    found: list[Any] = request("GET", f"{server.url}/stats/").json()["workers"]
    return found


def wait_reloaded(server: Server, generation: int) -> None:
    wait_until(
        lambda: info(server)["reload"]["generation"] == generation and not info(server)["reload"]["reloading"],
        f"model {generation} serves",
    )


def clients(server: Server, number: int) -> AbstractContextManager[list[str]]:
    """Ask all the time, each with a text of its own; yields what was wrong."""

    def problem_of(text: str) -> str | None:
        answer = ask(server, text)
        is_right = answer.status == 200 and answer.body in (answer_of("A", text), answer_of("B", text))
        return None if is_right else f"{answer.status} {answer.body!r}"

    return asking(number, problem_of)


@pytest.mark.parametrize("mode", ["rolling", "together"])
def test_a_hangup_loads_the_folder_anew_and_no_request_notices(serve: ServeFixture, link: Path, mode: str) -> None:
    server = serve(link, "--workers", "2", "--reload-mode", mode)
    assert ask(server).body == answer_of("A")
    with clients(server, 4) as wrong:
        for generation, version in enumerate("BABAB", start=2):
            point(link, link.with_name(version))
            server.process.send_signal(signal.SIGHUP)
            wait_reloaded(server, generation)
            assert ask(server).body == answer_of(version)
    assert wrong == []
    assert {worker["generation"] for worker in workers(server) if worker["state"] != "draining"} == {6}
    assert request("GET", f"{server.url}/stats/").json()["restarts"] == 0
    assert info(server)["modelMetadata"]["runtimeParameterDefinitions"][0]["defaultValue"] == "B"


def test_a_model_that_does_not_load_leaves_the_old_one_serving_and_says_why(serve: ServeFixture, link: Path) -> None:
    server = serve(link)
    broken = write_model(link.with_name("broken"), "C")
    (broken / "custom.py").write_text("raise RuntimeError('these weights are of another kind')\n")
    point(link, broken)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: info(server)["reload"]["last"] is not None, "the reload is over")
    told = info(server)["reload"]
    assert "these weights are of another kind" in told["last"]["error"]
    assert told["generation"] == 1
    assert "model 1 goes on serving: " in server.log()
    assert ask(server).body == answer_of("A")
    assert request("GET", f"{server.url}/readyz").status == 200
    # A worker that dies now is replaced by one of the model that serves.
    (worker,) = workers(server)
    os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: {each["pid"] for each in workers(server)} != {worker["pid"]}, "it is replaced")
    assert ask(server).body == answer_of("A")
    # Metadata that cannot be read is no reason to stop, either.
    (broken / "model-metadata.yaml").write_text("targetType: [")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "model-metadata.yaml" in info(server)["reload"]["last"]["error"], "the second is over")
    point(link, link.with_name("B"))
    server.process.send_signal(signal.SIGHUP)
    wait_reloaded(server, 2)
    assert info(server)["reload"]["last"]["error"] is None
    assert ask(server).body == answer_of("B")


def test_reloads_asked_for_at_once_are_one(serve: ServeFixture, link: Path) -> None:
    server = serve(link)
    a, b = link.with_name("A"), link.with_name("B")
    (b / "hold-loading").touch()
    point(link, b)
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(workers(server)) == 2, "the new worker loads")
    for number in range(5):
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda number=number: server.log().count(": SIGHUP") == 2 + number, "it is asked for")  # type: ignore[misc]
    assert ask(server).body == answer_of("A")
    point(link, a)  # after the first has read the folder: it must not be missed
    (b / "hold-loading").unlink()
    wait_reloaded(server, 3)
    assert ask(server).body == answer_of("A")


def test_a_request_that_takes_long_is_answered_by_the_model_that_began_with_it(serve: ServeFixture, link: Path) -> None:
    server = serve(link)
    answers: list[Answer] = []
    late = threading.Thread(target=lambda: answers.append(ask(server, "long", "?seconds=3")))
    late.start()
    wait_until(lambda: workers(server)[0]["state"] == "busy", "it is being worked on")
    point(link, link.with_name("B"))
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: info(server)["reload"]["generation"] == 2, "model 2 serves")
    assert ask(server).body == answer_of("B")
    late.join(30)
    assert [answer.body for answer in answers] == [answer_of("A", "long")]
    wait_until(lambda: len(workers(server)) == 1, "the old worker is gone")


def test_a_server_whose_model_never_loaded_is_mended_by_a_reload(serve: ServeFixture, tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", "A")
    (folder / "model-metadata.yaml").write_text("targetType: [")
    server = serve(folder, "--with-error-server", ready=513)
    write_model(folder, "A")
    (folder / "custom.py").write_text("raise RuntimeError('not yet')\n")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: "not yet" in json.dumps(info(server)["reload"]), "that does not load, either")
    assert request("GET", f"{server.url}/readyz").status == 513
    write_model(folder, "A")
    server.process.send_signal(signal.SIGHUP)
    server.wait_ready()
    assert ask(server).body == answer_of("A")


def test_settings_that_need_a_restart_are_named(serve: ServeFixture, link: Path) -> None:
    server = serve(link)
    (link / "backline.toml").write_text("[workers]\ncount = 3\n[server]\ndrain_delay = '7s'\n")
    server.process.send_signal(signal.SIGHUP)
    wait_reloaded(server, 2)
    assert "server.drain_delay (0 s, now 7 s), workers.count (1, now 3)" in server.log()
