"""The generated reference pages are what the code says, and hold nothing of the machine they were made on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.scripts import load_script

ROOT = Path(__file__).parents[2]
SCRIPT = load_script("reference_pages")


@pytest.mark.parametrize("name", SCRIPT.PAGES)
def test_page_is_what_the_code_says(name: str) -> None:
    page = ROOT / "docs" / "reference" / name
    assert page.exists(), "run scripts/docs"
    assert page.read_text() == SCRIPT.render(name), "run scripts/docs"


@pytest.mark.parametrize("name", SCRIPT.PAGES)
def test_page_holds_nothing_of_the_machine_it_was_made_on(name: str) -> None:
    page = SCRIPT.render(name)
    for folder in (ROOT, Path.home(), Path.cwd()):
        assert str(folder) not in page


@pytest.mark.parametrize("name", SCRIPT.PAGES)
def test_page_has_balanced_code_blocks_and_no_heading_twice(name: str) -> None:
    page = SCRIPT.render(name)
    assert page.count("```") % 2 == 0
    prose = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    headings = re.findall(r"^#+ .*$", prose, re.MULTILINE)
    assert len(headings) == len(set(headings))
    assert page.startswith("# ")
