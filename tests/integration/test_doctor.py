"""Every check of ``backline doctor`` fails where something is made wrong, says the mend, and passes where it is not."""

from __future__ import annotations

import json
import os
import pickle
import resource
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
from sklearn.linear_model import LinearRegression

pytestmark = pytest.mark.slow


def make_folder(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model-metadata.yaml").write_text("name: looked-at\ntype: inference\ntargetType: regression\n")
    model = LinearRegression().fit(np.ones((3, 1)), [1.0, 2.0, 3.0])
    (folder / "model.pkl").write_bytes(pickle.dumps(model))
    (folder / "requirements.txt").write_text(f"scikit-learn=={sklearn.__version__}\nnumpy>=1\n")
    return folder


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def run(
    folder: Path, *flags: str, env: dict[str, str] | None = None, before: Callable[[], None] | None = None
) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return exit code and findings by check."""
    port = [] if "--port" in flags else ["--port", str(free_port())]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    command = [sys.executable, "-m", "backline", "doctor", str(folder), "--json", "-", *port, *flags]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=environ, preexec_fn=before
    )
    assert done.stdout.startswith("{"), done.stderr
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)["findings"]}


def test_nothing_is_found_where_nothing_is_wrong(tmp_path: Path) -> None:
    code, findings = run(make_folder(tmp_path), "--strict")
    assert {check: finding["status"] for check, finding in findings.items()} == dict.fromkeys(findings, "passed")
    assert len(findings) == 11
    assert code == 0


def test_an_environment_that_has_other_packages_than_the_model_wants(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "requirements.txt").write_text("numpy\nscikit-learn==0.24.2\nno-such-package>=1\n")
    pickled = (folder / "model.pkl").read_bytes()
    other = "9" + sklearn.__version__[1:]
    (folder / "model.pkl").write_bytes(pickled.replace(sklearn.__version__.encode(), other.encode()))
    code, findings = run(folder)
    assert code == 1
    assert findings["requirements"]["status"] == "failed"
    assert findings["requirements"]["seen"].startswith("requirements.txt:2 wants scikit-learn==0.24.2")
    assert "pip install -r" in findings["requirements"]["mend"]
    assert len(findings["requirements"]["cases"]) == 2
    assert findings["training versions"]["status"] == "failed"
    expected = f"model.pkl was made with scikit-learn {other}: {sklearn.__version__} is installed"
    assert findings["training versions"]["seen"] == expected


def test_an_environment_that_is_none_or_has_no_bytecode(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such library >&2\nexit 3\n")
    python.chmod(0o755)
    code, findings = run(folder, "--python", str(python))
    assert (code, findings["environment"]["status"]) == (1, "failed")
    assert "no such library" in findings["environment"]["seen"]
    assert findings["requirements"]["status"] == findings["training versions"]["status"] == "skipped"
    cold = {"PYTHONPYCACHEPREFIX": str(tmp_path / "cold"), "PYTHONDONTWRITEBYTECODE": "1"}
    code, findings = run(folder, env=cold)
    assert (code, findings["environment"]["status"]) == (0, "warning")
    assert "compileall" in findings["environment"]["mend"]


def test_a_machine_that_has_less_than_is_asked_for(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    with (folder / "weights.pt").open("wb") as file:
        file.write(b"no pickle")
        file.truncate(40 << 20)

    def few_descriptors() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        flags = ("--workers", "40", "--max-body", "900000 GiB", "--memory-limit", "32 MiB")
        port = ("--port", str(listener.getsockname()[1]))
        code, findings = run(folder, *flags, *port, before=few_descriptors)
    assert code == 1
    expected = {
        "threads": ("failed", "--workers"),
        "shared memory": ("warning", "--shm-size"),
        "temporary space": ("warning", "TMPDIR"),
        "memory": ("failed", "--memory-limit"),
        "descriptors": ("warning", "ulimit -n"),
        "port": ("failed", "--port"),
    }
    assert {check: findings[check]["status"] for check in expected} == {
        k: status for k, (status, _) in expected.items()
    }
    for check, (_, mend) in expected.items():
        assert mend in findings[check]["mend"]


def test_threads_of_libraries_are_counted(tmp_path: Path) -> None:
    code, findings = run(make_folder(tmp_path), "--strict", env={"OMP_NUM_THREADS": "64"})
    assert (code, findings["threads"]["status"]) == (1, "warning")
    assert "OMP_NUM_THREADS=" in findings["threads"]["mend"]


@pytest.mark.parametrize(
    ("name", "text", "status", "seen"),
    [
        (
            "custom_fastapi.py",
            "def init_app(app):\n    app.add_middleware(X\n",
            "failed",
            "custom_fastapi.py:2: '(' was never",
        ),
        ("custom_fastapi.py", "x = 1\n", "failed", "defines neither init_app(app) nor lifespan(app)"),
        (
            "custom_fastapi.py",
            "import nothing_like_it\ndef init_app(app): ...\n",
            "failed",
            "custom_fastapi.py:1 imports",
        ),
        (
            "custom_fastapi.py",
            "import time\ndef init_app(app):\n    @app.get('/x')\n    async def x():\n        time.sleep(1)\n",
            "warning",
            "custom_fastapi.py:5: time.sleep blocks the event loop",
        ),
        (
            "custom_fastapi.py",
            "def init_app(app):\n    @app.middleware('http')\n    async def x(request, call_next): ...\n",
            "warning",
            "custom_fastapi.py:2: a BaseHTTPMiddleware hides",
        ),
        ("custom_fastapi.py", "def init_app(app): ...\n", "passed", "can be read"),
        ("custom_flask.py", "def init_app(app):\n    @app.before_request\n    def x(): ...\n", "warning", "for Flask"),
    ],
    ids=["syntax", "nothing", "import", "blocks", "middleware", "good", "flask"],
)
def test_extension_files_are_read_and_not_run(tmp_path: Path, name: str, text: str, status: str, seen: str) -> None:
    folder = make_folder(tmp_path)
    (folder / name).write_text(text)
    _, findings = run(folder)
    assert findings["extension files"]["status"] == status
    assert seen in findings["extension files"]["seen"]
    if name == "custom_flask.py":
        assert findings["extension files"]["cases"][0]["where"] == "custom_flask.py:2"
        assert "middleware" in findings["extension files"]["cases"][0]["seen"]


def test_what_lies_in_the_directory_and_should_not(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "start_server.sh").write_text("#!/bin/sh\n")
    code, findings = run(folder)
    assert (code, findings["folder"]["status"]) == (0, "warning")
    (folder / "other.pkl").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    code, findings = run(folder)
    assert (code, findings["folder"]["status"]) == (1, "failed")
    told = {case["file"]: case["seen"] for case in findings["folder"]["cases"]}
    assert "git lfs pull" in told["other.pkl"]
    assert "only one artifact" in told["model.pkl, other.pkl"]
    assert "backline serve is the server" in told["start_server.sh"]


def test_the_table_and_the_page(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model")
    page = tmp_path / "page.html"
    command = [sys.executable, "-m", "backline", "doctor", str(folder), "--port", str(free_port()), "--html", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "\nport               passed   127.0.0.1:" in done.stdout
    assert "training versions" in page.read_text()
