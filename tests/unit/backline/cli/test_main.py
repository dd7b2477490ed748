from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from backline.cli.exit_codes import ExitCode, exit_code_for
from backline.cli.main import ALIASES, COMMANDS, main
from backline.cli.messages import describe
from backline.cli.reference import render_markdown
from backline.config.problems import SettingError
from backline.errors import ConfigError, ModelLoadFailed


def test_help_lists_every_command_without_importing_any(capsys: pytest.CaptureFixture[str]) -> None:
    program = (
        "import sys\nfrom backline.cli.main import main\ncode = main(['--help'])\n"
        "names = ('fastapi', 'uvicorn', 'asyncio', 'rich', 'yaml', 'backline.config', 'pandas')\n"
        "heavy = [name for name in names if name in sys.modules]\n"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in (*COMMANDS, *ALIASES))


@pytest.mark.parametrize("name", [*COMMANDS, *ALIASES])
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: backline ")


def test_version_tells_ours_and_what_answers_depend_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("backline ", "Python ", "fastapi ", "pydantic ", "uvicorn "))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["serv"], "did you mean serve?"),
        (["frobnicate"], "the commands are serve, score, "),
        (["config", "shwo"], "did you mean show?"),
        (["--verison"], "did you mean --version?"),
    ],
)
def test_an_unknown_command_ends_with_2_and_the_nearest(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), ExitCode.FAILURE),
        (SettingError("x", where="y", mend="z"), ExitCode.FAILURE),
        (SettingError("x", where="y", mend="z", usage=True), ExitCode.USAGE),
        (ModelLoadFailed("x"), ExitCode.FAILURE),
        (click.UsageError("x"), ExitCode.USAGE),
        (KeyboardInterrupt(), ExitCode.INTERRUPTED),
        (ValueError("x"), ExitCode.FAILURE),
    ],
)
def test_exit_codes(error: BaseException, code: ExitCode) -> None:
    assert exit_code_for(error) is code


def test_an_error_is_told_as_what_where_and_mend() -> None:
    text = describe(SettingError("it is broken", where="here", mend="do this"))
    assert text == "Error: it is broken\n  where: here\n  mend:  do this"


def test_a_fault_of_ours_shows_its_traceback_only_when_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("boom")

    monkeypatch.setattr("backline.cli.loading.load_settings", broken)
    assert main(["config", "show", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert "RuntimeError: boom" in error
    assert "Traceback" not in error
    assert main(["config", "show", str(tmp_path), "--show_stacktrace"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_ends_with_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("backline.cli.loading.load_settings", interrupted)
    assert main(["config", "show", str(tmp_path)]) == 130
    assert "Aborted" in capsys.readouterr().err


def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    command = f"{sys.executable} -m backline config show {tmp_path} | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, check=False)
    assert done.stderr == ""


def test_the_reference_names_every_command_and_exit_code() -> None:
    page = render_markdown()
    for name in ("serve", "score", "new", "config show"):
        assert f"## backline {name}\n" in page
    for code in ExitCode:
        assert f"\n- {code.value}: " in page
    assert "`--production`" in page
