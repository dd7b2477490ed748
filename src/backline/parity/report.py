"""A run as one HTML file: the verdict, agreement by field, the biggest differences with all that was said, latency."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterable, Sequence
from typing import Any

from backline.parity.detail import read_differences
from backline.parity.exchange import Answer, Call, media_type
from backline.parity.store import Side, Store
from backline.parity.summary import QUANTILES, FieldSummary, Found, Summary, some_of_each
from backline.report.html import (
    Align,
    Html,
    Tone,
    badge,
    bar,
    code,
    details,
    element,
    facts,
    joined,
    page,
    paragraph,
    section,
    side_by_side,
    table,
    verdict,
)
from backline.report.plot import Axis, Line, line_plot, seconds_text
from backline.report.statistics import quantile

MOST_SHOWN = 50
"""How many requests are shown with their answers."""
MOST_LISTED = 1000
"""How many requests are listed in one line each."""
_MOST_BODY = 20_000  # characters of a body that is shown
_MOST_DIFFERENCES = 20
_TONES: dict[str, Tone] = {"same": "good", "different": "bad", "flaky": "warn"}
_SHARES = [0.0, *(number / 100 for number in range(1, 100)), 0.995, 0.999, 1.0]


def render_report(store: Store, summary: Summary) -> str:
    """Return the page."""
    tone: Tone = "plain" if not summary.requests else "good" if summary.is_same else "bad"
    picked = _picked(summary.biggest)
    return page(
        "Parity report",
        verdict(summary.sentence(), tone),
        _about(summary),
        section("Agreement by field", _fields(summary.fields), _ignored(summary), id_="fields"),
        section("Statuses", _statuses(summary), id_="statuses"),
        section("Latency", *_latency(store, summary), id_="latency"),
        section("Biggest differences", *_biggest(store, summary, picked), id_="differences"),
        section("Requests that differ", *_listed(store, summary), id_="requests"),
        subtitle=f"{_where(summary, 'reference')} against {_where(summary, 'candidate')}",
    )


def _where(summary: Summary, side: str) -> str:
    described = summary.run.settings.get(side, {})
    python = described.get("python")
    return f"{described.get('where', side)}{f' under {python}' if python else ''}"


def _about(summary: Summary) -> Html:
    run, rules = summary.run, summary.run.settings.get("rules", {})
    counts = summary.verdicts
    pairs: list[tuple[str, object]] = [
        ("Requests", f"{summary.requests:,}"),
        ("Same", element("span", f"{counts.get('same', 0):,}", id="same")),
        ("Different", element("span", f"{counts.get('different', 0):,}", id="different")),
        ("Flaky", element("span", f"{counts.get('flaky', 0):,}", id="flaky")),
        ("Reference", _where(summary, "reference")),
        ("Candidate", _where(summary, "candidate")),
        ("When", dt.datetime.fromtimestamp(run.at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")),
    ]
    if rules:
        pairs.append(("Tolerance", f"relative {rules['relative']:g}, absolute {rules['absolute']:g}"))
        pairs += [
            (f"… of {each['pattern']}", f"relative {each['relative']:g}, absolute {each['absolute']:g}")
            for each in rules["tolerances"]
        ]
        pairs.append(("Refusals", f"the same when their {rules['errors']} is"))
    return facts(pairs)


def _fields(fields: Sequence[FieldSummary]) -> Html:
    if not fields:
        return paragraph("Nothing was compared.")
    rows = [
        (
            each.name,
            bar(each.agreement, "bad" if each.differing else "warn" if each.unsettled else "good"),
            f"{_percent(each.agreement)}",
            f"{each.compared:,}",
            f"{each.differing:,}",
            f"{each.unsettled:,}" if each.unsettled else "",
            "" if each.largest is None else f"{each.largest:.6g}",
            "" if each.largest_relative is None else f"{each.largest_relative:.3g}",
        )
        for each in fields
    ]
    head = ("field", "", "agreement", "values", "different", "flaky", "largest", "relative")
    return table(head, rows, align=("left", "left", *_numbers(6)), id_="agreement")


def _numbers(count: int) -> tuple[Align, ...]:
    column: Align = "right"
    return (column,) * count


def _percent(share: float) -> str:
    # Never 100 % where something differs.
    return f"{100 * share:.2f} %" if share in (0.0, 1.0) or 0.00005 < share < 0.99995 else f"{100 * share:.5f} %"


def _ignored(summary: Summary) -> object:
    if not summary.ignored:
        return ""
    named = ", ".join(f"{name} ({count:,})" for name, count in sorted(summary.ignored.items()))
    return paragraph("Left out: ", named)


def _statuses(summary: Summary) -> Html:
    rows = [(_status(a), _status(b), f"{count:,}") for a, b, count in summary.statuses]
    return table(("reference", "candidate", "requests"), rows, align=("left", "left", "right"), id_="status-pairs")


def _status(status: int) -> str:
    return str(status) if status else "no answer"


def _latency(store: Store, summary: Summary) -> Iterable[Html]:
    rows = []
    lines = []
    for side, latency in summary.latency.items():
        if latency is None:
            rows.append((side, "not measured", *[""] * len(QUANTILES)))
            continue
        rows.append(
            (
                side,
                f"{latency.count:,}",
                *(
                    f"{seconds_text(each.value)} ({seconds_text(each.low)} to {seconds_text(each.high)})"
                    for each in latency.quantiles
                ),
            )
        )
        lines.append(_curve(side, store.seconds(summary.run.id, side)))
    head = ("side", "answers", *(f"p{100 * share:g} (95 % interval)" for share in QUANTILES))
    yield table(head, rows, align=("left", *_numbers(1 + len(QUANTILES))), id_="times")
    if lines:
        ticks = [(0.0, "0 %"), (0.25, "25 %"), (0.5, "50 %"), (0.75, "75 %"), (0.9, "90 %"), (1.0, "100 %")]
        yield line_plot(
            "Seconds to the whole answer, by the share of answers that took no longer",
            lines,
            x=Axis(label="share of answers", ticks=ticks),
            y=Axis(label="seconds", logarithmic=True),
        )


def _curve(name: str, ordered: Sequence[float]) -> Line:
    return Line(name=name, points=[(share, quantile(ordered, share)) for share in _SHARES])


def _picked(biggest: Sequence[Found]) -> list[tuple[int, int]]:
    """Return call and round of what is shown with its answers."""
    return list(dict.fromkeys((each.call, each.round) for each in some_of_each(biggest)))[:MOST_SHOWN]


def _biggest(store: Store, summary: Summary, picked: Sequence[tuple[int, int]]) -> Iterable[Html]:
    if not picked:
        yield paragraph("There are none.")
        return
    found = {(each.call, each.round): each for each in store.verdicts(summary.run.id) if each.verdict != "same"}
    for number, turn in enumerate(picked):
        stored = found.get(turn)
        call = store.call(turn[0])
        if stored is None or call is None:  # given up by a full store
            continue
        yield details(
            joined([badge(stored.verdict, _TONES[stored.verdict]), Html(" "), _title(turn, call)]),
            _differences(stored.detail),
            element("h4", "Request"),
            code(_request_text(call), most=_MOST_BODY),
            side_by_side(
                *((side.capitalize(), code(_answer_text(store, summary, turn, side), most=_MOST_BODY))
                  for side in _SIDES)
            ),
            is_open=number == 0,
        )  # fmt: skip


_SIDES: tuple[Side, ...] = ("reference", "candidate")


def _title(turn: tuple[int, int], call: Call) -> Html:
    round_ = f" round {turn[1] + 1}" if turn[1] else ""
    return element("span", f"#{turn[0]}{round_} {call.request.method} {call.request.target}")


def _differences(detail: Any) -> Html:
    shown = read_differences(detail)
    rows = [
        (
            each.path,
            each.kind,
            _value(each.reference, each.kind),
            _value(each.candidate, each.kind),
            "" if each.size is None else f"{each.size:.6g}",
            "" if each.relative is None else f"{each.relative:.3g}",
        )
        for each in shown[:_MOST_DIFFERENCES]
    ]
    drawn = table(
        ("where", "what", "reference", "candidate", "size", "relative"), rows, align=("left", "left", "left", "left",
                                                                                      "right", "right")
    )  # fmt: skip
    more = sum(detail.get("differing", {}).values()) - len(rows)
    return joined([drawn, paragraph(f"{more:,} more in this answer")]) if more > 0 else drawn


def _value(value: Any, kind: str) -> str:
    if value is None and kind in ("missing", "extra"):
        return "-"
    return value if isinstance(value, str) else json.dumps(value)


def _request_text(call: Call) -> str:
    request = call.request
    head = [f"{request.method} {request.target}", *(f"{name}: {value}" for name, value in request.headers)]
    content_type = next((value for name, value in request.headers if name.lower() == "content-type"), "")
    return "\n".join(head) + "\n\n" + body_text(request.body, content_type)


def _answer_text(store: Store, summary: Summary, turn: tuple[int, int], side: Side) -> str:
    answer = store.answer(turn[0], side=side, run=summary.run.id, round_=turn[1])
    return "not kept" if answer is None else answer_text(answer)


def answer_text(answer: Answer) -> str:
    """Return an answer as people read it."""
    head = f"{_status(answer.status)} {answer.header('content-type')}".strip()
    if answer.error is not None:
        head += f"\n{answer.error}"
    return f"{head}\n\n{body_text(answer.body, answer.header('content-type'))}"


def body_text(body: bytes, content_type: str) -> str:
    """Return a body as people read it; of what is no text its size."""
    media = media_type(content_type)
    if not body:
        return "(no body)"
    try:
        text = body[: 4 * _MOST_BODY].decode("utf-8", "strict" if len(body) <= 4 * _MOST_BODY else "ignore")
    except UnicodeDecodeError:
        return f"({len(body):,} bytes of {media or 'unknown type'})"
    if len(body) <= _MOST_BODY and (media.endswith("json") or text[:1] in "[{"):
        try:
            return json.dumps(json.loads(text), indent=1, ensure_ascii=False)
        except (ValueError, RecursionError):
            return text
    return text


def _listed(store: Store, summary: Summary) -> Iterable[Html]:
    total = sum(count for name, count in summary.verdicts.items() if name != "same")
    if not total:
        yield paragraph("There are none.")
        return
    calls = {number: (method, target) for number, _, method, target, *_ in store.overview()}
    rows: list[Sequence[object]] = []
    for each in store.verdicts(summary.run.id):
        if each.verdict == "same":
            continue
        method, target = calls.get(each.call, ("", ""))
        names = ", ".join(f"{name} ({count:,})" for name, count in each.detail.get("differing", {}).items())
        number = f"{each.call}" + (f" / {each.round + 1}" if each.round else "")
        rows.append((number, badge(each.verdict, _TONES[each.verdict]), f"{method} {target[:200]}", names[:400]))
        if len(rows) == MOST_LISTED:
            break
    yield table(("call", "verdict", "request", "fields that differ"), rows, align=("right",), id_="differing")
    if total > len(rows):
        yield paragraph(f"{total - len(rows):,} more are in the store: backline parity show lists them.")
