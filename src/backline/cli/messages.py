"""Errors and warnings for people, on standard error: what, where, how to mend."""

from __future__ import annotations

import difflib
import sys
import traceback
from collections.abc import Iterable

import click

from backline.errors import BacklineError, ModelLoadFailed, WorkerReported


def warn(messages: Iterable[str]) -> None:
    """Print each message as a warning."""
    for message in messages:
        click.echo(f"Warning: {message}", err=True)


def report_error(error: BaseException, *, show_traceback: bool) -> None:
    """Print an error: its message in three lines where it has them; the traceback only where it was asked for."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        click.echo("\nAborted.", err=True)
        return
    click.echo(describe(error), err=True)
    model_traceback = error.traceback if isinstance(error, ModelLoadFailed | WorkerReported) else None
    if model_traceback and show_traceback:
        click.echo(model_traceback.rstrip(), err=True)
    elif model_traceback:
        click.echo("  more:  run again with --show-stacktrace for the traceback of the model's code", err=True)
    if show_traceback and not isinstance(error, click.UsageError):
        traceback.print_exception(error, file=sys.stderr)


def describe(error: BaseException) -> str:
    """Return the text for an error."""
    what, where, mend = _pieces(error)
    lines = [f"Error: {what}"]
    if where:
        lines.append(f"  where: {where}")
    if mend:
        lines.append(f"  mend:  {mend}")
    return "\n".join(lines)


def similar(name: str, known: Iterable[str]) -> list[str]:
    """Return up to two names that look like ``name``, the nearest first."""
    return difflib.get_close_matches(name, list(known), n=2, cutoff=0.6)


def _pieces(error: BaseException) -> tuple[str, str, str]:
    if isinstance(error, BacklineError):
        if hasattr(error, "what"):  # a SettingError, see exit_codes
            return error.what, error.where, error.mend  # type: ignore[attr-defined]  # told by the line above
        return error.message, "", ""
    if isinstance(error, click.UsageError):
        return _usage_pieces(error)
    if isinstance(error, OSError):
        return error.strerror or str(error), str(error.filename or ""), ""
    return (
        f"{type(error).__name__}: {error}",
        "Backline itself",
        "this is a fault of ours; run again with --show-stacktrace and report what it prints",
    )


def _usage_pieces(error: click.UsageError) -> tuple[str, str, str]:
    command = error.ctx.command_path if error.ctx is not None else "backline"
    see = f"see {command} --help"
    if isinstance(error, click.NoSuchOption):
        near = similar(error.option_name, _visible_flags(error.ctx))
        return f"unknown flag {error.option_name}", command, f"did you mean {' or '.join(near)}?" if near else see
    if isinstance(error, click.BadOptionUsage):
        return error.message.rstrip("."), command, see
    if isinstance(error, click.MissingParameter):
        param = error.param
        name = max(param.opts, key=len) if isinstance(param, click.Option) else getattr(param, "metavar", "an argument")
        return f"{name} is missing", command, see
    mend = getattr(error, "mend", see)
    return error.message.rstrip("."), command, mend


def _visible_flags(ctx: click.Context | None) -> list[str]:
    params = ctx.command.get_params(ctx) if ctx is not None else []
    return [flag for param in params if isinstance(param, click.Option) and not param.hidden for flag in param.opts]


class CallError(click.UsageError):
    """A mistake in the command line that has its own mend."""

    def __init__(self, what: str, mend: str, ctx: click.Context | None = None) -> None:
        super().__init__(what, ctx)
        self.mend = mend
