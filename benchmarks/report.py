"""Writes ``docs/benchmarks.md``, its plots and the raw lines beside it, from the results."""

from __future__ import annotations

import collections
import json
import re
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import profile_request
from benchmarks.aims import AIMS, SCORE, Outcome, median, outcome
from benchmarks.contenders import BARE_LOOP, CONTENDERS
from benchmarks.environments import HERE
from benchmarks.scenarios import GROWTH_CLIENTS, GROWTH_CONTENDERS, LEVERS, SCENARIOS

Line = dict[str, Any]
Lines = list[Line]
Plot = dict[str, Any]

_NONE = "–"  # noqa: RUF001 - a dash, as print has it
_SPREAD = 1.25  # rounds that differ by more are marked
_PAGE = "benchmarks.md"
_FOLDER = "benchmarks"
_RAW = "results.jsonl"
_SCORE_RAW = "score.jsonl"
_WHOLE_RUNS = ("compare", "growth", "undisturbed")  # the scenarios of score.py that are not cut short


def write(lines: Lines, *, score_lines: Lines, docs: Path, notes: str, plot_python: Path | None) -> None:
    """Write the page; ``plot_python``: an interpreter with matplotlib, ``None`` for no plots."""
    folder = docs / _FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    plots = [] if plot_python is None else plots_of(lines, score_lines)
    if plot_python is not None:
        command = [plot_python, HERE / "plots.py", folder]
        subprocess.run(command, input=json.dumps(plots), text=True, check=True)
    for name, kept in ((_RAW, lines), (_SCORE_RAW, score_lines)):
        if kept:
            (folder / name).write_text("".join(json.dumps(line) + "\n" for line in kept))
    (docs / _PAGE).write_text(page(lines, score_lines, notes, plots))


