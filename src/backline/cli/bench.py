"""``backline bench``."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backline.cli.exit_codes import ExitCode
from backline.cli.flags import ModelCommand, serve_words
from backline.cli.loading import load
from backline.cli.messages import CallError
from backline.config.problems import SettingError

if TYPE_CHECKING:
    from backline.bench.result import Change, Result, Step

_FAILED = 0.01


def _headers(ctx: click.Context, param: click.Parameter, values: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for value in values:
        name, colon, content = value.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not content.isprintable():
            raise click.BadParameter(f"expected 'Name: value', not {name!r}")  # the value may be a secret
        pairs.append((name, content.strip()))
    return tuple(pairs)


def _numbers(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[float, ...]:
    try:
        numbers = tuple(float(piece) for piece in (value or "").split(",") if piece.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r} is no list of numbers, such as 1,8,32") from None
    if any(not 0 < number < 1e6 for number in numbers):
        raise click.BadParameter(f"{value!r}: give numbers above 0")
    return numbers


@click.command(
    cls=ModelCommand,
    settings_of=("serve", "bench"),
    without=("log", "server.host", "server.port", "server.address", "workers.timeout", "server.url_prefix"),
    dir_metavar="DIR|URL",
)
@click.option(
    "-i",
    "--input",
    "input_file",
    required=True,
    metavar="FILE",
    help="A file with rows of this model: CSV, JSON records or JSON lines; with --rows 0 any file.",
)
@click.option("--path", default="/predict/", show_default=True, metavar="PATH", help="The route that is asked.")
@click.option(
    "--rows",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    metavar="N",
    help="Rows of a request; 0 sends the file as it is.",
)
@click.option("--content-type", default="", metavar="TYPE", help="What the input is, where its name does not tell.")
@click.option(
    "--header",
    "headers",
    multiple=True,
    callback=_headers,
    metavar="'NAME: VALUE'",
    help="A header of each request, such as a key.",
)
@click.option(
    "--clients",
    callback=_numbers,
    metavar="N,...",
    help="Closed loop: this many clients, each of which waits for its answer before it asks again.",
)
@click.option(
    "--rate",
    "rates",
    callback=_numbers,
    metavar="R,...",
    help="Open loop: this many requests a second, whatever comes of them; latency counts from when each was due.",
)
@click.option(
    "--sizes",
    is_flag=True,
    help="Growing bodies, one after another: 1 row 100 times, 0.1 MB 50 times, 10 MB 5 times, 50 MB once.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0.1, 86_400),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each load is put on.",
)
@click.option(
    "--warm-up",
    type=click.FloatRange(0, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How long each is put on before that, uncounted.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 86_400),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long an answer may take.",
)
@click.option(
    "--json", "json_file", metavar="FILE", help="Write the result as JSON, for --compare; - is standard output."
)
@click.option(
    "--html", "html_file", metavar="FILE", help="Write the result as a page with plots that needs no network."
)
@click.option("--compare", metavar="FILE", help="Hold the result against an earlier one, written with --json.")
@click.option(
    "--fail-slower",
    type=click.FloatRange(0),
    metavar="PERCENT",
    help="With --compare: exit with 1 where something is worse by more than this.",
)
@click.pass_context
def bench(ctx: click.Context, /, **values: Any) -> int:
    """Put load on the model in DIR, which is served for the run, or on any server at URL.

    Without --clients, --rate or --sizes the clients are doubled until more of them bring no more answers, and then 50 %
    and 80 % of the best rate are put on. Answers other than 2xx are counted as failed; the exit code is 1 where more
    than 1 % failed. The load generator runs on this machine, and the table says how much of a core it takes: near 100 %
    it is the generator that was measured.
    """
    own = {param: values.pop(param) for param in (
        "input_file", "path", "rows", "content_type", "headers", "clients", "rates", "sizes", "duration", "warm_up",
        "timeout", "json_file", "html_file", "compare", "fail_slower",
    )}  # fmt: skip
    if own["sizes"] and (own["clients"] or own["rates"]):
        raise CallError("--sizes is a load of its own", "leave --clients and --rate out", ctx)
    if own["fail_slower"] is not None and own["compare"] is None:
        raise CallError("--fail-slower has nothing to hold the result against", "name an earlier one by --compare", ctx)
    directory = values["directory"]
    url = directory if directory is not None and re.match(r"https?://", directory) else None

    if importlib.util.find_spec("httptools") is None:
        mend = f"{sys.executable} -m pip install httptools; uvicorn[standard] brings it"
        raise SettingError("backline bench needs httptools to read answers", where=sys.prefix, mend=mend)

    # Late: a mistake in a flag is told without them.
    from backline.bench.page import page, summary
    from backline.bench.result import compare, read_result
    from backline.bench.run import BenchJob, event_loop, measure
    from backline.cli.findings import write_file

    before = None if own["compare"] is None else read_result(Path(own["compare"]))
    folder = None
    words: tuple[str, ...] = ()
    if url is None:
        words = serve_words(ctx, values)
        folder = load(ctx, values).settings.model.code_dir
    job = BenchJob(
        input=Path(own["input_file"]),
        folder=folder,
        serve_flags=words,
        url=url,
        path="/" + own["path"].lstrip("/"),
        rows=own["rows"],
        content_type=own["content_type"],
        headers=own["headers"],
        clients=tuple(int(number) for number in own["clients"]),
        rates=own["rates"],
        sizes=own["sizes"],
        seconds=own["duration"],
        warm_up=own["warm_up"],
        timeout=own["timeout"],
    )
    printer = _Printer(quiet=own["json_file"] == "-")
    with asyncio.Runner(loop_factory=event_loop()) as runner:
        result = runner.run(measure(job, printer.tell, printer.step))
    changes = [] if before is None else compare(before, result)
    printer.end(summary(result), result, changes)
    if own["json_file"] == "-":
        sys.stdout.write(result.to_json() + "\n")
    elif own["json_file"] is not None:
        write_file("--json", own["json_file"], result.to_json() + "\n")
    if own["html_file"] is not None:
        write_file("--html", own["html_file"], page(result, changes, before))
    slower = own["fail_slower"]
    worse = slower is not None and any(_worsening(change) > slower for change in changes if change.verdict == "worse")
    return ExitCode.FAILURE if result.failed_share > _FAILED or worse else ExitCode.OK


def _worsening(change: Change) -> float:
    """Return by how many percent a figure is worse."""
    ratio = 1 / change.ratio if change.figure == "answers/s" and change.ratio else change.ratio
    return (ratio - 1) * 100


class _Printer:
    """Prints the table as it grows."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._printed_head = False
        self._terminal = sys.stderr.isatty()

    def tell(self, text: str) -> None:
        if self._terminal:
            click.echo(f"\r\x1b[K{text} ...", nl=False, err=True)

    def step(self, step: Step) -> None:
        from backline.bench.page import HEAD, row_of

        if self._terminal:
            click.echo("\r\x1b[K", nl=False, err=True)
        if self._quiet:
            return
        if not self._printed_head:
            self._printed_head = True
            click.echo(_line(HEAD))
        click.echo(_line(row_of(step)))
        if step.generator_cpu > 0.85:
            click.echo("  the load generator is at its limit: what was measured may be less than the server can do")
        statuses = {status: count for status, count in step.statuses.items() if not status.startswith("2")}
        if step.bad:
            told = ", ".join(
                f"{count:,} {'lost' if status == '0' else f'x {status}'}" for status, count in statuses.items()
            )
            unsent = f"{step.unsent:,} that were due had not been sent at the end" if step.unsent else ""
            click.echo(f"  not good: {'; '.join(filter(None, (told, unsent)))}")

    def end(self, summary: str, result: Result, changes: Sequence[Change]) -> None:
        from backline.bench.page import growth_text

        if self._quiet:
            return
        click.echo(f"\n{summary[:1].upper()}{summary[1:]}")
        click.echo(f"Memory: {growth_text(result)}")
        if changes:
            click.echo("\nCompared with the earlier run:")
        for change in changes:
            percent = f"{(change.ratio - 1) * 100:+.1f} %"
            click.echo(f"  {change.step:<18} {change.figure:<10} {percent:>9}  {change.verdict}")


def _line(cells: Sequence[str]) -> str:
    return f"{cells[0]:<18}" + "".join(f"{cell:>11}" for cell in cells[1:-1]) + f"{cells[-1]:>18}"
