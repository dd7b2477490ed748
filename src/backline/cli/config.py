"""``backline config``: shows what the settings are and where each comes from."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterable
from enum import Enum
from pathlib import Path
from typing import Any

import click

from backline.cli.flags import ModelCommand
from backline.cli.group import SuggestingGroup
from backline.cli.loading import load
from backline.cli.messages import warn
from backline.config.model_folder import read_model_folder
from backline.config.settings import OPTIONS
from backline.config.sources import Resolved
from backline.observe.redact import Redactor

# Settings hold no secrets but by mistake, or in a command for the backend; what is printed may be passed around.
_redact = Redactor()


@click.group(cls=SuggestingGroup)
def config() -> None:
    """Show the settings and where each comes from."""


@config.command(cls=ModelCommand, settings_of="all")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: value and source by section.key.")
@click.option("--changed", is_flag=True, help="Leave out what has its default.")
@click.pass_context
def show(ctx: click.Context, /, **values: Any) -> int:
    """Show every setting for the model in DIR: its value and its source.

    Takes the flags of backline serve, so that a whole command line can be looked at before it is run.
    """
    resolved = load(ctx, values)
    warn(read_model_folder(resolved.settings).warnings)
    shown = [option for option in OPTIONS if not values["changed"] or resolved.sources[option.dotted].kind != "default"]
    if values["as_json"]:
        document = {
            option.dotted: {
                "value": _without_secrets(_plain(resolved.value(option.dotted))),
                "source": resolved.sources[option.dotted].kind,
                "where": resolved.sources[option.dotted].name,
            }
            for option in shown
        }
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return 0
    rows = [
        (option.dotted, _redact(option.show(resolved.value(option.dotted))), _short_source(resolved, option.dotted))
        for option in shown
    ]
    _print_table(rows)
    return 0


def _short_source(resolved: Resolved, name: str) -> str:
    # The model directory is in the first row; a bare backline.toml:4 reads better than its path thirty times.
    return str(resolved.sources[name]).replace(f"{resolved.settings.model.code_dir}/", "")


def _without_secrets(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        # A secret may be the word after its flag.
        words = shlex.join(value)
        redacted = _redact(words)
        return value if redacted == words else shlex.split(redacted)
    return _redact(value) if isinstance(value, str) else value


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _print_table(rows: Iterable[tuple[str, str, str]]) -> None:
    """A table for a terminal; aligned columns, one line a setting, where the output goes into a pipe or a file."""
    rows = list(rows)
    header = ("setting", "value", "source")
    if not sys.stdout.isatty():
        widths = [max(len(row[column]) for row in (header, *rows)) for column in (0, 1)]
        for setting, value, source in (header, *rows):
            click.echo(f"{setting:<{widths[0]}}  {value:<{widths[1]}}  {source}".rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in header:
        table.add_column(name, overflow="fold", no_wrap=name == "setting")
    section = ""
    for setting, value, source in rows:
        if section and not setting.startswith(section):
            table.add_row()
        section = setting.partition(".")[0] + "."
        # Text rather than markup: a label may hold brackets.
        style = "dim" if source == "default" else ""
        table.add_row(Text(setting), Text(value, style=style), Text(source, style=style))
    Console().print(table)
