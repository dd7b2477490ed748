"""The command line reference as Markdown, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click

from backline.cli.exit_codes import ExitCode
from backline.cli.flags import COMPATIBLE_FLAGS
from backline.cli.main import ALIASES, cli

_WIDTH = 100
_MEANINGS = {
    ExitCode.OK: "success",
    ExitCode.FAILURE: "a failure: a file of the model directory that cannot be used, a model that does not load, rows "
    "that cannot be scored",
    ExitCode.USAGE: "a mistake in how Backline was called: a flag, an environment variable, a path that is not there",
    ExitCode.NOT_COMPARED: "parity: no comparison could be made; there 1 says that answers differ",
    ExitCode.INTERRUPTED: "interrupted by Ctrl-C",
}


def render_markdown() -> str:
    """Return the page: the help of every command, the exit codes, and the flags that are taken and do nothing."""
    pieces = [
        "# Command line\n",
        "Generated from the commands themselves.",
        "Flags may be written with dashes or underscores: `--target-type` or `--target_type`.",
        f"{', '.join(f'`backline {alias}` is `backline {name}`' for alias, name in ALIASES.items())}.\n",
    ]
    for path, ctx in _commands(cli, _context(cli, "backline", None)):
        help_text = "\n".join(line.rstrip() for line in ctx.get_help().splitlines())
        pieces.append(f"## {path}\n\n```text\n{help_text}\n```\n")
    pieces.append("## Exit codes\n")
    pieces.extend(f"- {code.value}: {meaning}" for code, meaning in _MEANINGS.items())
    pieces.append("\n## Flags without effect\n")
    pieces.append(
        "These are taken, so that documented command lines run with only the program's name changed; a warning says "
        "that they do nothing.\n"
    )
    pieces.extend(f"- `{each.flag}` ({', '.join(each.commands)}): {each.instead}" for each in COMPATIBLE_FLAGS)
    return "\n".join(pieces) + "\n"


def _commands(command: click.Command, ctx: click.Context) -> Iterator[tuple[str, click.Context]]:
    yield ctx.command_path, ctx
    if isinstance(command, click.Group):
        for name in command.list_commands(ctx):
            child = command.get_command(ctx, name)
            assert child is not None
            yield from _commands(child, _context(child, name, ctx))


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    settings = {**command.context_settings, "terminal_width": _WIDTH, "max_content_width": _WIDTH}
    return click.Context(command, info_name=name, parent=parent, **settings)
