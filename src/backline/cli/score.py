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

_LINE_SECONDS = 10.0


@click.command(cls=ModelCommand, settings_of="score")
@click.option("-i", "--input", "input_file", required=True, metavar="FILE", help="The file of rows to score.")
@click.option(
    "-o",
    "--output",
    "output_file",
    metavar="FILE",
    help="Where the predictions go: .csv, .jsonl, .json, .parquet or .arrow, and .csv.gz, .csv.zst, .jsonl.gz or "
    ".jsonl.zst. Without it, CSV on standard output.",
)
@click.option("--resume", is_flag=True, help="Go on where an interrupted run of the same command stopped.")
@click.option(
    "--rejects",
    "rejects_file",
    metavar="FILE",
    help="Write rows that cannot be read, or that the model refuses, to this file as JSON lines, with the reason, and "
    "score the others. Without it the first such row ends the run.",
)
@click.option(
    "--content-type", default="", metavar="TYPE", help="What the input is, where its name and content do not tell."
)
@click.option("--query", default="", metavar="QUERY", help="Unstructured: the query that the hook gets, as a=1&b=2.")
@click.pass_context
def score(ctx: click.Context, /, **values: Any) -> int:
    """Score a file with the model in DIR and write the predictions.

    Where rows are independent, the file is scored in chunks, by one worker for each core if --workers does not say
    otherwise, and may be larger than memory. The output appears under its name when it is complete: there is never half
    a file.
    """
    resolved = load(ctx, values)
    folder = read_model_folder(resolved.settings)
    warn(folder.warnings)

    from backline.batch.score import ScoreJob, score_file  # late: a mistake in a flag is told without it

    def path(name: str) -> Path | None:
        return None if values[name] is None else Path(values[name])

    output, rejects = path("output_file"), path("rejects_file")
    job = ScoreJob(
        input=Path(values["input_file"]),
        output=output,
        content_type=values["content_type"],
        query=values["query"],
        resume=values["resume"],
        rejects=rejects,
        workers_given=resolved.sources["workers.count"].kind != "default",
    )
    started = time.monotonic()
    with _Progress() as progress:
        summary = score_file(resolved.settings, folder, job, progress.report, progress.tell)
    rows = summary.get("rows")
    scored = _rows(rows) if isinstance(rows, int) else str(job.input)
    where = f" to {output}" if output is not None else ""
    if resumed := summary.get("resumed_rows"):
        where += f", {resumed:,} of them before"
    click.echo(f"Scored {scored}{where} in {time.monotonic() - started:.1f} s", err=True)
    if rejects is not None:
        click.echo(f"Rejected {_rows(summary['rejected'])}, see {rejects}", err=True)
    return 0


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


class _Progress:
    """Shows how far the work is: a bar on a terminal, gone afterwards; a line every ten seconds elsewhere."""

    def __init__(self) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[rows]} rows  {task.fields[rate]} rows/s"),
            TimeRemainingColumn(),
        )
        self._console = Console(stderr=True)
        self._is_terminal = sys.stderr.isatty()
        self._bar = Progress(*columns, console=self._console, transient=True, disable=not self._is_terminal)
        self._task: TaskID | None = None
        self._stage = ""
        self._first = (0.0, 0, 0)  # time, rows and position when the stage began
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def tell(self, text: str) -> None:
        """Say something that is to stay."""
        self._bar.stop()
        click.echo(text[:1].upper() + text[1:], err=True)
        if self._task is not None:
            self._bar.start()

    def report(self, progress: dict[str, Any]) -> None:
        """Show how far the work is; called with the worker's messages."""
        of = progress.get("of")
        if not of:
            return
        rows, position = progress.get("rows", 0), progress.get("position", progress.get("rows", 0))
        now = time.monotonic()
        stage = "reading types" if progress["stage"] == "types" else "scoring"
        if stage != self._stage or rows < self._first[1]:
            self._stage = stage
            self._first = (now, rows, position)
            if stage == "reading types":
                self.tell(
                    "a column has another type than its beginning has; all is read for its types, then scored anew"
                )
        seconds = now - self._first[0]
        rate = (rows - self._first[1]) / seconds if seconds > 0 else 0.0
        if self._is_terminal:
            self._show(stage, position, of, rows, rate)
        elif now - self._last_line >= _LINE_SECONDS:
            self._last_line = now
            done = position - self._first[2]
            left = f", about {_span(seconds * (of - position) / done)} left" if done > 0 else ""
            click.echo(f"{stage}: {position / of:.0%}, {_rows(rows)}, {rate:,.0f} rows/s{left}", err=True)

    def _show(self, stage: str, position: int, of: int, rows: int, rate: float) -> None:
        fields: dict[str, Any] = {"rows": f"{rows:,}", "rate": f"{rate:,.0f}"}
        if self._task is None:
            self._task = self._bar.add_task(stage, total=of, **fields)
        self._bar.update(self._task, description=stage, completed=position, total=of, **fields)


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
