"""``backline doctor``."""

from __future__ import annotations

import os
from typing import Any

import click

from backline.cli.exit_codes import ExitCode
from backline.cli.findings import exit_code_of, print_findings, write_findings
from backline.cli.flags import ModelCommand
from backline.cli.loading import load
from backline.config.model_folder import read_model_folder


@click.command(cls=ModelCommand, settings_of=("serve", "validate"), without=("batch", "log.access"))
@click.option("--json", "json_file", metavar="FILE", help="Write the findings as JSON; - is standard output.")
@click.option("--html", "html_file", metavar="FILE", help="Write the findings as a page that needs no network.")
@click.option("--strict", is_flag=True, help="Exit with 1 for what is only worth a look, too.")
@click.pass_context
def doctor(ctx: click.Context, /, **values: Any) -> int:
    """Look at what the model in DIR would be served on, without loading it.

    Its environment and packages against those that it was trained with and asks for, threads and workers against
    cores, shared memory and temporary space, the port, extension files and what else lies in the directory. Each
    finding comes with its mend. Takes the flags of backline serve; the exit code is 1 where a check has failed.
    """
    resolved = load(ctx, values)
    folder = read_model_folder(resolved.settings)

    from backline.trial.doctor import diagnose  # late: a mistake in a flag is told without it
    from backline.trial.finding import Status, worst

    findings = diagnose(folder, os.environ)
    if values["json_file"] != "-":
        print_findings(findings, verbose=resolved.settings.log.level == "debug")
    write_findings(
        findings,
        title=f"Doctor on {folder.settings.model.code_dir.name}",
        facts=[("model directory", str(folder.settings.model.code_dir))],
        more={},
        json_file=values["json_file"],
        html_file=values["html_file"],
    )
    if values["strict"] and worst(findings) is Status.WARNING:
        return ExitCode.FAILURE
    return exit_code_of(findings)
