"""Writes the reference pages that are made from the code; ``scripts/docs`` runs it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import backline.api.error_table
import backline.cli.reference
import backline.config.reference
import backline.observe.reference

FOLDER = Path(__file__).parents[1] / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "cli.md": backline.cli.reference.render_markdown,
    "errors.md": backline.api.error_table.render_markdown,
    "metrics.md": backline.observe.reference.render_markdown,
    "settings.md": backline.config.reference.render_markdown,
}


def render(name: str) -> str:
    """Return a page as it is written, with one line break at its end."""
    return PAGES[name]().rstrip("\n") + "\n"


def outdated() -> list[str]:
    """Return the names of the pages that are missing, or not what the code says now."""
    return [name for name in PAGES if not (FOLDER / name).exists() or (FOLDER / name).read_text() != render(name)]


def main() -> int:
    """Write what is out of date, or with ``--check`` only name it; return the exit code."""
    arguments = sys.argv[1:]
    if arguments not in ([], ["--check"]):
        print("usage: scripts/docs [--check]", file=sys.stderr)
        return 2
    names = outdated()
    for name in names:
        if arguments:
            print(f"docs/reference/{name} is out of date; run scripts/docs", file=sys.stderr)
        else:
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / name).write_text(render(name))
            print(f"wrote docs/reference/{name}", file=sys.stderr)
    return 1 if arguments and names else 0


if __name__ == "__main__":
    sys.exit(main())
