"""``--env auto``: what a model's folder asks for is built, once, and kept."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from backline.runtime.environments.cache import MARKER, EnvironmentCache
from backline.runtime.environments.recipe import read_recipe
from tests.integration.load import post, request
from tests.serving import ServeFixture, Server, running_server

pytestmark = pytest.mark.slow

BUILDING = "building the environment that"
SAYS_VERSION = """
import {module}


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    return str({module}.{version})
"""
NEEDS_PYDANTIC_1 = """
from pydantic import BaseModel, validator  # the second warns in pydantic 2, and this form of it is refused there


class Row(BaseModel):
    n: int

    class Config:
        allow_mutation = False

    @validator("n", each_item=False)
    def small(cls, value, values, config, field):
        assert value < 10, "n is too large"
        return value


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    return Row.parse_raw(data).json()
"""
NEEDS_PYDANTIC_2 = """
from pydantic import BaseModel, field_validator


class Row(BaseModel):
    n: int

    @field_validator("n")
    @classmethod
    def small(cls, value):
        assert value < 10, "n is too large"
        return value


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    return Row.model_validate_json(data).model_dump_json()
"""


def write_model(folder: Path, code: str, **files: str) -> Path:
    folder.mkdir()
    (folder / "model-metadata.yaml").write_text('{"name": "m", "type": "inference", "targetType": "unstructured"}')
    (folder / "custom.py").write_text(code)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def write_wheel(folder: Path, name: str, version: str, requires: str = "") -> None:
    """Make a package that holds its version, so that most of these tests need no index."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    files = {
        f"{name}.py": f'VERSION = "{version}"\n',
        f"{info}/METADATA": metadata + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: ours\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text)}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": record + f"{info}/RECORD,,\n"}.items():
            wheel.writestr(path, text)


@pytest.fixture
def wheels(tmp_path: Path) -> str:
    """What a requirements file says to find the packages ``leaf`` and ``stem``, which needs leaf 1, and no index."""
    folder = tmp_path / "wheels"
    write_wheel(folder, "leaf", "1.0")
    write_wheel(folder, "leaf", "2.0")
    write_wheel(folder, "stem", "1.0", requires="leaf<2")
    return f"--no-index\n--find-links {folder}\n"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def backline(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backline", *words]
    environ = {**os.environ, **variables}
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=environ)


def ask(url: str, body: bytes = b"") -> tuple[int, str]:
    answer = post(f"{url}/predictUnstructured/", body, headers={"Content-Type": "application/json"})
    return answer.status, answer.body.decode()


def test_models_of_pydantic_1_and_2_are_served_by_one_server_that_has_neither_of_theirs(
    serve: ServeFixture, tmp_path: Path, cache: Path
) -> None:
    old = write_model(tmp_path / "old", NEEDS_PYDANTIC_1, requirements__txt="pydantic==1.*\n")
    new = write_model(tmp_path / "new", NEEDS_PYDANTIC_2, requirements__txt="pydantic>=2\n")
    for folder in (old, new):
        server = serve(folder, "--env", "auto", "--with-error-server", "--env-cache", str(cache), ready=None)
        with contextlib.suppress(AssertionError):
            server.wait_ready()
        if "the package index cannot be reached" in server.log() or "network is switched off" in server.log():
            pytest.skip("the packages cannot be had: " + server.log()[-300:])
        server.wait_ready()
        assert json.loads(ask(server.url, b'{"n": 3}')[1]) == {"n": 3}
        assert ask(server.url, b'{"n": 30}')[0] == 500
        server.stop()
    assert len(list(cache.glob(f"*/{MARKER}"))) == 2


def test_ten_servers_that_start_at_once_on_a_new_environment_build_it_once(
    tmp_path: Path, cache: Path, wheels: str
) -> None:
    folder = write_model(
        tmp_path / "model", SAYS_VERSION.format(module="leaf", version="VERSION"), requirements__txt=wheels + "stem\n"
    )
    logs = [tmp_path / f"server-{number}.log" for number in range(10)]

    with contextlib.ExitStack() as servers, ThreadPoolExecutor(10) as pool:

        def start(log: Path) -> Server:
            return servers.enter_context(running_server(log, folder, "--env", "auto", "--env-cache", str(cache)))

        started = list(pool.map(start, logs))
        assert {ask(server.url) for server in started} == {(200, "1.0")}
        pids = {
            worker["pid"] for server in started for worker in request("GET", f"{server.url}/stats/").json()["workers"]
        }
        assert len(pids) == 10
    assert sum(log.read_text().count(BUILDING) for log in logs) == 1


@contextlib.contextmanager
def _held_by_another(cache: Path, folder: Path) -> Iterator[Path]:
    """Hold the lock as a process that builds the environment does; give the file that it tells its progress in."""
    recipe = read_recipe(folder)
    assert recipe is not None
    ours = EnvironmentCache(cache)
    cache.mkdir()
    import fcntl

    with ours._open_lock(recipe.key) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield cache / f"{recipe.key}.progress"


