"""The container's definition says what platforms ask for; ``scripts/check-container`` builds it and runs it."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from backline.config.settings import ServerSettings
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
CONTAINERFILE = ROOT / "deploy" / "container" / "Containerfile"


@pytest.fixture(scope="module")
def container() -> Any:
    return load_script("container")


def last_stage(container: Any) -> dict[str, str]:
    steps = container.instructions(CONTAINERFILE)
    begin = max(index for index, (instruction, _) in enumerate(steps) if instruction == "FROM")
    return dict(steps[begin:])


def test_it_runs_as_a_number_without_privileges_and_takes_sigterm(container: Any) -> None:
    stage = last_stage(container)
    assert stage["USER"] == "1001:0"  # Kubernetes' runAsNonRoot wants a number; OpenShift puts any user into group 0
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(stage["ENTRYPOINT"])[-1].endswith("/backline")
    assert json.loads(stage["CMD"]) == ["serve"]


def test_port_and_probe_are_the_servers(container: Any) -> None:
    stage = last_stage(container)
    port = str(ServerSettings().port)
    assert stage["EXPOSE"] == port
    assert f"ADDRESS=0.0.0.0:{port}" in stage["ENV"].split()
    assert f"http://127.0.0.1:{port}/livez" in stage["HEALTHCHECK"]


def test_the_build_context_has_what_is_copied_and_nothing_else(container: Any) -> None:
    ignored = container.Ignored(ROOT / ".dockerignore")
    copied = [
        source
        for instruction, value in container.instructions(CONTAINERFILE)
        if instruction == "COPY" and not value.startswith("--from=")
        for source in value.split()[:-1]
    ]
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    assert not ignored("src/backline/cli/main.py")
    for secret in (
        ".git/config",
        ".venv/bin/python",
        "requirements/dev.txt",
        "src/backline/__pycache__/a.pyc",
        "key.pem",
    ):
        assert ignored(secret), secret


def test_ignore_patterns_mean_what_they_mean_to_engines(container: Any, tmp_path: Path) -> None:
    (tmp_path / ".dockerignore").write_text("# a comment\n*.md\n!README.md\nbuild\n**/*.log\ndocs/?.txt\n")
    ignored = container.Ignored(tmp_path / ".dockerignore")
    for path in ("a.md", "build/x/y", "deep/down/x.log", "x.log", "docs/a.txt"):
        assert ignored(path), path
    for path in ("README.md", "docs/a.md", "rebuild", "docs/ab.txt", "log"):
        assert not ignored(path), path


def test_what_is_not_in_the_context_cannot_be_copied(container: Any, tmp_path: Path) -> None:
    file = tmp_path / "Containerfile"
    file.write_text("FROM base\nCOPY secret /secret\n")
    (tmp_path / "secret").write_text("x")
    (tmp_path / ".dockerignore").write_text("secret\n")
    (tmp_path / "base").mkdir()
    work = tmp_path / "work"
    work.mkdir()
    builder = container.Builder(work, tmp_path)
    builder.images["base"] = container.Image(root=tmp_path / "base")
    with pytest.raises(container.Failed, match="kept out"):
        builder.build(file, tmp_path)
    file.write_text("FROM base\nVOLUME /data\n")
    with pytest.raises(container.Failed, match="VOLUME: not known here"):
        builder.build(file, tmp_path)


def test_the_platforms_script_can_be_run_and_hands_the_server_its_place() -> None:
    script = CONTAINERFILE.with_name("start_server.sh")
    assert os.access(script, os.X_OK)
    assert re.search(r"^exec /opt/backline/bin/backline serve", script.read_text(), re.MULTILINE)
