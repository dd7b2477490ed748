"""``--preload``: the model is loaded once, workers are forked from that process, and all else is as without it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.load import Answer, post, request, running_load
from tests.serving import ServeFixture, Server

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux only"),
]

MODEL = """
import atexit
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from backline_worker import metrics

LOADS = metrics.Counter("test_loads")
ANSWERS = metrics.Counter("test_answers")
NOTES = {}
os.register_at_fork(after_in_child=lambda: NOTES.update(forked=NOTES.get("forked", 0) + 1))


def load_model(code_dir):
    with open(Path(code_dir, "loads.txt"), "a") as file:
        file.write("%d\\n" % os.getpid())
    LOADS.inc()
    scratch = tempfile.TemporaryDirectory()
    Path(scratch.name, "weights").write_text("42")
    atexit.register(lambda: Path(code_dir, "ended.txt").open("a").write("x"))
    lines = open(Path(code_dir, "lines.txt"))
    return {"scratch": scratch, "lines": lines, "version": Path(code_dir, "version.txt").read_text()}


def score_unstructured(model, data, query, **kwargs):
    ANSWERS.inc()
    what = query.get("what", "")
    time.sleep(float(query.get("seconds", 0)))
    if what == "line":
        return "%d %s" % (os.getpid(), model["lines"].readline())
    if what == "die":
        os._exit(7)
    if what == "print":
        print("printed", data)
        os.write(2, b"written by C\\n")
    if what == "leave":  # a child that a worker's end makes an orphan
        return str(subprocess.Popen(["sleep", "1000"]).pid)
    return json.dumps({
        "pid": os.getpid(),
        "parent": os.getppid(),
        "data": data[::-1],
        "version": model["version"],
        "weights": Path(model["scratch"].name, "weights").read_text(),
        "forked": NOTES.get("forked", 0),
        "random": __import__("random").random(),
    })
"""
METADATA = "name: m\ntype: inference\ntargetType: unstructured\n"


def write_folder(folder: Path, model: str = MODEL) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "custom.py").write_text(model)
    (folder / "model-metadata.yaml").write_text(METADATA)
    (folder / "lines.txt").write_text("".join(f"{number}\n" for number in range(1, 1001)))
    (folder / "version.txt").write_text("1")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "model")


@pytest.fixture(scope="module")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("preload") / "model")


@pytest.fixture(scope="module")
def server(serve_for_module: ServeFixture, shared_folder: Path) -> Server:
    """A server for tests that leave it as it was: three workers, and one load or more."""
    return serve_for_module(shared_folder, "--preload", "--workers", "3", "--min-ready", "3")


def ask(server: Server, text: str = "abc", query: str = "", timeout: float = 60) -> Answer:
    url = f"{server.url}/predictUnstructured/{query}"
    return post(url, text.encode(), headers={"Content-Type": "text/plain"}, timeout=timeout)


def stats(server: Server) -> Any:
    return request("GET", f"{server.url}/stats/").json()


def pids(server: Server) -> set[int]:
    return {worker["pid"] for worker in stats(server)["workers"] if worker["state"] in ("ready", "busy")}


def zygote(server: Server) -> Any:
    (only,) = stats(server)["preloaded"]
    return only


def loads(folder: Path) -> list[int]:
    return [int(line) for line in (folder / "loads.txt").read_text().split()]


def wait_until(condition: Callable[[], bool], what: str, timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"timed out: {what}"
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    """Whether the process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2][:1] != b"Z"
    except OSError:
        return False


def predicting(server: Server, clients: int = 3) -> Any:
    def make(number: int) -> bytes:
        return f"text-{number}".encode()

    def check(number: int, answer: Any) -> bool:
        return bool(answer["data"] == f"text-{number}"[::-1])

    return running_load(f"{server.url}/predictUnstructured/", clients, make, check)


def kill_and_await_replacement(server: Server, pid: int, workers: int = 3) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in pids(server) and len(pids(server)) == workers, "the worker is replaced")


# --- what forked workers are


def test_the_model_is_loaded_once_and_the_workers_are_the_servers_own_children(
    server: Server, shared_folder: Path
) -> None:
    state = stats(server)
    assert len(state["workers"]) == 3
    assert loads(shared_folder)[-1] == zygote(server)["pid"]
    assert zygote(server)["loads"] == len(loads(shared_folder))
    answer = ask(server).json()
    assert answer["pid"] in pids(server)
    assert answer["parent"] == server.process.pid
    assert answer["forked"] == 1  # what user code has registered for a fork has run, once


