from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backline.api import run
from backline.cli import serve as serve_module
from backline.cli.flags import COMPATIBLE_FLAGS
from backline.cli.main import main
from backline.config.model_folder import ModelFolder
from backline.config.settings import Settings

Served = list[tuple[Settings, ModelFolder]]


@pytest.fixture(autouse=True)
def no_socket_and_no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_module, "listen", lambda host, port: contextlib.nullcontext())
    monkeypatch.setattr(serve_module, "launched_early", lambda python, spec, confined, **more: contextlib.nullcontext())


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Served:
    """What the server is asked to serve: the command line ends where the server would start."""
    calls: Served = []

    def serve(settings: Settings, folder: ModelFolder, listener: None, **more: object) -> run.Outcome:
        calls.append((settings, folder))
        return run.Outcome.STOPPED

    monkeypatch.setattr(run, "serve", serve)
    return calls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    return path


@pytest.fixture
def settings_of(served: Served, folder: Path) -> Callable[..., Settings]:
    def call(*words: str) -> Settings:
        assert main(["serve", str(folder), *words]) == 0
        return served[-1][0]

    return call


def test_a_documented_command_line_runs_with_only_the_name_changed(served: Served, folder: Path) -> None:
    line = [
        "server",
        "--code-dir",
        str(folder),
        "--address",
        "0.0.0.0:6789",
        "--target-type",
        "binary",
        "--positive-class-label",
        "yes",
        "--negative-class-label",
        "no",
        "--max-workers",
        "2",
        "--logging-level",
        "warn",
        "--with-error-server",
        "--show-stacktrace",
    ]
    assert main(line) == 0
    settings = served[0][0]
    assert settings.model.code_dir == folder
    assert (settings.server.host, settings.server.port) == ("0.0.0.0", 6789)
    assert settings.server.with_error_server
    assert settings.server.show_stacktrace
    assert (settings.workers.count, settings.log.level) == (2, "warn")


def test_cd_is_code_dir(served: Served, folder: Path) -> None:
    assert main(["serve", "-cd", str(folder)]) == 0
    assert served[0][0].model.code_dir == folder


def test_underscores_are_dashes(settings_of: Callable[..., Settings]) -> None:
    settings = settings_of("--target_type=regression", "--drain_timeout", "5", "--show_stacktrace")
    assert settings.model.target_type is not None
    assert settings.server.drain_timeout == 5
    assert settings.server.show_stacktrace


def test_an_underscore_in_a_value_is_kept(settings_of: Callable[..., Settings]) -> None:
    assert settings_of("--target_name=a_b").model.target_name == "a_b"
    assert settings_of("--target-name", "a_b").model.target_name == "a_b"


@pytest.mark.parametrize(
    ("words", "labels"),
    [
        (["--class-labels", "a", "b", "c"], ("a", "b", "c")),
        (["--class_labels", "a", "b", "c", "--workers", "1"], ("a", "b", "c")),
        (["--class-labels", "a,b,c"], ("a", "b", "c")),
        (["--class-labels", "a b c"], ("a", "b", "c")),
        (["--class-labels=a,b,c"], ("a", "b", "c")),
        (["--class-labels", "a", "--class-labels", "b"], ("a", "b")),
        (["--class-labels", "-1", "0", "1"], ("-1", "0", "1")),
    ],
)
def test_class_labels(settings_of: Callable[..., Settings], words: list[str], labels: tuple[str, ...]) -> None:
    assert settings_of(*words).model.class_labels == labels


def test_a_directory_behind_class_labels_is_told(
    served: Served, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--class-labels", "a", "b", str(folder)]) == 2
    assert f"--code-dir {folder}" in capsys.readouterr().err
    assert not served


def test_switches_have_opposites(settings_of: Callable[..., Settings]) -> None:
    assert settings_of("--disable-strict-validation").model.strict_validation is False
    assert settings_of("--strict-validation").model.strict_validation is True
    assert settings_of("--allow-shutdown").server.allow_shutdown is True
    assert settings_of("--allow-shutdown", "--no-allow-shutdown").server.allow_shutdown is False
    assert settings_of("--force-start-internal").server.with_error_server is True


def test_a_switch_turned_off_wins_over_the_environment(
    settings_of: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WITH_ERROR_SERVER", "true")
    assert settings_of().server.with_error_server is True
    assert settings_of("--no-with-error-server").server.with_error_server is False


def test_verbose_is_short_for_debug_and_gives_way_to_a_level(settings_of: Callable[..., Settings]) -> None:
    assert settings_of("--verbose").log.level == "debug"
    assert settings_of("--verbose", "--logging-level", "error").log.level == "error"


@pytest.mark.parametrize(
    "flag", [each for each in COMPATIBLE_FLAGS if "serve" in each.commands], ids=lambda each: each.flag
)
def test_a_documented_flag_without_effect_is_taken_with_a_warning(
    served: Served, folder: Path, capsys: pytest.CaptureFixture[str], flag: Any
) -> None:
    assert main(["serve", str(folder), flag.flag, *(["hush-hush"] if flag.takes_value else [])]) == 0
    error = capsys.readouterr().err
    assert f"Warning: {flag.flag} has no effect here: {flag.instead}" in error
    assert "hush-hush" not in error
    assert len(served) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--wokers", "2"], "did you mean --workers"),
        (["--target_tipe", "binary"], "did you mean --target-type"),
        (["--workers"], "requires an argument"),
        (["--workers", "0"], "from 1 to 40"),
        (["--code-dir", "/elsewhere"], "two model directories"),
        (["another"], "unexpected words: another"),
        (["--frobnicate"], "backline serve --help"),
    ],
)
def test_a_mistake_in_the_command_line_ends_with_2_and_the_mend(
    served: Served, folder: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["serve", str(folder), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert message in error
    assert "Traceback" not in error
    assert not served


def test_a_mistake_in_the_folder_ends_with_1(served: Served, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model-metadata.yaml").write_text("name: a: b\n")
    assert main(["serve", str(folder)]) == 1
    assert f"where: {folder}/model-metadata.yaml:1:8" in capsys.readouterr().err
    assert not served


def test_a_mistake_in_a_variable_ends_with_2(
    served: Served, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_WORKERS", "many")
    assert main(["serve", str(folder)]) == 2
    assert "where: environment MAX_WORKERS" in capsys.readouterr().err
    assert not served


def test_warnings_of_the_settings_are_told_before_serving(
    served: Served, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BACKLINE_WORKRES", "2")
    assert main(["serve", str(folder)]) == 0
    assert "Warning: environment variable BACKLINE_WORKRES" in capsys.readouterr().err


def test_the_exit_code_of_the_server_is_ours(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "serve", lambda *what, **more: run.Outcome.INTERRUPTED)
    assert main(["serve", str(folder)]) == 130
