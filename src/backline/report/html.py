"""Pieces of HTML in which text is escaped unless it is HTML already, and a page that needs nothing but itself.

A page loads nothing and runs nothing: its style and its plots stand in it, there is no script, and its content security
policy forbids both. So it opens offline, and what a server under test has answered is only ever text in it.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Literal

Tone = Literal["good", "bad", "warn", "plain"]
Align = Literal["left", "right"]


class Html(str):
    """Text that is HTML: it is put into a page as it is. Everything else is escaped on the way."""

    __slots__ = ()


def escape(content: object) -> Html:
    """Return ``content`` as HTML; ``None`` is empty. What HTML cannot hold is shown as U+FFFD."""
    if isinstance(content, Html):
        return content
    if content is None:
        return Html()
    return Html(html.escape(printable(str(content))))


def element(name: str, *content: object, **attributes: object) -> Html:
    """Return ``<name ...>content</name>``; an attribute that is ``None`` is left out, ``class_`` is ``class``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{written}>{''.join(map(escape, content))}</{name}>")


def joined(pieces: Iterable[Html]) -> Html:
    """Return the pieces, one after the other."""
    return Html("".join(pieces))


def section(title: str, *content: object, id_: str | None = None) -> Html:
    """Return a part of the page with its title."""
    return element("section", element("h2", title), *content, id=id_)


def paragraph(*content: object) -> Html:
    """Return a paragraph."""
    return element("p", *content)


def badge(text: object, tone: Tone) -> Html:
    """Return a word that stands out."""
    return element("span", text, class_=f"badge {tone}")


def verdict(text: object, tone: Tone) -> Html:
    """Return the line that says how it went; the first thing on a page."""
    return element("p", text, class_=f"verdict {tone}", id="verdict")


def facts(pairs: Iterable[tuple[str, object]]) -> Html:
    """Return a list of names and values."""
    return element("dl", *(joined([element("dt", name), element("dd", value)]) for name, value in pairs))


def table(
    head: Sequence[object], rows: Iterable[Sequence[object]], *, align: Sequence[Align] = (), id_: str | None = None
) -> Html:
    """Return a table; ``align`` says for each column where its text stands, left where it says nothing."""
    classes = [("number" if place < len(align) and align[place] == "right" else None) for place in range(len(head))]

    def line(cell: str, values: Sequence[object]) -> Html:
        return element(
            "tr", *(element(cell, value, class_=class_) for value, class_ in zip(values, classes, strict=True))
        )

    body = element("tbody", *(line("td", row) for row in rows))
    return element("div", element("table", element("thead", line("th", head)), body, id=id_), class_="scroll")


def details(summary: object, *content: object, is_open: bool = False) -> Html:
    """Return something that is folded away until it is asked for."""
    return element("details", element("summary", summary), *content, open="open" if is_open else None)


def code(text: str, *, most: int = 20_000) -> Html:
    """Return text as it was sent, cut at ``most`` characters."""
    left = len(text) - most
    shown = text if left <= 0 else f"{text[:most]}\n… {left:,} more characters"
    return element("pre", shown)


def side_by_side(*pieces: tuple[object, Html]) -> Html:
    """Return pieces with their titles beside each other; one below the other where there is no room."""
    return element("div", *(element("div", element("h4", title), piece) for title, piece in pieces), class_="beside")


def bar(share: float, tone: Tone = "plain") -> Html:
    """Return a bar that is filled to ``share``, 0 to 1."""
    width = 100 * min(1.0, max(0.0, share))
    return Html(
        f'<svg class="bar {tone}" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" '
        f'aria-label="{width:.1f} %"><rect class="ground" width="100" height="8"/>'
        f'<rect class="fill" width="{width:.2f}" height="8"/></svg>'
    )


