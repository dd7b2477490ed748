from __future__ import annotations

import json
from pathlib import Path

import pytest

from backline.cli.main import main
from backline.config.settings import OPTIONS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "backline.toml").write_text("[workers]\ncount = 2\n")
    (tmp_path / "model-metadata.yaml").write_text("name: m\ntargetType: regression\n")
    return tmp_path


def test_piped_it_is_one_line_a_setting_with_its_source(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", str(folder), "--port", "0"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split(maxsplit=2)[1:] for line in lines[1:]}
    assert list(rows) == [option.dotted for option in OPTIONS]
    assert rows["workers.count"] == ["2", "backline.toml:2"]
    assert rows["model.target_type"] == ["regression", "model-metadata.yaml:2 targetType"]
    assert rows["server.port"] == ["0", "flag --port"]
    assert rows["server.host"] == ["127.0.0.1", "default"]


def test_changed_leaves_defaults_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", str(folder), "--changed"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["setting", "model.code_dir", "model.target_type", "workers.count"]


def test_json_has_plain_values_and_sources(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", str(folder), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["workers.count"] == {"value": 2, "source": "file", "where": f"{folder}/backline.toml:2"}
    assert shown["model.target_type"]["value"] == "regression"
    assert shown["model.class_labels"] == {"value": [], "source": "default", "where": ""}


def test_a_secret_in_a_command_is_not_shown(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--backend-command", "vllm serve tiny --api-key abcdef123456 --port {port}"]
    assert main(["config", "show", str(folder), *command]) == 0
    text = capsys.readouterr().out
    assert main(["config", "show", str(folder), *command, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "abcdef123456" not in text + str(shown)
    assert shown["backend.command"]["value"] == ["vllm", "serve", "tiny", "--api-key", "[redacted]", "--port", "{port}"]
