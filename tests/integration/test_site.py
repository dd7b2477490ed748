"""The documentation's site: made without a warning, read and searched without a network, and no link leads astray."""

from __future__ import annotations

import subprocess
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.browser import browser_page
from tests.pages import PAGES, ROOT, TEMPLATES

pytestmark = pytest.mark.slow

_MAKE_TIMEOUT = 600  # seconds; the first time it makes the environment that the site is made in


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [str(ROOT / "scripts" / "site"), "--out", str(folder)]
    made = subprocess.run(command, capture_output=True, text=True, timeout=_MAKE_TIMEOUT, check=False)
    assert made.returncode == 0, made.stderr
    return folder


class _Page(HTMLParser):
    """What a page links to, what it loads, and the places in it that can be linked to."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.loads: set[str] = set()
        self.ids: set[str] = set()
        self.feed(file.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        self.ids |= {told[name] for name in ("id", "name") if name in told}
        if tag == "a" and "href" in told:
            self.links.add(told["href"])
        self.loads |= {told[name] for name in ("src", "href") if name in told and tag != "a"}


def test_every_page_is_in_the_site(site: Path) -> None:
    for page in PAGES:
        if not page.startswith((f"{TEMPLATES}/", "deploy/", "benchmarks/notes")):
            assert (site / page).with_suffix(".html").is_file(), page


def test_links_and_anchors_lead_somewhere_and_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {file: _Page(file) for file in site.rglob("*.html") if "_static" not in file.parts}
    for file, page in pages.items():
        for target in page.links | page.loads:
            parts = urllib.parse.urlsplit(target)
            if parts.scheme or parts.netloc:
                assert target in page.links, f"{file} loads {target}"
                assert parts.scheme in ("https", "mailto"), f"{file}: {target}"
                continue
            path = (file.parent / urllib.parse.unquote(parts.path)).resolve() if parts.path else file
            assert path.is_file(), f"{file}: {target}"
            fragment = urllib.parse.unquote(parts.fragment)
            assert not fragment or path not in pages or fragment in pages[path].ids, f"{file}: {target}"


def test_it_opens_in_a_browser_and_is_searched_without_a_network(site: Path) -> None:
    with browser_page() as page:
        page.open(site / "index.html")
        page.wait_for("location.pathname.endsWith('/docs/index.html') && document.readyState === 'complete'")
        assert page.text("h1").startswith("Documentation")
        page.open(site / "docs" / "how-to" / "chat.html")
        assert "def chat(completion_create_params" in page.text("div.highlight-python pre")
        assert page.evaluate("getComputedStyle(document.querySelector('pre .k')).color") != page.evaluate(
            "getComputedStyle(document.querySelector('pre')).color"
        )
        page.open(site / "search.html", "?q=shadow")
        found = "[...document.querySelectorAll('#search-results li a')]"
        page.wait_for(f"{found}.some(link => link.pathname.endsWith('docs/how-to/shadow.html'))")
        page.open(site / "search.html", "?q=nowordlikethis")
        page.wait_for("/did not match|no documents/i.test(document.querySelector('#search-results').innerText)")
        assert all(url.startswith((site.as_uri(), "data:")) for url in page.requests), page.requests
        assert page.complaints == []
