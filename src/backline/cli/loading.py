"""From a command line to settings, with the warnings told on the way."""

from __future__ import annotations

from typing import Any

import click

from backline.cli.flags import ModelArguments, take_model_arguments
from backline.cli.messages import warn
from backline.config.model_folder import ModelFolder, read_model_folder, unusable_folder
from backline.config.problems import SettingError
from backline.config.sources import Resolved, load_error_server_settings, load_settings


def load(ctx: click.Context, values: dict[str, Any]) -> Resolved:
    """Take the model's arguments out of ``values`` and return the settings.

    Raises ``CallError`` or ``SettingError``.
    """
    return _load(take_model_arguments(ctx, values))


def load_for_server(ctx: click.Context, values: dict[str, Any]) -> ModelFolder:
    """Return the model folder with its settings, or with ``--with-error-server`` one that only knows its problem.

    Raises ``CallError`` or ``SettingError``.
    """
    arguments = take_model_arguments(ctx, values)
    try:
        return read_model_folder(_load(arguments).settings)
    except SettingError as problem:
        settings = load_error_server_settings(arguments.directory, arguments.flags)
        if settings is None:
            raise
        return unusable_folder(settings, problem)


def _load(arguments: ModelArguments) -> Resolved:
    warn(arguments.warnings)
    resolved = load_settings(arguments.directory, arguments.flags)
    warn(resolved.warnings)
    return resolved