def test_workers_do_not_share_the_place_in_an_open_file(server: Server) -> None:
    seen: dict[int, list[int]] = {}
    lock = threading.Lock()

    def client() -> None:
        for _ in range(20):
            pid, line = map(int, ask(server, query="?what=line&seconds=0.01").body.split())
            with lock:
                seen.setdefault(pid, []).append(line)

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) > 1
    for lines in seen.values():
        assert sorted(lines) == list(range(1, len(lines) + 1))


def test_workers_draw_different_numbers(server: Server) -> None:
    answers: dict[int, float] = {}
    while len(answers) < 2:
        threads = [threading.Thread(target=lambda: note(ask(server, query="?seconds=0.05").json())) for _ in range(3)]

        def note(answer: Any) -> None:
            answers.setdefault(answer["pid"], answer["random"])

        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert len(set(answers.values())) == len(answers)


def test_what_a_worker_prints_is_logged_with_its_number(server: Server) -> None:
    assert ask(server, "hello", "?what=print").status == 200
    wait_until(lambda: "printed hello" in server.log() and "written by C" in server.log(), "both lines are logged")


def test_what_is_counted_while_the_model_loads_is_counted_once(server: Server, shared_folder: Path) -> None:
    assert ask(server).status == 200
    page = request("GET", f"{server.url}/metrics").body.decode()
    counted = {line.split()[0]: float(line.split()[1]) for line in page.splitlines() if line.startswith("test_")}
    assert counted["test_loads_total"] == len(loads(shared_folder))
    assert counted["test_answers_total"] >= 1


# --- replacing them


def test_a_killed_worker_is_replaced_without_loading_again_and_no_request_notices(
    server: Server, shared_folder: Path
) -> None:
    before = loads(shared_folder)
    with predicting(server) as load:
        load.wait_for(20)
        for pid in pids(server):
            kill_and_await_replacement(server, pid)
            load.wait_for(20)
    assert load.wrong == []
    assert loads(shared_folder) == before
    assert ask(server).json()["weights"] == "42"  # the temporary folder is the first process's, and still there
    assert not (shared_folder / "ended.txt").exists()


def test_a_worker_that_ends_by_itself_is_replaced_and_told_of_with_its_exit_code(server: Server) -> None:
    assert ask(server, "die", "?what=die").status == 500
    wait_until(lambda: len(pids(server)) == 3, "the dead are replaced")
    assert "exited with code 7" in server.log()


def test_the_death_of_the_process_that_is_forked_costs_no_worker_and_it_is_loaded_anew(
    server: Server, shared_folder: Path
) -> None:
    workers, before = pids(server), loads(shared_folder)
    first = zygote(server)["pid"]
    with predicting(server) as load:
        load.wait_for(20)
        os.kill(first, signal.SIGKILL)
        # It may have been loaded a moment ago: then it is loaded anew when a worker is to be forked.
        kill_and_await_replacement(server, min(workers))
        load.wait_for(20)
    assert load.wrong == []
    assert workers - {min(workers)} <= pids(server)
    assert len(loads(shared_folder)) == len(before) + 1
    assert zygote(server)["pid"] == loads(shared_folder)[-1] != first


def test_a_stopped_process_that_is_forked_from_is_replaced(server: Server) -> None:
    first = zygote(server)["pid"]
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: not is_alive(first), "it is killed")
    kill_and_await_replacement(server, min(pids(server)))
    assert zygote(server)["pid"] not in (first, None)


def test_what_a_killed_worker_leaves_behind_is_buried(server: Server) -> None:
    left = int(ask(server, "leave", "?what=leave").body)
    parent = int(Path(f"/proc/{left}/stat").read_text().rpartition(") ")[2].split()[1])
    kill_and_await_replacement(server, parent)
    wait_until(lambda: not Path(f"/proc/{left}").exists(), "no zombie is left")


# --- with the rest of the server


def test_workers_are_recycled_by_forks(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--preload", "--workers", "2", "--min-ready", "2", "--recycle-requests", "10")
    before = pids(server)
    with predicting(server) as load:
        wait_until(lambda: not before & pids(server), "all are recycled")
        load.wait_for(5)
    assert load.wrong == []
    assert len(loads(folder)) == 1
    assert ask(server).json()["weights"] == "42"
    assert server.stop() == 0
    assert (folder / "ended.txt").read_text() == "x"  # once: by the process that has registered it


def test_a_reload_loads_the_new_model_once_and_one_that_fails_changes_nothing(
    serve: ServeFixture, folder: Path
) -> None:
    server = serve(folder, "--preload", "--workers", "2", "--min-ready", "2")
    old, first = pids(server), zygote(server)["pid"]
    with predicting(server) as load:
        (folder / "version.txt").write_text("2")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(pids(server)) == 2 and not pids(server) & old, "the new model serves")
        wait_until(lambda: not is_alive(first), "the old one is gone")
        assert ask(server).json()["version"] == "2"
        (folder / "custom.py").write_text("def load_model(code_dir):\n    raise ValueError('broken on purpose')\n")
        server.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "broken on purpose" in server.log(), "the reload has failed")
        load.wait_for(10)
    assert load.wrong == []
    assert ask(server).json()["version"] == "2"
    assert len(loads(folder)) == 2
    assert [each["generation"] for each in stats(server)["preloaded"]] == [2]