def page(lines: Lines, score_lines: Lines, notes: str, plots: Sequence[Plot]) -> str:
    """Return the page as Markdown, one section for each question; those without results are left out."""
    sections = [
        _head(lines),
        _section("Aims", _aims([*lines, *_compared(score_lines)], notes)),
        _section("Under load", _loads(lines)),
        _section("Start, memory, one large request", _starts(lines)),
        _section("Every answer checked", _checked(lines)),
        _section("How it grows with the number of clients", _growth(lines, plots)),
        _section("Beside a client that sends broken rows", _broken(lines)),
        _section("What each lever gives", _levers(lines)),
        _section("Where the time of one request goes", _profile(lines)),
        _section("Scoring files", _score(score_lines, plots)),
        _section("Failed", _failures(lines)),
        _section("Versions", _versions(lines)),
        _section("How to repeat it", _HOW.splitlines()),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


_HOW = """\
[`benchmarks/README.md`](../benchmarks/README.md) has the details.
From the project's root, on a machine that does nothing else:

<!-- not run: takes hours, and environments of all contenders -->
```sh
python -m benchmarks setup
python -m benchmarks run
python -m benchmarks profile
python -m benchmarks report
```"""


def _section(title: str, body: list[str]) -> list[str]:
    return [f"## {title}", "", *body] if body else []


def _head(lines: Lines) -> list[str]:
    dates = sorted(line["date"][:16].replace("T", " ") for line in lines)
    machines = sorted({line["machine"] for line in lines})
    rounds = [len({line["round"] for line in lines if line["scenario"] == name}) for name in SCENARIOS]
    seconds = sorted({line["measured_for"] for line in lines if "measured_for" in line})
    return [
        "# Benchmarks",
        "",
        "Backline beside its peers, on the same work, in one run.",
        "Machines drift, by a factor of two on a bad day: compare figures within this page, never across runs.",
        "",
        f"- Measured {dates[0]} to {dates[-1]} UTC, on: {'; '.join(machines)}.",
        f"- Medians over the rounds: {_range([count for count in rounds if count])}, of {_range(seconds)} s each.",
        "  Every contender is measured in each round, and the order is turned round from one to the next.",
        "- Load: wrk with one thread, connections that each wait for their answer, on the same cores as the server.",
        "- Every contender serves the same artifact, in the body format that it takes natively.",
        "  Its answers to 1, 100 and 100,000 rows are compared with the library's before they are counted.",
        f"- The raw figures are [here]({_FOLDER}/{_RAW}), one line of JSON each.",
    ]


def _range(values: Sequence[float]) -> str:
    low, high = min(values, default=0), max(values, default=0)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


# --- the aims


def _aims(lines: Lines, notes: str) -> list[str]:
    outcomes = {name: found for name, aim in AIMS.items() if (found := outcome(aim, lines)) is not None}
    if not outcomes:
        return []
    rows = [_aim_row(found) for found in outcomes.values()]
    table = _table(["work", "Backline", "compared with", "", "ratio", "aim", ""], rows, numbers=(1, 3, 4))
    said = _notes_by_heading(notes)
    missed = []
    for name, found in outcomes.items():
        if found.met is False:
            missed += [f"- **{found.aim.work}**: {said.get(name, 'nothing noted yet.')}"]
    return [*table, *(["", "What was missed, where the time goes and what was tried:", "", *missed] if missed else [])]


def _aim_row(found: Outcome) -> list[str]:
    def shown(value: float) -> str:
        digits = 2 if found.aim.unit == " s" else 1 if found.aim.unit == " ms" else 0
        return f"{value:,.{digits}f}{found.aim.unit}"

    return [
        found.aim.work,
        shown(found.ours),
        found.peer,
        "" if found.theirs is None else shown(found.theirs),
        "" if found.ratio is None else f"{found.ratio:.2f}",
        found.aim.text,
        {True: "met", False: "**missed**", None: ""}[found.met],
    ]


def _notes_by_heading(notes: str) -> dict[str, str]:
    """Return the text under each ``## name``, as the continued lines of a list entry."""
    notes = re.sub(r"<!--.*?-->", "", notes, flags=re.DOTALL)
    found = {}
    for part in re.split(r"^## ", notes, flags=re.MULTILINE)[1:]:
        name, _, text = part.partition("\n")
        found[name.strip()] = "\n  ".join(line for line in text.strip().splitlines() if line)
    return found


# --- tables of all contenders


def _loads(lines: Lines) -> list[str]:
    names = [name for name, scenario in SCENARIOS.items() if scenario.group == "table" and scenario.kind == "load"]
    names = [name for name in names if _has(lines, name, "per_second")]
    if not names:
        return []
    rows = []
    for contender in (BARE_LOOP, *CONTENDERS):
        cells = [_load_cell(lines, contender, name) for name in names]
        if any(cells):
            rows.append([contender, *(cell or _NONE for cell in cells)])
    return [
        "Requests/s, then p50 / p99 in ms.",
        "`~`: the rounds differ by more than a quarter.",
        f"`{BARE_LOOP}`: no server, one process that reads, predicts and writes one row over and over.",
        "",
        *_table(["", *(SCENARIOS[name].title for name in names)], rows, numbers=range(1, len(names) + 1)),
    ]


def _load_cell(lines: Lines, contender: str, scenario: str) -> str:
    mine = [line for line in lines if line["contender"] == contender and line["scenario"] == scenario]
    mine = [line for line in mine if "per_second" in line]
    if not mine:
        return ""
    rates = [line["per_second"] for line in mine]
    bad = sum(line.get("bad", 0) for line in mine)
    p50, p99 = (statistics.median(line[field] for line in mine) for field in ("p50_ms", "p99_ms"))
    text = f"**{statistics.median(rates):,.0f}** {p50:.1f} / {p99:.1f}"
    return text + (" ~" if max(rates) > _SPREAD * min(rates) else "") + (f" ({bad} failed)" if bad else "")


def _starts(lines: Lines) -> list[str]:
    columns = {
        "start, s": ("start", "start_seconds", 2),
        "idle PSS, MiB": ("start", "pss_mib", 0),
        "idle RSS, MiB": ("start", "rss_mib", 0),
        "processes": ("start", "processes", 0),
        "100,000 rows, s": ("large", "wall_seconds", 2),
        "peak, MiB": ("large", "peak_mib", 0),
        "body, MB": ("large", "body_bytes", 0),
    }
    rows = []
    for contender in CONTENDERS:
        values = [median(lines, contender, scenario, field) for scenario, field, _ in columns.values()]
        if any(value is not None for value in values):
            values = [
                value / 1e6 if value and title.endswith("MB") else value
                for title, value in zip(columns, values, strict=True)
            ]
            digits = [column[2] for column in columns.values()]
            rows.append([contender, *(_number(value, places) for value, places in zip(values, digits, strict=True))])
    if not rows:
        return []
    return [
        "Start: from the start of the process to the first right answer, with files cached and bytecode compiled.",
        "Peak: idle PSS, and what memory grew by at most during the request, with shared memory counted once.",
        "",
        *_table(["", *columns], rows, numbers=range(1, len(columns) + 1)),
    ]


# --- ours in particular


def _checked(lines: Lines) -> list[str]:
    rows = []
    for name, scenario in SCENARIOS.items():
        for contender in CONTENDERS:
            mine = [line for line in lines if line["contender"] == contender and line["scenario"] == name]
            mine = [line for line in mine if "checked" in line]
            if scenario.kind == "checked" and mine:
                total = {
                    field: sum(line[field] for line in mine)
                    for field in ("checked", "wrong", "bad", "lost", "unanswered", "exact", "numbers")
                }
                rows.append(
                    [
                        scenario.title,
                        contender,
                        _number(statistics.median(line["per_second"] for line in mine), 0),
                        f"{total['checked']:,}",
                        f"{total['wrong']:,}",
                        f"{total['bad'] + total['lost'] + total['unanswered']:,}",
                        f"{100 * total['exact'] / max(1, total['numbers']):.1f} %",
                        str(max(line["most_ulps"] for line in mine)),
                    ]
                )
    if not rows:
        return []
    titles = [
        "load",
        "contender",
        "requests/s",
        "answers checked",
        "wrong",
        "failed or lost",
        "equal to the last bit",
        "most ulps",
    ]
    return [
        "Hundreds of different requests by turns, each answer held against what the library gives for its rows alone.",
        "Wrong: another number of rows, or a number that differs by more than 1e-12 of itself.",
        "The library's own arithmetic differs in the last bits between batch sizes: the last two columns say how far.",
        "",
        *_table(titles, rows, numbers=range(2, 8)),
    ]


def _growth(lines: Lines, plots: Sequence[Plot]) -> list[str]:
    rows = []
    for contender in GROWTH_CONTENDERS:
        for field, title, digits in (("per_second", "requests/s", 0), ("p99_ms", "p99, ms", 1)):
            values = [median(lines, contender, f"growth-{clients}", field) for clients in GROWTH_CLIENTS]
            if any(value is not None for value in values):
                rows.append([contender, title, *(_number(value, digits) for value in values)])
    if not rows:
        return []
    titles = ["pipeline, 1 row; clients:", "", *map(str, GROWTH_CLIENTS)]
    table = _table(titles, rows, numbers=range(2, len(titles)))
    return [*table, *_pictures(plots, "clients-")]


def _broken(lines: Lines) -> list[str]:
    arms = {
        arm: [line for line in lines if line["scenario"] == "broken" and line.get("arm") == arm]
        for arm in ("good", "broken")
    }
    if not all(arms.values()):
        return []
    fields = {"requests/s": ("per_second", 0), "p50, ms": ("p50_ms", 1), "p99, ms": ("p99_ms", 1)}
    medians = {
        arm: [statistics.median(line[field] for line in found) for field, _ in fields.values()]
        for arm, found in arms.items()
    }
    digits = [places for _, places in fields.values()]
    rows = [
        [f"beside one with {arm} rows", *(_number(value, places) for value, places in zip(values, digits, strict=True))]
        for arm, values in medians.items()
    ]
    ratios = [ours / theirs for ours, theirs in zip(medians["broken"], medians["good"], strict=True)]
    rows.append(["ratio", *(f"{ratio:.2f}" for ratio in ratios)])
    statuses: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for line in arms["broken"]:
        for kind, seen in line["broken"].items():
            statuses[kind].update(seen)
    kinds = [f"{kind} ({', '.join(sorted(seen))})" for kind, seen in statuses.items()]
    moved = "less" if ratios[-1] < 1.1 else "**more**"
    return [
        "31 clients send good rows and are measured; the 32nd sends good rows in one measurement, broken in the other.",
        f"The aim is that their p99 moves by less than a tenth; it moved by {moved}.",
        f"By turns, with the answers' status: {'; '.join(kinds)}.",
        "",
        *_table(["31 clients", *fields], rows, numbers=(1, 2, 3)),
        *_kinds(lines),
    ]


def _kinds(lines: Lines) -> list[str]:
    by_arm: dict[str, Lines] = collections.defaultdict(list)
    for line in lines:
        if line["scenario"] == "broken-kinds" and "arm" in line:
            by_arm[line["arm"]].append(line)
    rows = [
        [
            arm,
            *(
                _number(statistics.median(line[field] for line in found), 1)
                for field in ("per_second", "p50_ms", "p99_ms")
            ),
        ]
        for arm, found in by_arm.items()
    ]
    return (
        [
            "",
            "Kind by kind:",
            "",
            *_table(["what the 32nd sends", "requests/s", "p50, ms", "p99, ms"], rows, numbers=(1, 2, 3)),
        ]
        if rows
        else []
    )


def _levers(lines: Lines) -> list[str]:
    names = ["pipeline-1", "pipeline-8", "pipeline-32", "pipeline-128", "rows-100", "forest"]
    rows = []
    for contender in LEVERS:
        cells = []
        for name in names:
            mine, base = (median(lines, one, name, "per_second") for one in (contender, LEVERS[0]))
            cells.append(_NONE if mine is None or not base else f"**{mine:,.0f}** {mine / base:.2f}")
        if any(cell != _NONE for cell in cells):
            rows.append([contender, *cells])
    if len(rows) < 2:
        return []
    return [
        f"Requests/s, and the ratio to `{LEVERS[0]}`, which has one worker and batches.",
        "",
        *_table(["", *(SCENARIOS[name].title for name in names)], rows, numbers=range(1, len(names) + 1)),
    ]


def _profile(lines: Lines) -> list[str]:
    table = profile_request.table(lines)
    if not table:
        return []
    loop = [median(lines, BARE_LOOP, "pipeline-1", f"{stage}_ms") for stage in ("decode", "predict", "encode")]
    said = [
        "Means, for one row of the pipeline, of what a request waits for; the stages add up to what its client sees.",
        "Requests that share a call of the model each wait for the whole of it.",
    ]
    if all(value is not None for value in loop):
        decode, predict, encode = (f"{value:.2f}" for value in loop)
        said.append(
            f"The bare loop takes {decode} ms to decode a row, {predict} to predict it and {encode} to encode it."
        )
    return [*said, "", *table]


def _score(lines: Lines, plots: Sequence[Plot]) -> list[str]:
    """Lines of ``score.py``: ``scenario``, ``contender``, ``rows``, ``wall_seconds``, ``peak_mib``."""
    groups: dict[tuple[int, str], Lines] = collections.defaultdict(list)
    for line in lines:
        if line["scenario"] in _WHOLE_RUNS:
            groups[line["rows"], line["contender"]].append(line)
    rows = []
    for (count, contender), found in sorted(groups.items()):
        seconds = statistics.median(line["wall_seconds"] for line in found)
        peak = statistics.median(line["peak_mib"] for line in found)
        cells = [_number(seconds, 1), _number(count / seconds, 0), _number(peak, 0)]
        rows.append([f"{count:,}", contender, str(len(found)), *cells])
    if not rows:
        return []
    said = [
        "Whole runs, with start and loading of the model; the first rows of each output are held against the library."
    ]
    for line in lines:
        if line["scenario"] == "resumed":
            same = "with the same bytes as an undisturbed run" if line["same_bytes"] else "WITH OTHER BYTES"
            said.append(
                f"Killed with SIGKILL at half of {line['rows']:,} rows, all processes, and resumed: "
                f"done after another {line['wall_seconds']:.1f} s, {same}."
            )
    table = _table(["rows", "", "runs", "seconds", "rows/s", "peak, MiB"], rows, numbers=(0, 2, 3, 4, 5))
    return [*said, "", *table, *_pictures(plots, "score-")]


def _compared(score_lines: Lines) -> list[dict[str, Any]]:
    """Return the lines of the comparison on the largest file, as those of a scenario."""
    compared = [line for line in score_lines if line["scenario"] == "compare"]
    most = max((line["rows"] for line in compared), default=0)
    return [{**line, "scenario": SCORE} for line in compared if line["rows"] == most]


def _failures(lines: Lines) -> list[str]:
    seen = collections.Counter(
        (line["contender"], line["model"], line["scenario"], line["problem"].replace("\n", " ")[:160])
        for line in lines
        if "problem" in line
    )
    rows = [
        [contender, model, scenario, str(times), f"`{problem.replace('|', '/').replace('`', '')}`"]
        for (contender, model, scenario, problem), times in seen.items()
    ]
    return _table(["contender", "model", "scenario", "times", "what was seen"], rows, numbers=(3,)) if rows else []


def _versions(lines: Lines) -> list[str]:
    seen = {line["contender"]: line["versions"] for line in lines if "versions" in line}
    rows: dict[str, list[str]] = {}
    for contender in (BARE_LOOP, *CONTENDERS):
        if contender in seen:
            rows.setdefault(", ".join(f"{name} {version}" for name, version in seen[contender].items()), []).append(
                contender
            )
    return _table(["contenders", "versions"], [["; ".join(names), text] for text, names in rows.items()], numbers=())


# --- plots


def plots_of(lines: Lines, score_lines: Lines) -> list[Plot]:
    """Return what ``plots.py`` is to draw."""
    plots: list[Plot] = []
    for field, file, title, y in (
        ("per_second", "clients-rate.svg", "One row of the pipeline: requests per second", "requests/s"),
        ("p99_ms", "clients-p99.svg", "One row of the pipeline: p99 latency", "p99, ms"),
    ):
        series = {
            contender: [
                [clients, value]
                for clients in GROWTH_CLIENTS
                if (value := median(lines, contender, f"growth-{clients}", field)) is not None
            ]
            for contender in GROWTH_CONTENDERS
        }
        plots.append({"file": file, "title": title, "x": "clients", "y": y, "base": 2, "lines": series})
    for field, file, title, y in (
        ("wall_seconds", "score-seconds.svg", "Scoring a CSV file: time", "seconds"),
        ("peak_mib", "score-memory.svg", "Scoring a CSV file: peak memory", "MiB"),
    ):
        points: dict[str, dict[int, list[float]]] = collections.defaultdict(lambda: collections.defaultdict(list))
        for line in score_lines:
            if line["scenario"] in _WHOLE_RUNS:
                points[line["contender"]][line["rows"]].append(line[field])
        series = {
            contender: [[rows, statistics.median(values)] for rows, values in sorted(found.items())]
            for contender, found in points.items()
        }
        plots.append(
            {"file": file, "title": title, "x": "rows", "y": y, "from_zero": field == "peak_mib", "lines": series}
        )
    for plot in plots:
        plot["lines"] = {label: found for label, found in plot["lines"].items() if found}
    return [plot for plot in plots if plot["lines"]]


def _pictures(plots: Sequence[Plot], prefix: str) -> list[str]:
    chosen = [plot for plot in plots if plot["file"].startswith(prefix)]
    return [line for plot in chosen for line in ("", f"![{plot['title']}]({_FOLDER}/{plot['file']})")]


# --- Markdown


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Iterable[int]) -> list[str]:
    right = set(numbers)
    rule = ["---:" if column in right else "---" for column in range(len(titles))]
    return ["| " + " | ".join(cells) + " |" for cells in (titles, rule, *rows)]


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None else f"{value:,.{digits}f}"


def _has(lines: Lines, scenario: str, field: str) -> bool:
    return any(line["scenario"] == scenario and field in line for line in lines)
