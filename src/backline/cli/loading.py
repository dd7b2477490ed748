"""From a command line to settings, with the warnings told on the way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from backline.cli.flags import ModelArguments, take_model_arguments
from backline.cli.messages import warn
from backline.config.model_folder import ModelFolder, no_folder, read_model_folder, unusable_folder
from backline.config.problems import SettingError
from backline.config.sources import Resolved, load_error_server_settings, load_settings


def load(ctx: click.Context, values: dict[str, Any]) -> Resolved:
    """Take the model's arguments out of ``values`` and return the settings.

    Raises ``CallError`` or ``SettingError``.
    """
    return _load(take_model_arguments(ctx, values))


def load_for_server(ctx: click.Context, values: dict[str, Any]) -> tuple[ModelFolder, Callable[[], ModelFolder]]:
    """Return the model folder with its settings, and how to read both again; for a sidecar an empty one.

    With ``--with-error-server`` one that cannot be read only knows its problem.

    Raises ``CallError`` or ``SettingError``.
    """
    arguments = take_model_arguments(ctx, values)

    def read_again() -> ModelFolder:
        return _read_folder(load_settings(arguments.directory, arguments.flags))

    try:
        folder = _read_folder(_load(arguments))
    except SettingError as problem:
        fallback = load_error_server_settings(arguments.directory, arguments.flags)
        if fallback is None:
            raise
        # The extension file may hold who is let in: it is wanted also where there is nothing but an error to tell.
        folder = dataclasses.replace(unusable_folder(fallback, problem), server_code=fallback.model.code_dir)
    return folder, read_again


def _read_folder(resolved: Resolved) -> ModelFolder:
    settings = resolved.settings
    named = resolved.sources["model.code_dir"].kind != "derived"
    folder = read_model_folder(settings) if named and not settings.backend.sidecar else no_folder(settings)
    return dataclasses.replace(folder, server_code=settings.model.code_dir if named else None)


def _load(arguments: ModelArguments) -> Resolved:
    warn(arguments.warnings)
    resolved = load_settings(arguments.directory, arguments.flags)
    warn(resolved.warnings)
    return resolved
