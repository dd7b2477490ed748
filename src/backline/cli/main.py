"""``backline``: finds the command, imports only that one, and turns errors into messages and exit codes."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import click

from backline.cli.exit_codes import ExitCode, exit_code_for
from backline.cli.group import SuggestingGroup
from backline.cli.messages import report_error


class LazyCommand(NamedTuple):
    """Where a command is, and its line in the list, so that the list needs no import."""

    module: str
    attribute: str
    summary: str


COMMANDS = {
    "serve": LazyCommand("backline.cli.serve", "serve", "Serve a model directory over HTTP."),
    "score": LazyCommand("backline.cli.score", "score", "Score a file of rows."),
    "validate": LazyCommand("backline.cli.validate", "validate", "Try a model on a sample before it is served."),
    "bench": LazyCommand("backline.cli.bench", "bench", "Put load on a model or a server and say what came of it."),
    "doctor": LazyCommand("backline.cli.doctor", "doctor", "Look at what a model would be served on."),
    "new": LazyCommand("backline.cli.new", "new", "Make a model directory from a template."),
    "parity": LazyCommand("backline.cli.parity", "parity", "Prove that one server answers like another."),
    "env": LazyCommand("backline.cli.env", "env", "Build, list and remove environments of models."),
    "top": LazyCommand("backline.cli.top", "top", "Watch a running server."),
    "config": LazyCommand("backline.cli.config", "config", "Show the settings and where each comes from."),
}
ALIASES = {"server": "serve", "validation": "validate", "perf-test": "bench"}

# Documented commands that this version does not have: a plain "unknown command" would send people searching.
_NOT_HERE = {
    "fit": "train with the model's own script; backline new --template sklearn shows one",
    "push": "Backline has no platform to push to; serve the directory where it lies",
}


class LazyGroup(SuggestingGroup):
    """A group that imports a command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of the table."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command, or ``None``."""
        del ctx
        lazy = COMMANDS.get(cmd_name)
        if lazy is None:
            return None
        command = getattr(importlib.import_module(lazy.module), lazy.attribute)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands."""
        del ctx
        names = {name: ", ".join([name, *(alias for alias in ALIASES if ALIASES[alias] == name)]) for name in COMMANDS}
        with formatter.section("Commands"):
            formatter.write_dl([(names[name], lazy.summary) for name, lazy in COMMANDS.items()])


def version_text() -> str:
    """Return our version, Python's, the track (docs/design/tracks.md), and the libraries that answers depend on."""
    import platform
    from importlib import metadata

    import backline
    from backline.cli.track import track_of

    def version(package: str) -> str:
        try:
            return metadata.version(package)
        except metadata.PackageNotFoundError:
            return "not installed"

    libraries = ", ".join(f"{name} {version(name)}" for name in ("fastapi", "pydantic", "uvicorn"))
    track = track_of(version("fastapi"), version("pydantic"))
    # One distribution brings both packages, so that they have one version.
    ours = f"backline and backline_worker {backline.__version__}"
    return f"{ours} (Python {platform.python_version()}, {track}: {libraries})"


def _print_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    del param
    if value and not ctx.resilient_parsing:
        click.echo(version_text())
        ctx.exit()


_HELP = """Serve custom models over HTTP, each under its own interpreter and packages.

\b
backline new churn                  make a model directory
backline serve churn                serve it on http://127.0.0.1:8080
backline score churn -i rows.csv    score a file with it
"""


@click.command(
    cls=LazyGroup,
    help=_HELP,
    aliases=ALIASES,
    not_here=_NOT_HERE,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="The exit code is 0 for success, 1 for a failure, 2 for a mistake in the command line, 130 after Ctrl-C.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show versions."
)
def cli() -> None:
    """The root of the command line."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code; errors go to standard error."""
    words = list(sys.argv[1:] if args is None else args)
    try:
        result: Any = cli.main(words, prog_name="backline", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has gone, as in `backline config show | head`. The interpreter must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILURE
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return ExitCode.USAGE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last resort: nobody above could tell it better
        report_error(error, show_traceback=_wants_traceback(words))
        return exit_code_for(error)
    return int(result) if result is not None else ExitCode.OK


def _wants_traceback(words: Sequence[str]) -> bool:
    return any(word.replace("_", "-") in ("--show-stacktrace", "--verbose") for word in words)
