"""The project's own papers agree with each other."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")]


def project() -> dict[str, object]:
    content: dict[str, object] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return content


def names(requirements: object) -> list[str]:
    assert isinstance(requirements, list)
    return [re.split(r"[\[<>=; ]", entry, maxsplit=1)[0].lower() for entry in requirements if isinstance(entry, str)]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_holds_versions_and_hashes_and_nothing_of_the_machine_that_made_it(lock: Path) -> None:
    for line in lock.read_text().splitlines():
        assert re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^/\\]+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line


def test_the_server_gets_the_same_versions_for_use_and_for_development() -> None:
    server, dev = (
        set(re.findall(r"^\S+==\S+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("server.txt", "dev.txt")
    )
    assert server <= dev


def test_every_dependency_has_its_reason() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text()
    first_cells = re.findall(r"^\| ([^|]+) \|", page, re.MULTILINE)
    explained = {name.split("[")[0] for cell in first_cells for name in cell.split(", ")}
    content = project()
    table, groups, build = content["project"], content["dependency-groups"], content["build-system"]
    assert isinstance(table, dict)
    assert isinstance(groups, dict)
    assert isinstance(build, dict)
    declared = {
        *names(table["dependencies"]),
        *names(groups["lint"]),
        *names(groups["test"]),
        *names(build["requires"]),
    }
    assert declared <= explained


def test_every_example_is_in_the_list_and_says_what_it_is() -> None:
    folders = {folder.name for folder in (ROOT / "examples").iterdir() if folder.is_dir()}
    listed = set(re.findall(r"^\| \[([\w-]+)\]\(\1\)", (ROOT / "examples" / "README.md").read_text(), re.MULTILINE))
    assert listed == folders
    for folder in folders:
        assert (ROOT / "examples" / folder / "README.md").read_text().startswith("# ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), target
