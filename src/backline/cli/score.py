"""``backline score``."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from backline.cli.flags import ModelCommand
from backline.cli.loading import load
from backline.cli.messages import warn
from backline.config.model_folder import read_model_folder


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
    """A bar on standard error while rows are scored, gone afterwards; nothing where that is no terminal."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f} rows"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def report(self, progress: dict[str, Any]) -> None:
        """Show how far the work is; called with the worker's messages."""
        of = progress.get("of")
        if of is None:
            return
        if self._task is None:
            self._task = self._bar.add_task("predict", total=of)
        self._bar.update(self._task, completed=progress.get("rows", 0))
