"""Every block of the pages is tested, or says why not; what a page shows is compared with what is printed."""

from __future__ import annotations

import pytest

from tests.pages import HELD_BY, PAGES, ROOT, blocks_of, faults_of
from tests.shown import is_alike, is_within

FENCE = "```"


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_is_tested_or_has_a_reason(page: str) -> None:
    faults = faults_of(blocks_of(page))
    assert not faults, "\n".join(faults)


def test_the_tests_that_hold_generated_pages_are_there() -> None:
    for (page, _language), test in HELD_BY.items():
        assert page in PAGES
        assert (ROOT / test).is_file()


def faults(text: str) -> list[str]:
    return faults_of(blocks_of("page.md", text.replace("'''", FENCE)))


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("'''\nx\n'''", "says that it is nothing"),
        ("'''bash\nx\n'''", "one of sh"),
        ("'''toml\n[a]\n'''", "nothing tests this block"),
        ("'''json\n{}\n'''", "none that runs"),
        ("<!-- not run: it needs a GPU -->\n'''sh\nx\n'''\n\n'''text\nx\n'''", "none that runs"),
        ("<!-- not run: slow -->\n'''sh\nx\n'''", "needs a reason"),
        ("<!-- norun: it needs a GPU -->\n'''sh\nx\n'''", "none of the marks"),
        ("<!-- file: -->\n'''toml\nx\n'''", "name of the file is missing"),
        ("<!-- part of: deploy/none.yaml -->\n'''yaml\nx\n'''", "there is no file"),
        ("<!-- file: a/custom.py -->\n'''python\nx\n'''", "nothing below runs"),
    ],
)
def test_a_block_that_nothing_tests_is_told_with_its_line(text: str, word: str) -> None:
    (fault,) = faults(f"# Title\n\nText.\n\n{text}\n")
    assert fault.startswith("page.md:")
    assert word in fault
    assert "CONTRIBUTING.md" in fault


@pytest.mark.parametrize(
    "text",
    [
        "<!-- not run: it needs a GPU -->\n'''sh\nx\n'''",
        "'''sh\nx\n'''\n\n'''text\nx\n'''",
        "<!-- file: a/backline.toml -->\n'''toml\nx\n'''",
        "- An item\n\n  <!-- not run:\n    needs a cluster of machines -->\n  '''yaml\n  x\n  '''",
    ],
)
def test_a_block_that_is_tested_or_has_a_reason_is_no_fault(text: str) -> None:
    assert faults(text) == []


def test_a_comment_speaks_of_the_block_directly_below_it_only() -> None:
    (fault,) = faults("<!-- not run: it needs a GPU -->\n\nText.\n\n'''yaml\nx\n'''")
    assert "nothing tests this block" in fault


def test_commands_in_a_comment_are_a_block_that_readers_do_not_see() -> None:
    (block,) = blocks_of("page.md", "<!-- unseen:\nmkdir x\ntouch x/y\n-->\n")
    assert (block.verb, block.language, block.text) == ("unseen", "sh", "mkdir x\ntouch x/y\n")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("Ready after 1.9 s", "Ready  after\n12.25 s"),
        ("a\n...\nz", "a\nb 7\nc\nz"),
        ("at 14:02:11 it had 2,519.0", "at 23:59:00 it had 7"),
        ("seen ... times", "seen 12 times"),
    ],
)
def test_times_and_fractions_may_differ_and_dots_stand_for_anything(shown: str, printed: str) -> None:
    assert is_alike(shown, printed)


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("3 rows", "4 rows"), ("a\nz", "a\nb\nz"), ("1.9 s", "1.9 ms"), ("a ... z", "a z y"), ("(x)", "x")],
)
def test_whole_numbers_and_words_may_not_differ(shown: str, printed: str) -> None:
    assert not is_alike(shown, printed)


def test_all_numbers_may_differ_where_a_page_says_so() -> None:
    assert is_alike("3 rows in 5 %", "4 rows in 71.5 %", figures_vary=True)
    assert not is_alike("3 rows", "4 lines", figures_vary=True)


def test_dots_that_are_many_take_no_time() -> None:
    assert not is_alike("a ... " * 30 + "z", "a b " * 5000)


def test_lines_of_a_log_are_found_in_their_order() -> None:
    log = "14:02:11 info  one\n14:02:12 info  two\n14:02:13 info  three\n"
    assert is_within("11:00:00 info one\n11:00:00 info three", log)
    assert not is_within("11:00:00 info three\n11:00:00 info one", log)
