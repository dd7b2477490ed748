"""What ``backline parity`` prints: the verdict, lists of calls, one call in full."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from backline.parity.detail import read_differences
from backline.parity.exchange import Answer, Call
from backline.parity.report import answer_text, body_text
from backline.parity.store import Side, Store
from backline.parity.summary import QUANTILES, Found, Summary, find_run, some_of_each
from backline.report.html import printable
from backline.report.plot import seconds_text

_WIDTH_WITHOUT_TERMINAL = 160
_MOST_FIELDS = 30
_MOST_DIFFERENCES = 10
_COLOURS = {"same": "green", "different": "red", "flaky": "yellow"}


def print_summary(summary: Summary) -> None:
    """Print the verdict with agreement, statuses, latency and the biggest differences."""
    console = _console()
    shown = [each for each in summary.fields if each.differing or each.unsettled] or summary.fields
    rows = [
        (
            each.name, f"{each.compared:,}", f"{each.differing:,}", f"{each.unsettled:,}",
            f"{100 * each.agreement:.2f} %",
            "" if each.largest is None else f"{each.largest:.6g}",
            "" if each.largest_relative is None else f"{each.largest_relative:.3g}",
        )
        for each in shown[:_MOST_FIELDS]
    ]  # fmt: skip
    head = ("field", "values", "different", "flaky", "agreement", "largest", "relative")
    _print(console, head, rows, right=range(1, 7))
    if len(summary.fields) > len(rows):
        same = len(summary.fields) - len(rows)
        console.print(Text(f"and {same} more fields", style="dim"))
    console.print()
    _print(
        console, ("statuses", "requests"),
        [(f"{a or 'no answer'} → {b or 'no answer'}", f"{count:,}") for a, b, count in summary.statuses], right=[1],
    )  # fmt: skip
    console.print()
    times: list[tuple[str, ...]] = []
    for side, latency in summary.latency.items():
        if latency is not None:
            times.append(
                (
                    side, f"{latency.count:,}",
                    *(f"{seconds_text(q.value)} ({seconds_text(q.low)} to {seconds_text(q.high)})"
                      for q in latency.quantiles),
                )
            )  # fmt: skip
    _print(console, ("latency", "answers", *(f"p{100 * share:g}" for share in QUANTILES)), times, right=range(1, 5))
    if summary.biggest:
        console.print()
        _print_biggest(console, some_of_each(summary.biggest)[:_MOST_DIFFERENCES])
    console.print()
    verdict = "same" if summary.is_same else "different"
    console.print(Text(summary.sentence(), style=f"bold {_COLOURS[verdict]}" if summary.requests else "bold"))


def print_calls(store: Store) -> None:
    """Print a line for every call, and one for every run."""
    count = 0
    for number, at, method, target, size, status, answer_size, seconds, error in store.overview():
        count += 1
        when = dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S") if at else "-"
        answered = "no answer" if status is None else f"{status or 'error'} {answer_size:,} B"
        took = "" if seconds is None else f" {seconds_text(seconds)}"
        click.echo(
            printable(
                f"{number:>6}  {when:<19}  {method:<6} {target[:100]}  {size:,} B → {answered}{took}{_why(error)}"
            )
        )
    for run in store.runs():
        verdicts: dict[str, int] = {}
        for each in store.verdicts(run.id):
            verdicts[each.verdict] = verdicts.get(each.verdict, 0) + 1
        told = ", ".join(f"{number:,} {name}" for name, number in sorted(verdicts.items())) or "nothing compared"
        where = " against ".join(
            str(run.settings.get(side, {}).get("where", "?")) for side in ("reference", "candidate")
        )
        click.echo(printable(f"run {run.id} ({run.kind}): {where}: {told}"))
    click.echo(f"{count:,} calls, {len(store.runs()):,} runs in {store.path}", err=True)


def print_verdicts(store: Store, number: int) -> None:
    """Print a line for every call that a run compared."""
    run = find_run(store, number)
    targets = {call: f"{method} {target}" for call, _, method, target, *_ in store.overview()}
    for each in store.verdicts(run.id):
        names = ", ".join(f"{name} ({count:,})" for name, count in each.detail.get("differing", {}).items())
        round_ = f"/{each.round + 1}" if each.round else ""
        click.echo(printable(f"{each.call:>6}{round_}  {each.verdict:<9}  {targets.get(each.call, '')[:80]}  {names}"))


def print_call(store: Store, number: int, call: Call) -> None:
    """Print one call in full, and what each run found about it."""
    request = call.request
    content_type = next((value for name, value in request.headers if name.lower() == "content-type"), "")
    lines = [f"{request.method} {request.target}", *(f"{name}: {value}" for name, value in request.headers), ""]
    lines += [body_text(request.body, content_type), ""]
    if call.answer is not None:
        lines += ["recorded answer", *_answer_lines(call.answer), ""]
    sides: tuple[Side, ...] = ("reference", "candidate", "again")
    for run in store.runs():
        for stored in store.verdicts(run.id):
            if stored.call != number:
                continue
            lines.append(f"run {run.id}, round {stored.round + 1}: {stored.verdict}")
            for each in read_differences(stored.detail):
                lines.append(f"  {each.path}: {each.kind}: {each.reference!r} → {each.candidate!r}")
            for side in sides:
                for answer in store.answers(number, side=side, run=run.id, round_=stored.round):
                    lines += [side, *_answer_lines(answer), ""]
    click.echo(printable("\n".join(lines).rstrip()))


def _answer_lines(answer: Answer) -> list[str]:
    took = "" if answer.seconds is None else f" in {seconds_text(answer.seconds)}"
    headers = [f"{name}: {value}" for name, value in answer.headers]
    return [f"{answer.status or 'no status'}{took}", *headers, "", answer_text(answer).partition("\n\n")[2]]


def _why(error: str | None) -> str:
    return f" ({error})" if error else ""


def _print_biggest(console: Console, found: Iterable[Found]) -> None:
    rows = [
        (
            f"#{each.call}", each.difference.path, each.difference.kind + (" (flaky)" if each.is_flaky else ""),
            _value(each.difference.reference), _value(each.difference.candidate),
        )
        for each in found
    ]  # fmt: skip
    _print(console, ("call", "where", "what", "reference", "candidate"), rows)


def _value(value: object) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:60] + "…"


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)


def _print(console: Console, head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    places = set(right)
    for place, name in enumerate(head):
        table.add_column(name, justify="right" if place in places else "left", overflow="fold")
    for row in rows:
        # Text rather than markup: what a server has answered may hold brackets, and control characters.
        table.add_row(*(Text(printable(cell)) for cell in row))
    console.print(table)
