"""What happens from ``backline serve`` to the first answer, in which order, and what is left when it goes wrong."""

from __future__ import annotations

import gc
import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.load import post
from tests.serving import ServeFixture

pytestmark = pytest.mark.slow

# Notes the server's child processes at the moment when it first looks for the web framework.
WATCHED = """
import json, os, sys, time
from pathlib import Path

from backline.cli.main import main


def command_of(child):
    while not (command := Path(f"/proc/{child}/cmdline").read_bytes()):
        time.sleep(0.001)  # the kernel is not quite done with starting it
    return command.decode().split("\\0")


class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("fastapi", "starlette", "uvicorn", "asyncio") and not note.exists():
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            commands = [command_of(child) for child in children]
            note.write_text(json.dumps([name, commands]))


note = Path(sys.argv.pop(1))
sys.meta_path.insert(0, Watch())
sys.exit(main())
"""
NOTES_ITS_PID = """#!{python}
import os, sys
with open(__file__ + ".pid", "w") as file:
    file.write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def write_model(folder: Path, code: str = "") -> Path:
    folder.mkdir()
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    (folder / "custom.py").write_text(
        f"{code}\ndef score_unstructured(model, data, **kwargs):\n    return data[::-1]\n"
    )
    return folder


def write_python(folder: Path, code: str) -> Path:
    script = folder / "python"
    script.write_text(code.format(python=sys.executable))
    script.chmod(0o700)
    return script


def run_serve(folder: Path, *flags: str, pythonpath: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a server that is going to fail."""
    env = os.environ | ({"PYTHONPATH": str(pythonpath)} if pythonpath is not None else {})
    command = [sys.executable, "-m", "backline", "serve", str(folder), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_worker_is_on_its_way_before_the_web_framework_is_imported(tmp_path: Path) -> None:
    note = tmp_path / "note"
    # The model ends its own server, by not loading.
    folder = write_model(tmp_path / "model", "raise RuntimeError('enough')")
    command = [sys.executable, "-c", WATCHED, str(note), "serve", str(folder), "--address", "127.0.0.1:0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "enough" in done.stderr
    name, commands = json.loads(note.read_text())
    assert name == "asyncio"  # so the framework, which needs it, comes later still
    assert len(commands) == 1
    assert any(word.endswith("boot.py") for word in commands[0])


def test_the_worker_that_was_started_early_is_the_one_that_answers(serve: ServeFixture, tmp_path: Path) -> None:
    python = write_python(tmp_path, NOTES_ITS_PID)
    server = serve(write_model(tmp_path / "model"), "--python", str(python))
    assert post(f"{server.url}/predictUnstructured/", b"abc", headers={"Content-Type": "text/plain"}).body == b"cba"
    pid = Path(f"{python}.pid").read_text()
    assert f"(pid {pid}) is ready" in server.log()


def test_the_server_loads_no_library_of_the_model(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve(write_model(tmp_path / "model", "import numpy, pandas"))
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert not re.findall(r"/(?:numpy|pandas|pyarrow|scipy|sklearn)/\S+", maps)


def test_no_worker_is_started_where_the_port_is_taken(tmp_path: Path) -> None:
    python = write_python(tmp_path, NOTES_ITS_PID)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run_serve(write_model(tmp_path / "model"), "--python", str(python), "--address", f"127.0.0.1:{port}")
    assert done.returncode == 1
    assert f"--address 127.0.0.1:{port}: cannot listen there" in done.stderr
    assert not Path(f"{python}.pid").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_server_that_cannot_go_on_leaves_no_early_worker_behind(tmp_path: Path) -> None:
    python = write_python(tmp_path, NOTES_ITS_PID)
    broken = tmp_path / "broken"
    broken.mkdir()
    waits = f"import os, time\nwhile not os.path.exists({str(python) + '.pid'!r}):\n    time.sleep(0.01)\n"
    (broken / "fastapi.py").write_text(f"{waits}raise RuntimeError('this one is broken')\n")
    folder = write_model(tmp_path / "model", "import time; time.sleep(600)")
    done = run_serve(folder, "--python", str(python), "--address", "127.0.0.1:0", pythonpath=broken)
    assert done.returncode == 1
    assert "this one is broken" in done.stderr
    assert not Path(f"/proc/{Path(f'{python}.pid').read_text()}").exists()


def test_an_interpreter_that_cannot_be_started_is_told_by_name(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_bytes(b"\x7fELF is all that it has")
    python.chmod(0o700)
    folder = write_model(tmp_path / "model")
    done = run_serve(
        folder, "--python", str(python), "--address", "127.0.0.1:0", "--max-restarts", "1", "--restart-backoff", "0"
    )
    assert done.returncode == 1
    assert f"cannot start {python}: [Errno 8] Exec format error" in done.stderr


def test_a_client_that_asks_before_the_model_is_loaded_is_told_so(serve: ServeFixture, tmp_path: Path) -> None:
    go = tmp_path / "go"
    code = f"import os, time\nwhile not os.path.exists({str(go)!r}):\n    time.sleep(0.01)\n"
    server = serve(write_model(tmp_path / "model", code), ready=503)
    answer = post(f"{server.url}/predictUnstructured/", b"abc")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    go.touch()
    server.wait_ready()
    assert post(f"{server.url}/predictUnstructured/", b"abc", headers={"Content-Type": "text/plain"}).body == b"cba"


def test_a_folder_with_much_to_tell_is_told_whole(serve: ServeFixture, tmp_path: Path) -> None:
    """The first frame does not fit into the channel before the server's event loop runs."""
    folder = write_model(tmp_path / "model")
    with (folder / "model-metadata.yaml").open("a") as file:
        file.write(f"description: {'x' * 1_000_000}\n")
    server = serve(folder)
    assert post(f"{server.url}/predictUnstructured/", b"abc", headers={"Content-Type": "text/plain"}).body == b"cba"


@pytest.mark.parametrize("own", [None, (1234, 5, 6)])
def test_the_model_runs_with_the_garbage_collector_as_python_or_itself_has_set_it(
    serve: ServeFixture, tmp_path: Path, own: tuple[int, int, int] | None
) -> None:
    folder = tmp_path / "model"
    write_model(folder)
    sets = "" if own is None else f"gc.set_threshold(*{own})\n"
    answers = "def score_unstructured(model, data, **kwargs):\n    return str(gc.get_threshold())\n"
    (folder / "custom.py").write_text(f"import gc\n\n{sets}\n{answers}")
    server = serve(folder)
    seen = post(f"{server.url}/predictUnstructured/", b"x", headers={"Content-Type": "text/plain"}).body.decode()
    assert seen == str(own or gc.get_threshold())


def test_what_loading_left_behind_is_collected_in_the_first_pause(serve: ServeFixture, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    code = f"""
class Ring:
    def __init__(self):
        self.me = self

    def __del__(self):
        open({str(gone)!r}, "w").close()


Ring()
"""
    serve(write_model(tmp_path / "model", code))
    deadline = time.monotonic() + 60
    while not gone.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
