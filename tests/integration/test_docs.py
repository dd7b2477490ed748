"""What the pages tell the reader to do works, block by block, in the order in which it is told.

``tests/unit/test_pages.py`` finds the blocks that nothing tests; CONTRIBUTING.md says how a block is written.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, TEMPLATES, blocks_of
from tests.reader import Reader

pytestmark = pytest.mark.slow

FOLLOWED = [page for page in PAGES if any(block.runs for block in blocks_of(page))]
# Pages that lie in a model folder are read there.
MODEL_FOLDERS = ("examples", str(TEMPLATES))


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_reader_who_follows_the_page_gets_what_it_shows(tmp_path: Path, page: str) -> None:
    if shutil.which("curl") is None:
        pytest.skip("the pages ask with curl, which is not here")
    folder = tmp_path / "reader"
    if str(Path(page).parent.parent) in MODEL_FOLDERS:
        made = shutil.ignore_patterns("*.pkl", "markov.json", "__pycache__")
        shutil.copytree(ROOT / Path(page).parent, folder, ignore=made)
    else:
        folder.mkdir()
    with Reader(folder, blocks := blocks_of(page)) as reader:
        for block in blocks:
            reader.follow(block)
