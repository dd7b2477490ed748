"""From a command line to settings, with the warnings told on the way."""

from __future__ import annotations

from typing import Any

import click

from backline.cli.flags import take_model_arguments
from backline.cli.messages import warn
from backline.config.sources import Resolved, load_settings


def load(ctx: click.Context, values: dict[str, Any]) -> Resolved:
    """Take the model's arguments out of ``values`` and return the settings.

    Raises ``CallError`` or ``SettingError``.
    """
    arguments = take_model_arguments(ctx, values)
    warn(arguments.warnings)
    resolved = load_settings(arguments.directory, arguments.flags)
    warn(resolved.warnings)
    return resolved
