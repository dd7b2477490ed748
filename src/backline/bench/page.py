"""The result as one page with its plots, which needs no network."""

from __future__ import annotations

from collections.abc import Sequence

from backline.bench.result import SHARES, Change, Result, Step
from backline.report import html
from backline.report.plot import Axis, Line, line_plot, seconds_text


def page(result: Result, changes: Sequence[Change] = (), before: Result | None = None) -> str:
    """Return the page."""
    closed = [step for step in result.steps if step.kind == "closed"]
    opened = [step for step in result.steps if step.kind == "open"]
    parts = [
        html.verdict(summary(result), "good" if result.failed_share <= 0.01 else "bad"),
        html.facts(
            [
                ("target", result.target),
                ("requests", result.requests),
                ("measured", f"{result.started} on {result.machine}"),
                ("memory growth", growth_text(result)),
            ]
        ),
        html.section("Steps", html.table(HEAD, [row_of(step) for step in result.steps], align=_ALIGN, id_="steps")),
    ]
    if changes:
        rows = [
            (change.step, change.figure, _figure(change, change.before), _figure(change, change.after),
             f"{(change.ratio - 1) * 100:+.1f} %", html.badge(change.verdict, _TONES[change.verdict]))
            for change in changes
        ]  # fmt: skip
        head = ("load", "figure", f"before ({before.started if before else ''})", "now", "change", "")
        parts.append(html.section("Compared", html.table(head, rows, id_="changes")))
    if len(closed) > 1:
        parts.append(_closed_plots(closed))
    if opened:
        parts.append(_latency_plot(opened, "Latency at a rate, from when each request was due"))
    elif closed:
        parts.append(_latency_plot(closed[-4:], "Latency of clients that wait for their answers"))
    over_time = [Line(name=step.name, points=step.over_time) for step in result.steps if len(step.over_time) > 2]
    if over_time:
        parts.append(
            line_plot(
                "Answers a second, over each step",
                over_time[-4:],
                x=Axis(label="seconds", from_zero=True),
                y=Axis(label="answers/s", from_zero=True),
            )
        )
    if len(result.memory) > 2:
        mebibytes = 2**20
        parts.append(
            line_plot(
                "Memory of the server and of its workers, over the run",
                [
                    Line(name="workers", points=[(at, workers / mebibytes) for at, _, workers in result.memory]),
                    Line(name="server", points=[(at, server / mebibytes) for at, server, _ in result.memory]),
                ],
                x=Axis(label="seconds", from_zero=True),
                y=Axis(label="MiB", from_zero=True),
            )
        )
    return html.page(f"Load on {result.target}", *parts, subtitle=result.requests)


HEAD = ("load", "answers/s", *(f"p{share * 100:g}" for share in SHARES), "largest", "failed", "generator")
_ALIGN: list[html.Align] = ["left" if place == 0 else "right" for place in range(len(HEAD))]
_TONES: dict[str, html.Tone] = {"better": "good", "worse": "bad", "same": "plain"}


def row_of(step: Step) -> tuple[str, ...]:
    """Return a step's line of the table."""
    quantiles = (seconds_text(step.value(share)) for share in SHARES)
    cpu = f"{step.generator_cpu:.0%} of a core"
    return (step.name, f"{step.rate:,.1f}", *quantiles, seconds_text(step.largest), f"{step.bad:,}", cpu)


def summary(result: Result) -> str:
    """Return the result in one sentence."""
    if not result.steps:
        return "nothing was measured"
    closed = [step for step in result.steps if step.kind == "closed"]
    failed = f"; {result.failed_share:.1%} of the requests failed" if result.failed_share else ""
    if result.knee is not None and closed:
        best = max(closed, key=lambda step: step.rate)
        knee = next(step for step in closed if step.amount == result.knee)
        if knee is closed[-1]:
            return f"{best.rate:,.0f} answers/s with {knee.name}, and not yet at the knee{failed}"
        return (
            f"{best.rate:,.0f} answers/s at most; from {knee.name} on ({knee.rate:,.0f}/s, p99 "
            f"{seconds_text(knee.value(0.99))}) more of them only wait{failed}"
        )
    last = result.steps[-1]
    return f"{last.name}: {last.rate:,.0f} answers/s, p99 {seconds_text(last.value(0.99))}{failed}"


def growth_text(result: Result) -> str:
    """Return how memory grew, in words."""
    growth = result.bytes_per_minute
    if growth is None:
        return "not measured: the server does not say, or the run was too short"
    last = result.memory[-1]
    total = (last[1] + last[2]) / 2**20
    return f"{growth / 2**20:+.1f} MiB a minute, to {total:,.0f} MiB (server {last[1] / 2**20:,.0f})"


def _figure(change: Change, value: float) -> str:
    return f"{value:,.1f}" if change.figure == "answers/s" else seconds_text(value)


def _closed_plots(closed: Sequence[Step]) -> html.Html:
    clients = Axis(label="clients", logarithmic=True, ticks=[(step.amount, f"{step.amount:g}") for step in closed])
    return html.joined(
        [
            line_plot(
                "Answers a second, by clients that wait",
                [Line(name="answers/s", points=[(step.amount, step.rate) for step in closed])],
                x=clients,
                y=Axis(label="answers/s", from_zero=True),
            ),
            line_plot(
                "Latency, by clients that wait",
                [
                    Line(
                        name=f"p{share * 100:g}",
                        points=[(step.amount, step.value(share) * 1000) for step in closed],
                        band=[
                            (step.amount, step.quantiles[str(share)][1] * 1000, step.quantiles[str(share)][2] * 1000)
                            for step in closed
                            if str(share) in step.quantiles
                        ],
                    )
                    for share in (0.5, 0.99)
                ],
                x=clients,
                y=Axis(label="milliseconds", logarithmic=True),
            ),
        ]
    )


def _latency_plot(steps: Sequence[Step], title: str) -> html.Html:
    """Latency over the share of requests, drawn so that each nine has the same room."""
    ticks = [(1.0, "0 %"), (10.0, "90 %"), (100.0, "99 %"), (1000.0, "99.9 %"), (10_000.0, "99.99 %")]
    lines = [
        Line(name=step.name, points=[(1 / (1 - share), value * 1000) for share, value in step.curve if share < 1])
        for step in steps
    ]
    return line_plot(
        title, lines, x=Axis(label="share of the requests", logarithmic=True, ticks=ticks),
        y=Axis(label="milliseconds", logarithmic=True),
    )  # fmt: skip
