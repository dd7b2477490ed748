from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.ipc
import pyarrow.parquet
import pytest

from backline.cli.main import main


def score(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backline", "score", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert main(["new", str(tmp_path / "model")]) == 0
    return tmp_path / "model"


@pytest.mark.slow
def test_predictions_go_to_standard_output_and_talk_does_not(folder: Path) -> None:
    done = score(str(folder), "--input", str(folder / "example.csv"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "Predictions"
    assert [round(float(line), 2) for line in lines[1:]] == [2.63, 3.72, 1.87]
    assert "Scored 3 rows in" in done.stderr


def test_a_format_that_is_only_read_is_refused_before_the_model_is_loaded(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["score", str(folder), "-i", str(folder / "example.csv"), "-o", str(tmp_path / "out.feather")]
    assert main(words) == 1
    assert "not written as .feather; use .csv or .json" in capsys.readouterr().err


@pytest.mark.slow
def test_predictions_go_to_a_file(folder: Path, tmp_path: Path) -> None:
    done = score("--code-dir", str(folder), "-i", str(folder / "example.csv"), "-o", str(tmp_path / "out.csv"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 4


@pytest.mark.slow
def test_a_model_that_fails_ends_with_1_and_shows_its_traceback_when_asked(folder: Path) -> None:
    (folder / "backline.toml").unlink()
    (folder / "custom.py").write_text("def score(data, model, **kwargs):\n    raise ValueError('no such luck')\n")
    done = score(str(folder), "-i", str(folder / "example.csv"))
    assert done.returncode == 1
    assert "no such luck" in done.stderr
    assert "custom.py" not in done.stderr
    assert "run again with --show-stacktrace" in done.stderr
    assert "custom.py" in score(str(folder), "-i", str(folder / "example.csv"), "--show-stacktrace").stderr


def test_an_input_is_needed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(folder)]) == 2
    assert "Error: --input is missing" in capsys.readouterr().err


def test_flags_of_the_server_are_not_taken(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", str(folder), "-i", "x", "--address", "localhost:1"]) == 2
    assert "unknown flag --address" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["out.json", "out.jsonl", "out.parquet", "out.arrow"])
def test_the_outputs_extension_chooses_its_format(folder: Path, tmp_path: Path, name: str) -> None:
    output = tmp_path / name
    done = score(str(folder), "-i", str(folder / "example.csv"), "-o", str(output))
    assert done.returncode == 0, done.stderr
    if name == "out.json":
        values = json.loads(output.read_text())["predictions"]
    elif name == "out.jsonl":
        values = [json.loads(line)["Predictions"] for line in output.read_text().splitlines()]
    elif name == "out.parquet":
        values = pyarrow.parquet.read_table(output)["Predictions"].to_pylist()
    else:
        values = pyarrow.ipc.open_stream(output.read_bytes()).read_all()["Predictions"].to_pylist()
    assert [round(value, 2) for value in values] == [2.63, 3.72, 1.87]