def test_a_stop_finishes_what_was_accepted_and_leaves_no_process(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--preload", "--workers", "2", "--min-ready", "2")
    processes = {*pids(server), zygote(server)["pid"]}
    answers: list[Answer] = []
    asking = threading.Thread(target=lambda: answers.append(ask(server, query="?seconds=1")))
    asking.start()
    wait_until(lambda: "busy" in {worker["state"] for worker in stats(server)["workers"]}, "one is busy")
    assert server.stop() == 0
    asking.join(60)
    assert [answer.status for answer in answers] == [200]
    assert not any(map(is_alive, processes))


def test_a_stop_while_the_model_loads_leaves_no_process(serve: ServeFixture, folder: Path) -> None:
    (folder / "custom.py").write_text(MODEL.replace("    LOADS.inc()", "    time.sleep(100)"))
    server = serve(folder, "--preload", "--workers", "2", ready=None)
    wait_until((folder / "loads.txt").exists, "it loads")
    assert server.stop() == 0
    assert not any(map(is_alive, loads(folder)))


def test_forked_workers_end_with_a_server_that_is_killed(serve: ServeFixture, folder: Path) -> None:
    server = serve(folder, "--preload", "--workers", "2", "--min-ready", "2")
    processes = {*pids(server), zygote(server)["pid"]}

    def client() -> None:
        with pytest.raises(OSError):
            ask(server, query="?seconds=100")

    asking = threading.Thread(target=client)
    asking.start()
    wait_until(lambda: "busy" in {worker["state"] for worker in stats(server)["workers"]}, "one is busy")
    server.process.kill()
    wait_until(lambda: not any(map(is_alive, processes)), "they are gone, the busy one, too", timeout=10)
    asking.join(60)


@pytest.mark.parametrize("name", ["py38-pydantic1", "py313-numpy2"])
def test_old_and_new_pythons_fork(
    serve: ServeFixture, folder: Path, environment: Callable[[str], Path], name: str
) -> None:
    (folder / "custom.py").write_text("import pandas\n" + MODEL)
    server = serve(folder, "--preload", "--workers", "2", "--min-ready", "2", "--python", str(environment(name)))
    assert ask(server).json()["data"] == "cba"
    kill_and_await_replacement(server, min(pids(server)), workers=2)
    assert ask(server).json()["weights"] == "42"
    assert len(loads(folder)) == 1


# --- what is refused

REFUSED = {
    "a thread of Python": (
        (
            "import threading, time\n"
            "def refresh():\n    time.sleep(1000)\n"
            "def load_model(code_dir):\n"
            "    threading.Thread(target=refresh, name='refresher', daemon=True).start()\n"
        ),
        ["the thread 'refresher'", "custom.refresh", "custom.py:3"],
    ),
    "a process, and the pipe to it": (
        (
            "import subprocess\n"
            "def load_model(code_dir):\n    return subprocess.Popen(['sleep', '1000'], stdin=subprocess.PIPE)\n"
        ),
        ["sleep 1000", "an open pipe"],
    ),
    "an event loop": (
        "import asyncio\nasync def load_model(code_dir):\n    return 1\n",
        ["an event loop"],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_model_that_cannot_be_forked_is_refused_with_the_reason(serve: ServeFixture, folder: Path, what: str) -> None:
    model, words = REFUSED[what]
    (folder / "custom.py").write_text(model + "def score_unstructured(model, data, **kwargs):\n    return data\n")
    server = serve(folder, "--preload", "--workers", "2", "--with-error-server", ready=513)
    message = ask(server).json()["message"]
    assert "--preload is not possible with this model" in message
    for each in words:
        assert each in message


def test_a_first_prediction_that_dies_in_a_forked_process_is_told_of(serve: ServeFixture, folder: Path) -> None:
    (folder / "custom.py").write_text(
        "import os, signal\n"
        "PID = os.getpid()\n"
        "def load_model(code_dir):\n    return 1\n"
        "def score_unstructured(model, data, **kwargs):\n"
        "    if os.getpid() != PID:\n        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return data\n"
    )
    (folder / "example.json").write_text(json.dumps("x"))
    metadata = METADATA + "\n"
    (folder / "model-metadata.yaml").write_text(metadata)
    server = serve(folder, "--preload", "--with-error-server", "--example", str(folder / "example.json"), ready=513)
    assert "died of signal 11 in its first prediction" in ask(server).json()["message"]
