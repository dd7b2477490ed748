from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from backline.report.html import Html, code, details, element, escape, facts, page, side_by_side, table

HOSTILE = "<script>alert(1)</script>\"'>&<img src=x onerror=alert(1)>"


class Seen(HTMLParser):
    """Notes every element and what text there is."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.text: list[str] = []
        self.attributes: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def seen(document: str) -> Seen:
    parser = Seen()
    parser.feed(document)
    parser.close()
    return parser


def test_what_a_server_answered_is_text_wherever_it_stands() -> None:
    document = page(
        HOSTILE,
        table([HOSTILE], [[HOSTILE]]),
        facts([(HOSTILE, HOSTILE)]),
        details(HOSTILE, code(HOSTILE)),
        side_by_side((HOSTILE, code(HOSTILE))),
        element("p", "x", title=HOSTILE),
        subtitle=HOSTILE,
    )
    found = seen(document)
    assert "script" not in found.elements
    assert "img" not in found.elements
    assert "onerror" not in found.attributes
    assert HOSTILE in found.text


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    document = page("Title", element("p", "text"))
    assert "default-src 'none'" in document
    assert "http://" not in document
    assert "https://" not in document
    assert {"src", "onload", "onclick"}.isdisjoint(seen(document).attributes)


@given(st.text(st.characters(codec=None)))
def test_any_text_can_be_shown_and_written(text: str) -> None:
    escaped = escape(text)
    escaped.encode()
    assert seen(f"<p>{escaped}</p>").elements == ["p"]


def test_html_is_not_escaped_twice() -> None:
    assert element("p", Html("<b>x</b>"), "<") == "<p><b>x</b>&lt;</p>"


def test_long_text_is_cut_and_says_by_how_much() -> None:
    assert "5 more characters" in code("abcdefghij", most=5)
