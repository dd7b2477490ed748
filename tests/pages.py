"""The fenced blocks of the pages that users read, and what each says about how it is tested.

``python -m tests.pages`` lists the blocks that are not run, with their reasons. CONTRIBUTING.md has the rules for
writers, and ``tests/reader.py`` follows them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[1]
TEMPLATES = Path("src/backline/cli/templates")
_PLACES = ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/**/*.md", "benchmarks/*.md", f"{TEMPLATES}/*/README.md")
PAGES = tuple(sorted({str(path.relative_to(ROOT)) for place in _PLACES for path in ROOT.glob(place)}))

# Blocks of generated pages that another test holds against the code or a running server.
HELD_BY = {
    ("docs/reference/cli.md", "text"): "tests/unit/test_reference_pages.py",
    ("docs/reference/errors.md", "json"): "tests/integration/test_error_table.py",
}

_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->\s*\Z", re.DOTALL)
_VERBS = re.compile(r"(file|add to|part of|not run|status|figures vary|in the log|unseen)\b(?::\s*)?(.*)\Z", re.DOTALL)
_LANGUAGES = ("sh", "python", "text", "json", "yaml", "toml")
_RULES = "; CONTRIBUTING.md, section “Code blocks are tests”, has the rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block, or commands in a comment that readers do not see (``verb`` is "unseen" then)."""

    page: str
    line: int
    language: str
    text: str
    verb: str = ""
    argument: str = ""
    runs: bool = True

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: str, text: str | None = None) -> list[Block]:
    """Return the blocks of a page, top to bottom; ``text`` is its content, where that is not the file's."""
    return list(_blocks(page, (ROOT / page).read_text() if text is None else text))


def _blocks(page: str, text: str) -> Iterator[Block]:
    comment = ""
    for token in MarkdownIt("commonmark").parse(text):
        if token.type == "html_block":
            found = _COMMENT.search(token.content)
            comment = found[1] if found else ""
            if comment.startswith("unseen:"):
                commands = comment.removeprefix("unseen:").strip() + "\n"
                yield Block(page=page, line=_line(token.map), language="sh", text=commands, verb="unseen")
                comment = ""
        elif token.type == "fence":
            told = _VERBS.match(comment)
            language = token.info.strip()
            yield Block(
                page=page,
                line=_line(token.map),
                language=language,
                text=token.content,
                verb=told[1] if told else "",
                argument=" ".join(told[2].split()) if told else comment and f"? {comment}",
                runs=not (told and told[1] == "not run") and (page, language) not in HELD_BY,
            )
            comment = ""
        else:
            comment = ""


def _line(span: list[int] | None) -> int:
    assert span is not None
    return span[0] + 1


def faults_of(blocks: list[Block]) -> list[str]:
    """Return what is wrong with the blocks of one page: those that nothing tests, with what to do."""
    faults = []
    shows_output_of: Block | None = None
    for number, block in enumerate(blocks):
        fault = _fault(block, shows_output_of, blocks[number + 1 :])
        if fault:
            faults.append(f"{block.place}: {fault}{_RULES}")
        if block.language in ("sh", "python") and block.verb not in ("file", "add to", "part of"):
            shows_output_of = block
    return faults


def _fault(block: Block, before: Block | None, after: list[Block]) -> str | None:
    if (block.page, block.language) in HELD_BY:
        return None
    if block.language not in _LANGUAGES:
        return f"the block says that it is {block.language or 'nothing'}; it has to be one of {', '.join(_LANGUAGES)}"
    if block.argument.startswith("? "):
        return f"the comment above it, {block.argument[2:]!r}, is none of the marks of a block"
    if block.verb == "not run" and len(block.argument.split()) < 3:
        return "a block that is not run needs a reason, in a few words: <!-- not run: it needs a GPU -->"
    if block.verb in ("file", "add to", "part of") and not block.argument:
        return f"the name of the file is missing: <!-- {block.verb}: NAME -->"
    if block.verb == "part of" and not (ROOT / block.argument).is_file():
        return f"there is no file {block.argument}"
    if block.verb in ("not run", "file", "add to", "part of"):
        used = any(one.runs and one.language in ("sh", "python") for one in after)
        if block.verb in ("file", "add to") and block.argument.endswith(".py") and not used:
            return f"{block.argument} is written and nothing below runs: show how it is served or called"
        return None
    if block.language in ("yaml", "toml"):
        return (
            "nothing tests this block. Say which file it is, <!-- file: churn/backline.toml --> or <!-- add to: ... -->"
            " above it, or of which file of the repository it is a part, <!-- part of: deploy/... -->, or why it cannot"
            " be tested, <!-- not run: REASON -->"
        )
    if block.language in ("text", "json") and (before is None or not before.runs):
        return (
            "nothing tests this block. It is compared with what the sh or python block before it prints, and there is"
            " none that runs: run one, or say why it cannot be tested, <!-- not run: REASON -->"
        )
    return None


def main() -> None:
    """List the blocks that are not run."""
    for page in PAGES:
        for block in blocks_of(page):
            if block.verb == "not run":
                print(f"{block.place}  {block.language}: {block.argument}")


if __name__ == "__main__":
    main()
