"""``backline score``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Self

import click

from backline.cli.flags import ModelCommand
from backline.cli.loading import load
from backline.cli.messages import warn
from backline.config.model_folder import read_model_folder

_REPORT_SECONDS = 0.2


@click.command(cls=ModelCommand, settings_of="score")
@click.option("-i", "--input", "input_file", required=True, metavar="FILE", help="The file of rows to score.")
@click.option(
    "-o",
    "--output",
    "output_file",
    metavar="FILE",
    help="Where the predictions go: .csv, .json, .jsonl, .parquet or .arrow. Without it, CSV on standard output.",
)
@click.option(
    "--content-type", default="", metavar="TYPE", help="What the input is, where its name and content do not tell."
)
@click.option("--query", default="", metavar="QUERY", help="Unstructured: the query that the hook gets, as a=1&b=2.")
@click.pass_context
def score(ctx: click.Context, /, **values: Any) -> int:
    """Score a file with the model in DIR and write the predictions.

    The output appears under its name when it is complete: there is never half a file.
    """
    resolved = load(ctx, values)
    folder = read_model_folder(resolved.settings)
    warn(folder.warnings)

    from backline.batch.score import ScoreJob, score_file  # late: a mistake in a flag is told without it

    output = Path(values["output_file"]) if values["output_file"] is not None else None
    job = ScoreJob(
        input=Path(values["input_file"]),
        output=output,
        content_type=values["content_type"],
        query=values["query"],
    )
    started = time.monotonic()
    with _Progress() as progress:
        summary = score_file(resolved.settings, folder, job, progress.report)
    rows = summary.get("rows")
    scored = f"{rows:,} row{'' if rows == 1 else 's'}" if isinstance(rows, int) else job.input
    where = f" to {output}" if output is not None else ""
    click.echo(f"Scored {scored}{where} in {time.monotonic() - started:.1f} s", err=True)
    return 0


class _Progress:
    """One line on standard error that is written over as rows are done; nothing where that is no terminal."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last = 0.0
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._shown:
            click.echo("\r\x1b[K", nl=False, err=True)

    def report(self, progress: dict[str, Any]) -> None:
        """Show how far the work is; called by the worker's messages, at most five times a second."""
        if not self._terminal or time.monotonic() - self._last < _REPORT_SECONDS:
            return
        self._last, self._shown = time.monotonic(), True
        of = progress.get("of")
        rows = f" {progress.get('rows', 0):,} of {of:,} rows" if of else ""
        click.echo(f"\r\x1b[K{progress.get('stage', 'score')}{rows}", nl=False, err=True)
