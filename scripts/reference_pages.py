"""Writes the reference pages that are made from the code; ``scripts/docs`` runs it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import backline.api.error_table
import backline.cli.reference
import backline.config.reference
import backline.observe.reference
from backline_worker.contract.hook_table import HOOK_TABLE

FOLDER = Path(__file__).parents[1] / "docs" / "reference"


def hooks() -> str:
    """Return the table of hooks."""
    rows = ["| hook | called | returns |", "| --- | --- | --- |"]
    for name, entry in HOOK_TABLE.items():
        arguments = ", ".join([*entry.arguments, *(["*", *entry.offered] if entry.offered else [])])
        rows.append(f"| `{name}({arguments})` | {entry.called} | {entry.returns} |")
    return "\n".join(rows)


def model_folder() -> str:
    """Return the page of the model folder, which is written by hand, with its table of hooks as the code has it."""
    page = (FOLDER / "model-folder.md").read_text()
    return re.sub(
        r"(<!-- hooks: [^\n]*-->\n).*?(\n<!-- end of hooks -->)", rf"\1\n{hooks()}\n\2", page, flags=re.DOTALL
    )


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": backline.cli.reference.render_markdown,
    "errors.md": backline.api.error_table.render_markdown,
    "model-folder.md": model_folder,
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