def page(title: str, *content: object, subtitle: object = "") -> str:
    """Return a whole page, ready to be written to a file as UTF-8."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = joined(
        [
            Html('<meta charset="utf-8">'),
            Html(f'<meta http-equiv="Content-Security-Policy" content="{policy}">'),
            Html('<meta name="viewport" content="width=device-width, initial-scale=1">'),
            Html('<link rel="icon" href="data:,">'),
            element("title", title),
            Html(f"<style>{_STYLE}</style>"),
        ]
    )
    under = element("p", subtitle, class_="subtitle") if subtitle else ""
    body = element("main", element("h1", title), under, *content)
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def printable(text: str) -> str:
    """Return text that HTML and XML can hold: controls, lone surrogates and non-characters become U+FFFD."""
    return _UNPRINTABLE.sub("\ufffd", text.replace("\r\n", "\n"))


_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_STYLE = """
:root { --ink: #1b1f24; --soft: #57606a; --line: #d8dee4; --ground: #fff; --raised: #f6f8fa;
        --good: #1a7f37; --bad: #b42318; --warn: #9a6700; --a: #0b5cad; --b: #c2410c; --c: #5a8f29; --d: #8e6bbf; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --soft: #9198a1; --line: #3d444d; --ground: #0d1117;
        --raised: #161b22; --good: #3fb950; --bad: #f85149; --warn: #d29922; --a: #58a6ff; --b: #f0883e; --c: #7ee787;
        --d: #bc8cff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1100px; margin: 0 auto; padding: 24px 20px 80px; }
h1 { margin: 0 0 4px; font-size: 24px; } h2 { margin: 36px 0 10px; font-size: 18px; } h4 { margin: 10px 0 4px; }
.subtitle { margin: 0; color: var(--soft); }
.verdict { margin: 18px 0; padding: 12px 16px; border-left: 5px solid var(--soft); background: var(--raised);
        font-size: 17px; font-weight: 600; }
.verdict.good { border-color: var(--good); } .verdict.bad { border-color: var(--bad); }
.verdict.warn { border-color: var(--warn); }
.badge { padding: 0 7px; border: 1px solid currentColor; border-radius: 9px; font-size: 13px; white-space: nowrap; }
.badge.good { color: var(--good); } .badge.bad { color: var(--bad); } .badge.warn { color: var(--warn); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 12px 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; } .number { text-align: right; white-space: nowrap; }
details { border-bottom: 1px solid var(--line); } summary { padding: 6px 0; cursor: pointer; overflow-wrap: anywhere; }
pre { margin: 4px 0 12px; padding: 8px 10px; max-height: 340px; overflow: auto; background: var(--raised);
        border: 1px solid var(--line); font: 12.5px/1.45 ui-monospace, monospace; white-space: pre-wrap;
        overflow-wrap: anywhere; }
.beside { display: grid; grid-template-columns: repeat(auto-fit, minmax(320px, 1fr)); gap: 0 18px; }
.bar { width: 120px; height: 8px; } .bar .ground { fill: var(--line); } .bar .fill { fill: var(--soft); }
.bar.good .fill { fill: var(--good); } .bar.bad .fill { fill: var(--bad); } .bar.warn .fill { fill: var(--warn); }
figure { margin: 12px 0; } figcaption { color: var(--soft); font-size: 13px; }
.plot { width: 100%; max-width: 760px; height: auto; } .plot text { fill: var(--soft); font-size: 12px; }
.plot .grid { stroke: var(--line); stroke-width: 1; } .plot .line { fill: none; stroke-width: 2; }
.plot .s0 { stroke: var(--a); } .plot .s1 { stroke: var(--b); stroke-dasharray: 6 3; } .plot .s2 { stroke: var(--c);
        stroke-dasharray: 2 3; } .plot .s3 { stroke: var(--d); stroke-dasharray: 8 3 2 3; }
.plot .band { stroke: none; fill-opacity: .15; } .plot .f0 { fill: var(--a); } .plot .f1 { fill: var(--b); }
.plot .f2 { fill: var(--c); } .plot .f3 { fill: var(--d); }
"""
