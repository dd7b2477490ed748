"""Makes a site of the pages: Sphinx with MyST, which reads Markdown, and the theme Furo. ``scripts/site`` runs it.

The root of the sources is that of the repository, so that a link in a page means the same here and on the code host.
A page that is in no part of the navigation below, and a link or an anchor that leads nowhere, fail the build.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

# By need. A star stands for the pages that are not named.
NAVIGATION = {
    "Learn": ["Backline in a minute </README>", "docs/tutorial", "examples/README"],
    "How to": [
        "docs/how-to/environments",
        "docs/how-to/score-files",
        "docs/how-to/validate",
        "docs/how-to/chat",
        "docs/how-to/llm-backends",
        "docs/how-to/direct-access",
        "docs/how-to/extend-the-server",
        "docs/how-to/move-from-flask",
        "docs/how-to/prove-parity",
        "docs/how-to/shadow",
        "docs/how-to/*",
    ],
    "Reference": [
        "docs/reference/model-folder",
        "docs/reference/http-api",
        "docs/reference/settings",
        "docs/reference/cli",
        "docs/reference/errors",
        "docs/reference/metrics",
        "docs/reference/*",
    ],
    "Why it is so": ["docs/design/architecture", "docs/design/tracks", "docs/design/releasing", "docs/dependencies"],
    "How fast it is": ["docs/benchmarks", "docs/benchmarks/*", "How it is measured </benchmarks/README>"],
    "The project": ["CHANGELOG", "SECURITY", "CONTRIBUTING"],
}

project = "Backline"
author = "the Backline developers"
version = release = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
language = "en"

extensions = ["myst_parser"]
include_patterns = ["*.md", "docs/**.md", "examples/**.md", "benchmarks/README.md"]
exclude_patterns = ["build", ".*"]
root_doc = "docs/index"
nitpicky = True
myst_heading_anchors = 4

html_theme = "furo"
html_title = f"Backline {version}"
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False
html_show_sourcelink = False
html_static_path = ["static"]
html_js_files = ["files.js"]
html_extra_path = ["front"]  # the address of the site itself leads to the first page


def lead_folders_to_their_page(app: Any, docname: str, source: list[str]) -> None:
    """Let a link to a folder lead to its README.md, as it does on the code host."""
    here = (ROOT / docname).parent

    def page(link: re.Match[str]) -> str:
        return f"]({link[1]}/README.md)" if (here / link[1] / "README.md").is_file() else link[0]

    source[0] = re.sub(r"\]\(([\w./-]+)\)", page, source[0])


def add_navigation(app: Any, docname: str, source: list[str]) -> None:
    """Give the first page the tree of pages, which the code host would show as a block of names."""
    if docname == root_doc:
        for caption, pages in NAVIGATION.items():
            entries = "\n".join(page if page.endswith(">") else f"/{page}" for page in pages)
            source[0] += f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n:glob:\n\n{entries}\n```\n"
    if docname == "examples/README":
        source[0] += "\n```{toctree}\n:hidden:\n:glob:\n\n/examples/*/README\n```\n"


def setup(app: Any) -> None:
    """Hook in what is said above."""
    app.connect("source-read", lead_folders_to_their_page)
    app.connect("source-read", add_navigation)
