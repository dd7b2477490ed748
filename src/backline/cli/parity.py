"""``backline parity``: record what a server answers, replay it against another, read the verdict."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from backline.cli.exit_codes import ExitCode
from backline.cli.group import SuggestingGroup
from backline.cli.messages import CallError, report_error
from backline.errors import ConfigError

if TYPE_CHECKING:
    from backline.parity.exchange import Call
    from backline.parity.run import SideSpec
    from backline.parity.store import Store

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}


@click.group(
    cls=SuggestingGroup,
    context_settings=_CONTEXT,
    epilog="run and report end with 0 where nothing differs, 1 where something does, and 3 where nothing could be "
    "compared.",
)
def parity() -> None:
    r"""Prove that one server answers like another.

    \b
    backline parity record --target http://old:5000 --output calls.sqlite   record what the present server answers
    backline parity run --reference calls.sqlite --candidate churn          serve a model directory, replay, compare
    backline parity show calls.sqlite                                       list what was recorded
    """


def _could_not(command: Callable[..., int]) -> Callable[..., int]:
    """Have what keeps a comparison from being made end with an exit code of its own, as 1 says that answers differ."""

    @functools.wraps(command)
    def wrapped(*args: Any, **values: Any) -> int:
        try:
            return command(*args, **values)
        except BrokenPipeError:
            raise
        except (ConfigError, OSError) as error:
            report_error(error, show_traceback=False)
            return ExitCode.NOT_COMPARED

    return wrapped


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    del ctx, param
    if value is None:
        return None
    from backline.config.kinds import SIZE
    from backline.config.problems import ValueProblem

    try:
        size: int = SIZE.parse(value)
    except ValueProblem as exc:
        raise click.BadParameter(str(exc)) from exc
    if size < 1 << 16:
        raise click.BadParameter(f"{value} is too small; from 64KiB on")
    return size


def _headers(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, str]]:
    del ctx, param
    pairs = []
    for value in values:
        name, colon, content = value.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or re.search(r"[\r\n\x00]", content):
            raise click.BadParameter(f"expected 'Name: value', not {name!r}")  # the value may be a secret
        pairs.append((name, content.strip()))
    return pairs


def _pairs(separator: str, what: str) -> Callable[..., tuple[tuple[str, str], ...]]:
    def parse(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
        del ctx, param
        pairs = []
        for value in values:
            before, found, after = value.partition(separator)
            if not found or not before or not after:
                raise click.BadParameter(f"expected {what}, not {value!r}")
            pairs.append((before, after))
        return tuple(pairs)

    return parse


# record, import


@parity.command(epilog="Stop it with Ctrl-C or SIGTERM: what was answered is then in the file.")
@click.option("--target", required=True, metavar="URL", help="The server that requests are passed on to.")
@click.option("-o", "--output", required=True, metavar="FILE", help="The file that calls are added to.")
@click.option(
    "--address",
    default="127.0.0.1:8081",
    show_default=True,
    metavar="HOST:PORT",
    help="Where to listen; port 0 takes any free one.",
)
@click.option("--max-size", callback=_size, metavar="SIZE", help="The most that the file may hold, as 500MiB or 2GiB.")
@click.option(
    "--when-full",
    type=click.Choice(["oldest", "stop"]),
    default="oldest",
    show_default=True,
    help="At --max-size: drop the oldest calls, or record no more.",
)
@click.option(
    "--max-body",
    callback=_size,
    default="64MiB",
    show_default=True,
    metavar="SIZE",
    help="Calls whose bodies are larger pass, and are not recorded.",
)
@click.option(
    "--redact", multiple=True, metavar="NAME", help="A further header or query field to redact; * is any text."
)
@click.option("--keep", multiple=True, metavar="NAME", help="A header or query field to keep that would be redacted.")
@_could_not
def record(**values: Any) -> int:
    """Record what a server answers: a proxy before it that passes everything on unchanged.

    Point the clients at the proxy. Values of headers and query fields that carry secrets (Authorization, Cookie, names
    with key, token, secret, password, credential, signature) are not recorded; bodies are, as they are.
    """
    from backline.api.listen import listen
    from backline.config.kinds import BACKEND_URL, parse_address
    from backline.config.problems import ValueProblem
    from backline.parity.redaction import Redaction

    try:
        host, port = parse_address(values["address"])
    except ValueProblem as exc:
        raise click.BadParameter(str(exc), param_hint="--address") from exc
    try:
        target = BACKEND_URL.parse(values["target"])
    except ValueProblem as exc:
        raise click.BadParameter(str(exc), param_hint="--target") from exc
    with listen(host, port) as listener:
        from backline.api.recording import Recording
        from backline.api.recording import record as run_proxy

        recorded = run_proxy(
            Recording(
                target=target,
                output=Path(values["output"]),
                redaction=Redaction(more=values["redact"], keep=values["keep"]),
                max_bytes=values["max_size"],
                when_full=values["when_full"],
                max_body=values["max_body"],
            ),
            listener,
        )
    lost = f", {recorded.not_kept:,} not (too large, or cut off)" if recorded.not_kept else ""
    dropped = f", {recorded.dropped_oldest:,} of the oldest dropped" if recorded.dropped_oldest else ""
    click.echo(f"Recorded {_calls(recorded.kept)} to {values['output']}{lost}{dropped}", err=True)
    if recorded.failure is not None:
        raise ConfigError(recorded.failure)
    return ExitCode.OK


def _file_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option("--format", "format_", type=click.Choice(["jsonl", "har", "csv", "store"]),
                         help="What the requests' file is, where its name does not tell."),
            click.option("--path", default="/predict/", show_default=True, metavar="PATH",
                         help="The path of requests whose file does not say one."),
            click.option("--rows", type=click.IntRange(min=1), default=1, show_default=True, metavar="N",
                         help="CSV: how many rows make a request."),
            click.option("--bodies", is_flag=True, help="JSON lines: each line is the JSON body of a request."),
        )
    ):  # fmt: skip
        command = option(command)
    return command


def _read(file: str, values: dict[str, Any]) -> Iterator[Call]:
    from backline.parity.requests import Defaults, read_calls

    if not values["path"].startswith("/"):
        raise click.BadParameter("begins with a slash", param_hint="--path")
    defaults = Defaults(path=values["path"], rows=values["rows"], lines_are_bodies=values["bodies"])
    return read_calls(Path(file), defaults, format_=values["format_"])


@parity.command("import")
@click.argument("file", metavar="FILE")
@click.option("-o", "--output", required=True, metavar="FILE", help="The file that calls are added to.")
@_file_options
@_could_not
def import_(file: str, output: str, **values: Any) -> int:
    """Turn a file of requests into a file of calls: CSV rows, JSON lines, or a HAR that a browser has saved.

    A line of JSON lines is {"method": "POST", "path": "/predict/", "headers": {...}, "json": ...}, with body or
    body_base64 in the place of json; with "answer": {"status": 200, "json": ...} it can be the reference of a run.
    Secrets in headers are redacted as record does it.
    """
    import dataclasses

    from backline.parity.redaction import Redaction
    from backline.parity.store import Store

    redaction = Redaction()
    count = 0
    calls = _read(file, values)
    first = next(calls)  # before a file is made
    with Store.create(Path(output)) as store:
        for call in itertools.chain([first], calls):
            request = dataclasses.replace(
                call.request,
                headers=redaction.headers(call.request.headers),
                target=redaction.target(call.request.target),
            )
            answer = call.answer and dataclasses.replace(call.answer, headers=redaction.headers(call.answer.headers))
            store.add_call(dataclasses.replace(call, request=request, answer=answer))
            count += 1
        store.commit()
    click.echo(f"Imported {_calls(count)} to {output}", err=True)
    return ExitCode.OK


# run, report


def _report_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(
        (
            click.option("--html", metavar="FILE", help="Write the report as one HTML file that opens offline."),
            click.option("--junit", metavar="FILE", help="Write the verdicts as JUnit XML, a test case a request."),
            click.option("--json", "json_", metavar="FILE", help="Write the figures as JSON; - is standard output."),
        )
    ):
        command = option(command)
    return command


def _side_options(name: str, what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(
            (
                click.option(f"--{name}", required=True, metavar=what.partition(":")[0], help=what.partition(": ")[2]),
                click.option(f"--{name}-python", metavar="PATH",
                             help=f"The interpreter of the {name}'s environment, where it is a DIR."),
                click.option(f"--{name}-args", metavar="ARGS", callback=_words,
                             help=f"Further flags of backline serve for the {name}, where it is a DIR, in one word."),
                click.option(f"--{name}-header", multiple=True, callback=_headers, metavar="'NAME: VALUE'",
                             help=f"A header for every request to the {name}, as an authorization that was redacted."),
                click.option(f"--{name}-path", multiple=True, callback=_pairs("=", "/from=/to"), metavar="/FROM=/TO",
                             help=f"Ask the {name} for /TO where a recorded path begins with /FROM."),
            )
        ):  # fmt: skip
            command = option(command)
        return command

    return decorate


def _words(ctx: click.Context, param: click.Parameter, value: str | None) -> tuple[str, ...]:
    del ctx, param
    try:
        return tuple(shlex.split(value or ""))
    except ValueError as exc:
        raise click.BadParameter(f"cannot be split into words: {exc}") from exc


def _number(text: str, least: float = 0.0) -> float:
    try:
        value = float(text)
    except ValueError as exc:
        raise click.BadParameter(f"{text!r} is no number") from exc
    if not least <= value < float("inf"):
        raise click.BadParameter(f"{text} is not {least:g} or more")
    return value


def _tolerances(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[str, float, float]]:
    del ctx, param
    found = []
    for value in values:
        field, equals, bounds = value.rpartition("=")
        numbers = [_number(each) for each in bounds.split(",")]
        if len(numbers) > 2:
            raise click.BadParameter(f"expected [FIELD=]RELATIVE[,ABSOLUTE], not {value!r}")
        if equals and not field:
            raise click.BadParameter(f"no field stands before the = in {value!r}")
        found.append((field, numbers[0], numbers[1] if len(numbers) == 2 else 0.0))
    return found


def _status_pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> list[tuple[int, int]]:
    pairs = _pairs("=", "two statuses as 400=422")(ctx, param, values)
    try:
        return [(int(a), int(b)) for a, b in pairs]
    except ValueError as exc:
        raise click.BadParameter("expected two statuses as 400=422") from exc


@parity.command()
@_side_options("reference", "URL|DIR|FILE: Who is right: a server that runs, a model directory, or recorded answers.")
@_side_options("candidate", "URL|DIR: The server that is to answer like it.")
@click.option("--requests", metavar="FILE", help="What to ask: recorded calls, JSON lines, HAR or CSV. Without it, the "
              "reference's own FILE.")  # fmt: skip
@_file_options
@click.option("--concurrency", type=click.IntRange(1, 1000), default=4, show_default=True, metavar="N",
              help="How many requests are under way at a time.")  # fmt: skip
@click.option("--order", type=click.Choice(["recorded", "random"]), default="recorded", show_default=True,
              help="In which order they are sent.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, metavar="N", help="Which random order.")
@click.option("--repeat", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N",
              help="How often each is sent.")  # fmt: skip
@click.option("--timeout", default="60", show_default=True, metavar="SECONDS", help="How long an answer may take.")
@click.option("--ask-again", type=click.IntRange(0, 100), default=1, show_default=True, metavar="N",
              help="How often the reference is asked again where answers differ: what it does not answer the same "
              "twice is flaky, and no difference.")  # fmt: skip
@click.option("--tolerance", multiple=True, callback=_tolerances, metavar="[FIELD=]REL[,ABS]",
              help="How far numbers may lie apart, of a field or of all: relative to the larger, or absolute. "
              "[default: 1e-9,1e-12]")  # fmt: skip
@click.option("--ignore", multiple=True, metavar="FIELD", help="A field that does not count.")
@click.option("--no-default-ignores", is_flag=True, help="Compare names of requests and times, too.")
@click.option("--set", "unordered", multiple=True, metavar="FIELD", help="A list whose order does not count.")
@click.option("--exact-types", is_flag=True, help="Tell 1 from 1.0, and the widths of Arrow's and Parquet's numbers.")
@click.option("--any-column-order", is_flag=True, help="Take tables as the same whose columns stand in another order.")
@click.option("--any-content-type", is_flag=True, help="Compare only what answers say, not as what.")
@click.option("--errors", type=click.Choice(["class", "status", "body"]), default="class", show_default=True,
              help="Two refusals are the same by class (4xx, 5xx), by status, or by status and body.")  # fmt: skip
@click.option("--same-status", multiple=True, callback=_status_pairs, metavar="A=B",
              help="Count status A of the reference and B of the candidate as one.")  # fmt: skip
@click.option("--store", metavar="FILE", help="Keep requests, answers and verdicts in this file, for show and report.")
@_report_options
@click.pass_context
@_could_not
def run(ctx: click.Context, /, **values: Any) -> int:
    """Replay requests against two servers, compare their answers by meaning, and say whether they are the same.

    A model directory is served for the run by Backline, each side under its own --...-python: so two environments of
    one model can be held against each other. Fields are written $.predictions[*].yes, with * for any text; a name alone
    stands for every field of that name. Requests are really sent: a chat that costs money costs it again.
    """
    from backline.parity.run import Job, SideSpec, check_side, run_parity

    sides = {
        name: SideSpec(
            where=values[name], python=values[f"{name}_python"], flags=values[f"{name}_args"],
            headers=tuple(values[f"{name}_header"]), paths=values[f"{name}_path"],
        )
        for name in ("reference", "candidate")
    }  # fmt: skip
    check_side(sides["reference"], "reference", may_be_file=True)
    check_side(sides["candidate"], "candidate", may_be_file=False)
    with _store_for_run(values["store"]) as store_path:
        calls = _calls_for_run(ctx, sides["reference"], store_path, values)
        job = Job(
            reference=sides["reference"],
            candidate=sides["candidate"],
            calls=calls,
            store=store_path,
            rules=_rules(values),
            plan=_plan(values),
            again=values["ask_again"],
        )
        from backline.cli.progress import StageProgress

        with StageProgress() as progress:
            number = asyncio.run(run_parity(job, progress.report))
        return _finish(store_path, number, values)


def _plan(values: dict[str, Any]) -> Any:
    from backline.parity.replay import Plan

    return Plan(
        concurrency=values["concurrency"],
        repeat=values["repeat"],
        order=values["order"],
        seed=values["seed"],
        timeout=_number(values["timeout"], 0.001),
    )


def _rules(values: dict[str, Any]) -> Any:
    from backline.parity.compare import Rules, Tolerance
    from backline.parity.compare.rules import IGNORED

    general = [(relative, absolute) for field, relative, absolute in values["tolerance"] if not field]
    if len(general) > 1:
        raise click.BadParameter("is given twice for all fields", param_hint="--tolerance")
    usual = Rules()
    relative, absolute = general[0] if general else (usual.relative, usual.absolute)
    return Rules(
        relative=relative,
        absolute=absolute,
        tolerances=tuple(
            Tolerance(pattern=field, relative=a, absolute=b) for field, a, b in values["tolerance"] if field
        ),
        ignored=(*(() if values["no_default_ignores"] else IGNORED), *values["ignore"]),
        unordered=values["unordered"],
        exact_types=values["exact_types"],
        column_order=not values["any_column_order"],
        content_types=not values["any_content_type"],
        errors=values["errors"],
        same_statuses=tuple(values["same_status"]),
    )


@contextlib.contextmanager
def _store_for_run(given: str | None) -> Iterator[Path]:
    if given is not None:
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="backline-parity-") as folder:
        yield Path(folder) / "run.sqlite"


def _calls_for_run(
    ctx: click.Context, reference: SideSpec, store: Path, values: dict[str, Any]
) -> Iterator[Call] | None:
    """Return the requests, or ``None`` where the run's own store has them."""
    file = values["requests"]
    if not reference.is_url and not reference.is_folder:
        if file is not None:
            raise CallError("recorded answers belong to the requests in their own file", "leave out --requests", ctx)
        file = reference.where
    if file is None:
        raise CallError(
            "--requests is missing", "name the file of requests to replay; backline parity record makes one", ctx
        )
    if store.exists() and Path(file).exists() and store.samefile(file):
        return None
    if store.exists() and store.stat().st_size:
        raise CallError(
            f"--store {store} exists", "name a new file, or the one of the requests to keep the run beside them", ctx
        )
    return _read(file, values)


