"""``backline serve``."""

from __future__ import annotations

from typing import Any

import click

from backline.cli.exit_codes import ExitCode
from backline.cli.flags import ModelCommand
from backline.cli.loading import load_for_server


@click.command(cls=ModelCommand, settings_of="serve")
@click.pass_context
def serve(ctx: click.Context, /, **values: Any) -> int:
    """Serve the model in DIR over HTTP until stopped.

    Settings are flags, environment variables (BACKLINE_WORKERS for --workers), backline.toml in DIR, and for target
    type and labels model-metadata.yaml; the first of these that says something wins. backline config show tells which.
    """
    folder = load_for_server(ctx, values)

    from backline.api.run import Outcome  # late: FastAPI is not needed to tell a mistake in a flag
    from backline.api.run import serve as run_server

    codes = {
        Outcome.STOPPED: ExitCode.OK,
        Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
        Outcome.FAILED: ExitCode.FAILURE,
    }
    return codes[run_server(folder.settings, folder)]
