"""A run as JUnit XML, one test case for each request, for the pages of CI servers."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

from backline.parity.detail import read_differences
from backline.parity.store import Store
from backline.parity.summary import Summary
from backline.report.html import printable

_MOST_SHOWN = 20


def write_junit(store: Store, summary: Summary, path: Path) -> None:
    """Write the file. Flaky answers are skipped tests, as nothing can be said about them."""
    run = summary.run.id
    times = {(call, round_): seconds for call, round_, seconds in store.candidate_times(run)}
    suite = ET.Element(
        "testsuite", name="backline parity", tests=str(summary.requests),
        failures=str(summary.verdicts.get("different", 0)), skipped=str(summary.verdicts.get("flaky", 0)), errors="0",
        time=f"{sum(seconds or 0.0 for seconds in times.values()):.3f}",
    )  # fmt: skip
    requests = {number: (method, target) for number, _, method, target, *_ in store.overview()}
    for stored in store.verdicts(run):
        method, target = requests[stored.call]
        name = f"#{stored.call}" + (f" round {stored.round + 1}" if stored.round else "")
        case = ET.SubElement(
            suite, "testcase", classname=printable(f"{method} {target.partition('?')[0]}"), name=name,
            time=f"{times.get((stored.call, stored.round)) or 0.0:.6f}",
        )  # fmt: skip
        if stored.verdict == "same":
            continue
        differences = read_differences(stored.detail)
        lines = [
            f"{each.path}: {each.kind}: reference {each.reference!r}, candidate {each.candidate!r}"
            for each in differences[:_MOST_SHOWN]
        ]
        total = sum(stored.detail.get("differing", {}).values())
        if total > len(lines):
            lines.append(f"… {total - len(lines)} more")
        names = ", ".join(sorted(stored.detail.get("differing", {})))
        tag = "failure" if stored.verdict == "different" else "skipped"
        ET.SubElement(case, tag, message=printable(f"{total} differences in {names}")).text = printable(
            "\n".join(lines)
        )
    ET.ElementTree(suite).write(path, encoding="utf-8", xml_declaration=True)