@parity.command()
@click.argument("file", metavar="FILE")
@click.option("--run", "number", type=int, metavar="N", help="Which run of the file; the last without it.")
@_report_options
@_could_not
def report(file: str, number: int | None, **values: Any) -> int:
    """Read a run's verdict from the file that it was kept in; a shadow's, too."""
    return _finish(Path(file), number, values)


def _finish(store_path: Path, number: int | None, values: dict[str, Any]) -> int:
    """Write the reports that were asked for, print the verdict and return the exit code."""
    from backline.parity.store import Store
    from backline.parity.summary import find_run, summarize, to_json

    with Store.open(store_path) as store:
        summary = summarize(store, find_run(store, number))
        if values["html"] is not None:
            from backline.parity.report import render_report

            Path(values["html"]).write_text(render_report(store, summary), encoding="utf-8")
        if values["junit"] is not None:
            from backline.parity.junit import write_junit

            write_junit(store, summary, Path(values["junit"]))
    if values["json_"] is not None:
        text = json.dumps(to_json(summary), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        if values["json_"] == "-":
            click.echo(text, nl=False)
        else:
            Path(values["json_"]).write_text(text, encoding="utf-8", errors="backslashreplace")
    if values["json_"] != "-":
        from backline.cli.parity_tables import print_summary

        print_summary(summary)
    if not summary.requests:
        raise ConfigError("nothing was compared")
    return ExitCode.OK if summary.is_same else ExitCode.FAILURE


# show


@parity.command()
@click.argument("file", metavar="FILE")
@click.option("--call", "number", type=int, metavar="N", help="Show one call in full, with what runs found about it.")
@click.option("--run", "run_number", type=int, metavar="N", help="List what a run found, call by call.")
@click.option("--body", type=click.Choice(["request", "answer"]), help="With --call: write this body alone, as it is.")
@_could_not
def show(file: str, number: int | None, run_number: int | None, body: str | None) -> int:
    """List the calls and runs in a file, or show one call in full."""
    from backline.cli import parity_tables as tables
    from backline.parity.store import Store

    if body is not None and number is None:
        raise click.BadParameter("needs --call", param_hint="--body")
    with Store.open(Path(file)) as store:
        if number is not None:
            _show_call(store, number, body)
        elif run_number is not None:
            tables.print_verdicts(store, run_number)
        else:
            tables.print_calls(store)
    return ExitCode.OK


def _show_call(store: Store, number: int, body: str | None) -> None:
    from backline.cli import parity_tables as tables

    call = store.call(number)
    if call is None:
        raise ConfigError(f"{store.path}: holds no call {number}; backline parity show {store.path} lists them")
    if body is None:
        tables.print_call(store, number, call)
        return
    if body == "answer" and call.answer is None:
        raise ConfigError(f"{store.path}: call {number} has no recorded answer")
    content = call.request.body if body == "request" or call.answer is None else call.answer.body
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _calls(count: int) -> str:
    return f"{count:,} call{'' if count == 1 else 's'}"
