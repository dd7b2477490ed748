"""Findings of checks, as a table on the terminal, as JSON and as a page."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from backline.cli.exit_codes import ExitCode
from backline.errors import ConfigError
from backline.report import html
from backline.trial.finding import Finding, Status, count_text, worst

_MOST_CASES, _MOST_NAMES = 10, 8
_WORDS = {Status.PASSED: "passed", Status.WARNING: "look at", Status.FAILED: "FAILED", Status.SKIPPED: "skipped"}
_COLOURS = {Status.PASSED: "green", Status.WARNING: "yellow", Status.FAILED: "red", Status.SKIPPED: "bright_black"}
_TONES: dict[Status, html.Tone] = {
    Status.PASSED: "good",
    Status.WARNING: "warn",
    Status.FAILED: "bad",
    Status.SKIPPED: "plain",
}


def print_findings(findings: Sequence[Finding], *, verbose: bool) -> None:
    """Print a line for each check, and below what has not passed its mend and its cases."""
    names = max(len(finding.check) for finding in findings)
    indent = " " * (names + 11)
    width = max(60, shutil.get_terminal_size((110, 24)).columns)
    for finding in findings:
        word = click.style(f"{_WORDS[finding.status]:<7}", fg=_COLOURS[finding.status])
        lines = _wrapped(finding.seen, width - len(indent))
        click.echo(f"{finding.check:<{names}}  {word}  {lines[0]}")
        for line in lines[1:]:
            click.echo(indent + line)
        if finding.mend:
            for place, line in enumerate(_wrapped(finding.mend, width - len(indent) - 6)):
                click.echo(f"{indent}{'mend: ' if not place else '      '}{line}")
        if finding.table is not None and (verbose or finding.status is Status.FAILED):
            _print_cases(finding, indent, width)
        if finding.text and (verbose or finding.check == "type schema"):
            click.echo(textwrap.indent(finding.text.rstrip(), indent))
    click.echo(f"\n{count_text(findings)}")


def _print_cases(finding: Finding, indent: str, width: int) -> None:
    """Print the cases that did not pass, those with the same to say in one line."""
    assert finding.table is not None
    cases: dict[tuple[str, ...], list[str]] = {}
    for first, *others in finding.table.rows:
        if "PASSED" not in others:
            cases.setdefault(tuple(each for each in others if each not in ("", "FAILED")), []).append(first)
    for told, firsts in list(cases.items())[:_MOST_CASES]:
        more = f" and {len(firsts) - _MOST_NAMES} more" if len(firsts) > _MOST_NAMES else ""
        text = f"{', '.join(firsts[:_MOST_NAMES])}{more}: {'  '.join(told)}"
        for place, line in enumerate(_wrapped(text, width - len(indent) - 2)):
            click.echo(f"{indent}{'  ' if place else '- '}{line}")
    if len(cases) > _MOST_CASES:
        click.echo(f"{indent}- and {len(cases) - _MOST_CASES} more; --html and --json have them all")


def _wrapped(text: str, width: int) -> list[str]:
    return [line for piece in text.splitlines() for line in textwrap.wrap(piece, width) or [""]] or [""]


def write_findings(
    findings: Sequence[Finding],
    *,
    title: str,
    facts: Sequence[tuple[str, str]],
    more: dict[str, Any],
    json_file: str | None,
    html_file: str | None,
) -> None:
    """Write the findings where they are wanted; ``-`` is standard output, for JSON. Raises ``ConfigError``."""
    if json_file is not None:
        document = {
            "status": worst(findings).value,
            **more,
            "findings": [finding.as_json() for finding in findings],
        }
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        if json_file == "-":
            sys.stdout.write(text)
        else:
            write_file("--json", json_file, text)
    if html_file is not None:
        write_file("--html", html_file, page_of(findings, title=title, facts=facts))


def page_of(findings: Sequence[Finding], *, title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Return the page: what was found in one line, a table, and each check with its cases."""
    status = worst(findings)
    rows = [
        (html.element("a", finding.check, href=f"#{_anchor(finding)}"), _badge(finding), finding.seen)
        for finding in findings
    ]
    parts = [
        html.verdict(count_text(findings), _TONES[status]),
        html.facts(facts),
        html.section("Checks", html.table(("check", "", "seen"), rows, id_="checks")),
    ]
    for finding in findings:
        pieces: list[object] = [html.paragraph(_badge(finding), " ", finding.seen)]
        if finding.mend:
            pieces.append(html.paragraph(html.element("strong", "Mend: "), finding.mend))
        if finding.table is not None:
            pieces.append(html.table(finding.table.head, finding.table.rows))
        if finding.text:
            pieces.append(html.code(finding.text))
        if len(pieces) > 1:
            parts.append(html.section(finding.check, *pieces, id_=_anchor(finding)))
    return html.page(title, *parts)


def _anchor(finding: Finding) -> str:
    return finding.check.replace(" ", "-")


def _badge(finding: Finding) -> html.Html:
    return html.badge(_WORDS[finding.status].lower(), _TONES[finding.status])


def write_file(flag: str, path: str, text: str) -> None:
    """Write a report. Raises ``ConfigError``."""
    try:
        Path(path).write_text(text, "utf-8", "backslashreplace")
    except OSError as exc:
        raise ConfigError(f"{flag} {path}: {exc.strerror or exc}") from exc


def exit_code_of(findings: Sequence[Finding]) -> ExitCode:
    """Return 1 where a check has failed."""
    return ExitCode.FAILURE if worst(findings) is Status.FAILED else ExitCode.OK
