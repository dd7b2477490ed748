from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import backline
from backline.cli.main import main
from backline.cli.new import TEMPLATES
from backline.config.model_folder import read_model_folder
from backline.config.sources import load_settings

# In a process of its own: custom.py becomes a module, sys.path and the environment are changed.
_TRY = """
import json, sys
from backline_worker.model import Model
from backline_worker.types import ModelSpec
model = Model.load(ModelSpec.from_json(json.load(sys.stdin)))
warm_up = model.warm_up()
told = {"target_type": model.target.type.value, "warm_up": warm_up, "warnings": model.description["warnings"]}
print(json.dumps(told))
"""


def make(folder: Path, template: str) -> None:
    assert main(["new", str(folder), "--template", template]) == 0


def test_list_names_every_template(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(TEMPLATES)


def test_every_template_folder_is_in_the_list() -> None:
    folder = Path(backline.__file__).parent / "cli" / "templates"
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(TEMPLATES)


@pytest.mark.slow
@pytest.mark.parametrize("template", [name for name in TEMPLATES if name != "sklearn"])
def test_a_template_loads_and_predicts_its_example_as_it_stands(tmp_path: Path, template: str) -> None:
    make(tmp_path / "churn", template)
    resolved = load_settings(tmp_path / "churn", {}, {})
    assert resolved.warnings == ()
    folder = read_model_folder(resolved.settings)
    assert folder.warnings == ()
    assert folder.metadata.name == "churn"
    assert resolved.settings.model.example is not None
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _TRY],
        input=json.dumps(folder.spec()),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["target_type"] == template
    assert told["warm_up"]["source"] == "example"
    assert told["warnings"] == []


@pytest.mark.slow
def test_the_sklearn_template_trains_and_then_loads(tmp_path: Path) -> None:
    make(tmp_path / "iris", "sklearn")
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path / "iris", check=True, capture_output=True, timeout=120)
    spec = read_model_folder(load_settings(tmp_path / "iris", {}, {}).settings).spec()
    done = subprocess.run(
        [sys.executable, "-c", _TRY], input=json.dumps(spec), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["target_type"] == "multiclass"


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_says_how_it_is_served(tmp_path: Path, template: str) -> None:
    make(tmp_path / "m", template)
    readme = (tmp_path / "m" / "README.md").read_text()
    assert "backline serve ." in readme
    assert "curl http" in readme or "curl 'http" in readme


def test_the_documented_form_works(tmp_path: Path) -> None:
    assert main(["new", "model", "--code-dir", str(tmp_path / "m"), "--language", "python"]) == 0
    assert (tmp_path / "m" / "custom.py").is_file()


def test_a_directory_that_exists_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["new", str(tmp_path)]) == 2
    assert f"Error: {tmp_path} exists" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_yaml_would_misread_is_quoted(tmp_path: Path) -> None:
    make(tmp_path / "7: up #1", "regression")
    folder = read_model_folder(load_settings(tmp_path / "7: up #1", {}, {}).settings)
    assert folder.metadata.name == "7: up #1"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "--template", "regresion"], "did you mean regression?"),
        (["x", "--language", "r"], "there is no template in r"),
        ([], "no directory to make"),
        (["x", "--code-dir", "y"], "two directories"),
    ],
)
def test_mistakes_end_with_2_and_write_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", *words]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("spelling", "made"), [("text-generation", "textgeneration"), ("GeoPoint", "geopoint")])
def test_template_names_are_read_in_any_spelling(tmp_path: Path, spelling: str, made: str) -> None:
    make(tmp_path / "m", spelling)
    assert f"targetType: {made}\n" in (tmp_path / "m" / "model-metadata.yaml").read_text()
