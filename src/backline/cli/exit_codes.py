"""Exit codes, and which error ends with which: the one table.

Usage is how Backline was called: an unknown flag, a value out of range in a flag or an environment variable, a path
that is not there. Failure is everything found later: a file of the model folder that cannot be used, a model that
does not load, rows that cannot be scored.
"""

from __future__ import annotations

import enum

import click

from backline.errors import BacklineError


class ExitCode(enum.IntEnum):
    """What a shell sees."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_COMPARED = 3  # parity: neither the same nor different, as a comparison could not be made
    INTERRUPTED = 130  # 128 + SIGINT, as shells have it


def exit_code_for(error: BaseException) -> ExitCode:
    """Return the exit code for an error that ended a command."""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return ExitCode.INTERRUPTED
    if isinstance(error, click.UsageError):
        return ExitCode.USAGE
    # SettingError, asked for its mark rather than its class: config is imported only by the commands that need it.
    if isinstance(error, BacklineError) and getattr(error, "usage", False):
        return ExitCode.USAGE
    return ExitCode.FAILURE
