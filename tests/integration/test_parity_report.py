"""The HTML report in a real browser: what it shows is what the store holds, and it wants nothing from anywhere."""

from __future__ import annotations

import json
import random
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backline.parity.compare import Rules
from backline.parity.exchange import Answer, Call, Request
from backline.parity.report import MOST_LISTED, MOST_SHOWN, render_report
from backline.parity.run import judge
from backline.parity.store import Side, Store
from backline.parity.summary import find_run, summarize
from tests.browser import Page, browser_page
from tests.integration.parity_tools import HOSTILE

pytestmark = pytest.mark.slow

REQUESTS = 10_000
JSON = [("content-type", "application/json")]


@pytest.fixture(scope="module")
def store_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 10,000 requests: every tenth differs, some only by chance, and some answers are hostile."""
    path = tmp_path_factory.mktemp("report") / "run.sqlite"
    chance = random.Random(1)
    with Store.create(path) as store:
        rules = Rules()
        settings = {"reference": {"where": "http://old"}, "candidate": {"where": "new"}, "rules": rules.to_json()}
        run = store.add_run("run", settings, 1.0)
        for number in range(REQUESTS):
            values = [round(chance.random(), 6) for _ in range(3)]
            other = list(values)
            if number % 10 == 0:
                other[number // 10 % 3] += 1e-3 * (1 + number // 10)
            ours = {"predictions": values, "text": HOSTILE if number % 1000 == 0 else "plain"}
            theirs = {"predictions": other, "text": "plain"}
            call = store.add_call(Call(request=Request(method="POST", target="/predict/", body=HOSTILE.encode())))
            status = 500 if number % 2500 == 1 else 200
            sides: tuple[tuple[Side, object], ...] = (("reference", ours), ("candidate", theirs))
            for side, content in sides:
                answer = Answer(
                    status=status if side == "candidate" else 200, headers=JSON, body=json.dumps(content).encode(),
                    seconds=chance.expovariate(100) + 0.001,
                )  # fmt: skip
                store.add_answer(call, answer, side=side, run=run)
            if number % 100 == 10:
                again = Answer(status=200, headers=JSON, body=json.dumps({**ours, "predictions": [7, 8, 9]}).encode())
                store.add_answer(call, again, side="again", run=run)
            judge(store, run, (call, 0), rules)
        store.end_run(run, 2.0)
    return path


@pytest.fixture(scope="module")
def page(store_file: Path) -> Iterator[Page]:
    report = store_file.with_suffix(".html")
    with Store.open(store_file) as store:
        report.write_text(render_report(store, summarize(store, find_run(store, None))), encoding="utf-8")
    assert report.stat().st_size < 4_000_000
    with browser_page() as opened:
        opened.open(report)
        yield opened


def verdicts(store_file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return verdicts and what was found, asked of the file itself rather than of the code under test."""
    with sqlite3.connect(store_file) as db:
        rows = db.execute("SELECT verdict, detail FROM verdicts").fetchall()
    db.close()
    return [(verdict, json.loads(detail)) for verdict, detail in rows]


def number(text: str) -> int:
    return int(text.replace(",", ""))


def test_the_counts_are_those_of_the_store(page: Page, store_file: Path) -> None:
    counted = Counter(verdict for verdict, _ in verdicts(store_file))
    assert {name: number(page.text(f"#{name}")) for name in ("same", "different", "flaky")} == counted
    assert counted["different"] > 800 and counted["flaky"] == 100
    shown = re.findall(r"[\d,]+", page.text("#verdict"))
    assert [number(each) for each in shown] == [counted["different"], REQUESTS, counted["flaky"]]


def test_the_agreement_of_every_field_is_that_of_the_store(page: Page, store_file: Path) -> None:
    compared: Counter[str] = Counter()
    differing: Counter[str] = Counter()
    flaky: Counter[str] = Counter()
    largest: dict[str, float] = {}
    for _, detail in verdicts(store_file):
        compared.update(detail["compared"])
        for name, count in detail.get("differing", {}).items():
            (flaky if name in detail["unsettled"] else differing)[name] += count
        for field, _, _, _, _, size, _ in detail.get("differences", ()):
            if size is not None and field not in detail["unsettled"]:
                largest[field] = max(size, largest.get(field, 0))
    rows = {row[0]: row for row in page.table("#agreement")}
    assert rows.keys() == compared.keys()
    for name, row in rows.items():
        assert number(row[3]) == compared[name]
        assert number(row[4]) == differing[name]
        assert number(row[5] or "0") == flaky[name]
        share = 1 - (differing[name] + flaky[name]) / compared[name]
        assert float(row[2].rstrip(" %")) == pytest.approx(100 * share, abs=0.01)
        assert (row[6] == "") is (name not in largest)
        if name in largest:
            assert float(row[6]) == pytest.approx(largest[name], rel=1e-5)


def test_statuses_and_latency_are_those_of_the_store(page: Page, store_file: Path) -> None:
    with sqlite3.connect(store_file) as db:
        failed = db.execute("SELECT count(*) FROM answers WHERE side = 'candidate' AND status = 500").fetchone()[0]
        ordered = [row[0] for row in db.execute("SELECT seconds FROM answers WHERE side = 'candidate' ORDER BY 1")]
    db.close()
    pairs = {(row[0], row[1]): number(row[2]) for row in page.table("#status-pairs")}
    assert pairs == {("200", "200"): REQUESTS - failed, ("200", "500"): failed}
    times = {row[0]: row for row in page.table("#times")}
    assert number(times["candidate"][1]) == REQUESTS
    for place, share in ((2, 0.5), (3, 0.95), (4, 0.99)):
        shown = re.match(r"([\d.]+) ms \(([\d.]+) ms to ([\d.]+) ms\)", times["candidate"][place])
        assert shown
        value, low, high = map(float, shown.groups())
        assert value == pytest.approx(1000 * ordered[round(share * REQUESTS) - 1], rel=0.005)
        assert low <= value <= high


def test_the_biggest_differences_are_shown_with_request_and_both_answers(page: Page) -> None:
    shown = page.evaluate("document.querySelectorAll('#differences details').length")
    assert 0 < shown <= MOST_SHOWN
    page.evaluate("document.querySelectorAll('#differences details').forEach(each => each.open = true)")
    text = page.text("#differences")
    for field in ("$.predictions[", "$.text", "status"):
        assert field in text
    assert HOSTILE in text
    assert page.evaluate("document.querySelectorAll('#differences .beside pre').length") == 2 * shown
    rows = page.table("#differing")
    assert len(rows) == MOST_LISTED
    assert "more are in the store" in page.text("#requests")


def test_hostile_answers_run_nothing_and_the_page_asks_for_nothing(page: Page) -> None:
    assert page.evaluate("document.title") == "Parity report"
    assert page.evaluate("document.querySelectorAll('script, img, iframe, link:not([rel=icon])').length") == 0
    assert [url for url in page.requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in page.requests if url.startswith("file:")]) == 1
    assert page.complaints == []


def test_the_latency_curves_are_drawn(page: Page) -> None:
    boxes = page.evaluate(
        "[...document.querySelectorAll('#latency polyline')].map(line => { const box = line.getBoundingClientRect();"
        " return [box.width, box.height] })"
    )
    assert len(boxes) == 2
    assert all(width > 100 and height > 20 for width, height in boxes)