def test_while_it_is_built_the_server_lives_and_says_how_far_it_is(
    serve: ServeFixture, tmp_path: Path, cache: Path, wheels: str
) -> None:
    code = SAYS_VERSION.format(module="leaf", version="VERSION")
    folder = write_model(tmp_path / "model", code, requirements__txt=wheels + "leaf\n")
    with _held_by_another(cache, folder) as progress:
        progress.write_text("installing 3 of 7 packages")
        server = serve(folder, "--env", "auto", "--env-cache", str(cache), ready=None)
        server.wait_ready(503)
        waiting = serve(folder, "--env", "auto", "--env-cache", str(cache), ready=503)
        assert request("GET", f"{server.url}/livez").status == 200
        while "3 of 7" not in (message := request("GET", f"{server.url}/readyz").json()["message"]):
            assert "still loading" in message or "looking" in message
        assert message == "ERROR: the model's environment is being built: installing 3 of 7 packages"
        assert waiting.stop() == 0  # at once, though the other process goes on
    server.wait_ready()
    assert ask(server.url) == (200, "2.0")


def test_a_server_that_is_killed_while_it_builds_leaves_nothing_that_the_next_would_take(
    serve: ServeFixture, tmp_path: Path, cache: Path, wheels: str
) -> None:
    code = SAYS_VERSION.format(module="leaf", version="VERSION")
    folder = write_model(tmp_path / "model", code, requirements__txt=wheels + "leaf==1\n")
    server = serve(folder, "--env", "auto", "--env-cache", str(cache), ready=None)
    while not list(cache.glob("*/pyvenv.cfg")):
        assert server.process.poll() is None, server.log()
    server.process.kill()
    server.process.wait()
    server = serve(folder, "--env", "auto", "--env-cache", str(cache))
    assert ask(server.url) == (200, "1.0")


def test_the_commands_build_list_explain_and_prune(tmp_path: Path, cache: Path, wheels: str) -> None:
    code = SAYS_VERSION.format(module="leaf", version="VERSION")
    folder = write_model(tmp_path / "model", code, requirements__txt=wheels + "stem\n")
    where = {"BACKLINE_ENV_CACHE": str(cache)}
    assert "not built" in backline("env", "explain", str(folder), **where).stdout
    done = backline("env", "build", str(folder), **where)
    assert done.returncode == 0, done.stderr
    python = Path(done.stdout.strip())
    assert python.is_relative_to(cache)
    assert "2 packages" in done.stderr
    # Compiled, or each worker would do it again.
    assert list(python.parents[1].glob("lib/*/site-packages/__pycache__/leaf.*.pyc"))
    # It is there: neither uv nor an index is asked.
    again = backline(
        "env", "build", str(folder), **where, PATH="", UV_DEFAULT_INDEX="http://127.0.0.1:9/", UV_OFFLINE="1"
    )
    assert (again.stdout.strip(), again.stderr.strip()) == (
        str(python),
        re.sub(r" in .*", ", which was there", done.stderr.strip().splitlines()[-1]),
    )
    explained = backline("env", "explain", str(folder), **where).stdout
    assert "stem==1.0" in explained
    assert str(folder / "requirements.txt") in backline("env", "list", **where).stdout
    assert "Removed 0" in backline("env", "prune", **where).stderr
    assert "Removed 1" in backline("env", "prune", "--all", **where).stderr
    assert "No environments" in backline("env", "list", **where).stderr


def test_a_conflict_is_told_by_line_and_ends_the_start(
    serve: ServeFixture, tmp_path: Path, cache: Path, wheels: str
) -> None:
    folder = write_model(
        tmp_path / "model", "def load_model(d): ...\n", requirements__txt=wheels + "# both\nstem\nleaf>=2\n"
    )
    done = backline("env", "build", str(folder), "--env-cache", str(cache))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "do not go together" in done.stderr
    assert "leaf<2" in done.stderr  # what the resolver says of it
    file = folder / "requirements.txt"
    assert f"where: {file}:4 (stem); {file}:5 (leaf>=2)" in done.stderr
    server = serve(folder, "--env", "auto", "--env-cache", str(cache), "--with-error-server", ready=513)
    answer = request("GET", f"{server.url}/readyz").json()
    assert answer["code"] == "environment_failed"
    assert f"{file}:5 (leaf>=2)" in answer["message"]
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_score_uses_the_same_environment(tmp_path: Path, cache: Path, wheels: str) -> None:
    code = SAYS_VERSION.format(module="leaf", version="VERSION")
    folder = write_model(tmp_path / "model", code, requirements__txt=wheels + "leaf<2\n")
    (tmp_path / "in.txt").write_text("x")
    done = backline(
        "score", str(folder), "--env", "auto", "-i", str(tmp_path / "in.txt"), "-o", str(tmp_path / "out.txt"),
        "--content-type", "text/plain", BACKLINE_ENV_CACHE=str(cache),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.txt").read_text() == "1.0"
    assert BUILDING in done.stderr


def test_a_folder_that_asks_for_nothing_is_served_in_the_server_s_environment(
    serve: ServeFixture, tmp_path: Path, cache: Path
) -> None:
    code = SAYS_VERSION.format(module="sys", version="executable")
    server = serve(write_model(tmp_path / "model", code), "--env", "auto", "--env-cache", str(cache))
    assert ask(server.url) == (200, sys.executable)
    assert not cache.exists()
