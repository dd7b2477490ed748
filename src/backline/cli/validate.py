"""``backline validate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click

from backline.cli.findings import exit_code_of, print_findings, write_findings
from backline.cli.flags import ModelCommand
from backline.cli.loading import load
from backline.cli.messages import CallError, warn
from backline.config.model_folder import read_model_folder

if TYPE_CHECKING:
    from backline.config.model_folder import ModelFolder

_METADATA = "model-metadata.yaml"


@click.command(cls=ModelCommand, settings_of=("score", "validate"), without=("score", "workers.count"))
@click.option(
    "-i",
    "--input",
    "input_file",
    metavar="FILE",
    help="A file with rows of this model: CSV, JSON records or "
    "JSON lines. Without it the file that model.example or validation.input of the directory names.",
)
@click.option(
    "--rows",
    type=click.IntRange(1, 10_000),
    default=100,
    show_default=True,
    metavar="N",
    help="How many rows of the sample are tried.",
)
@click.option("--content-type", default="", metavar="TYPE", help="What the input is, where its name does not tell.")
@click.option("--json", "json_file", metavar="FILE", help="Write the findings as JSON; - is standard output.")
@click.option("--html", "html_file", metavar="FILE", help="Write the findings as a page that needs no network.")
@click.option("--write-schema", is_flag=True, help="Add the type schema that is offered to model-metadata.yaml.")
@click.pass_context
def validate(ctx: click.Context, /, **values: Any) -> int:
    """Try the model in DIR on a sample of its rows before it is served.

    Does it load and answer, the same twice, the same for any subset and order of the rows and for batched requests?
    What happens when a column is empty, missing or of another type? Do its pickles name what they should not, and are
    the packages there that it imports? The exit code is 1 where a check has failed.
    """
    resolved = load(ctx, values)
    folder = read_model_folder(resolved.settings)
    warn(folder.warnings)
    sample = _sample(ctx, folder, values["input_file"])

    from backline.trial.validate import ValidateJob, validate  # late: a mistake in a flag is told without it

    job = ValidateJob(
        input=sample,
        content_type=values["content_type"],
        rows=values["rows"],
        allow=resolved.settings.validate.allow,
        seconds=resolved.settings.workers.timeout if resolved.sources["workers.timeout"].kind != "default" else 60.0,
    )
    with _Status() as status:
        report = validate(folder, job, status.tell)
    if values["json_file"] != "-":
        print_findings(report.findings, verbose=resolved.settings.log.level == "debug")
    facts = [
        ("model directory", str(folder.settings.model.code_dir)),
        ("interpreter", f"{folder.settings.workers.python}, Python {report.model.get('python', 'unknown')}"),
        ("sample", report.sample or str(sample)),
    ]
    write_findings(
        report.findings,
        title=f"Validation of {folder.settings.model.code_dir.name}",
        facts=facts,
        more={"model": report.model, "sample": report.sample, "type_schema": report.schema},
        json_file=values["json_file"],
        html_file=values["html_file"],
    )
    if values["write_schema"]:
        _write_schema(folder, report.schema)
    return exit_code_of(report.findings)


def _sample(ctx: click.Context, folder: ModelFolder, given: str | None) -> Path:
    if given is not None:
        return Path(given)
    if folder.metadata.validation_input is not None:
        return folder.settings.model.code_dir / folder.metadata.validation_input
    if folder.settings.model.example is not None:
        return folder.settings.model.example
    raise CallError("there is no sample to try the model on", "name a file of rows with --input", ctx)


def _write_schema(folder: ModelFolder, schema: str) -> None:
    path = folder.settings.model.code_dir / _METADATA
    if not schema:
        click.echo("No type schema was written: none was inferred", err=True)
    elif "typeSchema" in folder.raw_metadata:
        click.echo(f"No type schema was written: {path} has one; compare it with the one above", err=True)
    elif not path.is_file():
        click.echo(f"No type schema was written: there is no {path} to add it to", err=True)
    else:
        text = path.read_text("utf-8")
        path.write_text(f"{text.rstrip()}\n{schema}", "utf-8")
        click.echo(f"Added the type schema to {path}", err=True)


class _Status:
    """Says on a terminal which check is being made."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)

    def tell(self, check: str) -> None:
        if self._terminal:
            click.echo(f"\r\x1b[K{check} ...", nl=False, err=True)
