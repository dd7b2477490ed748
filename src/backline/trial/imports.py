"""Which modules the code of a model directory imports, as its source says. Nothing is imported."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path

_MOST_FILES = 500
_SERVERS = ("custom_fastapi.py", "custom_flask.py")  # they run elsewhere


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """A module that is imported; ``optional``: inside ``try``, so its absence may be provided for."""

    module: str
    place: str
    optional: bool


def imports_of(folder: Path) -> tuple[list[Import], list[str]]:
    """Return the top-level modules that ``custom.py`` and what it imports of the folder import, and what is unreadable.

    Files that nothing imports, such as a training script, are not looked at.
    """
    found: dict[str, Import] = {}
    problems: list[str] = []
    waiting = [folder / "custom.py"]
    seen: set[Path] = set()
    while waiting and len(seen) < _MOST_FILES:
        path = waiting.pop()
        if path in seen or not path.is_file() or path.name in _SERVERS:
            continue
        seen.add(path)
        try:
            tree = ast.parse(path.read_bytes(), str(path))
        except (SyntaxError, ValueError) as exc:
            problems.append(f"{path.name}:{getattr(exc, 'lineno', None) or 1}: {exc.args[0]}")
            continue
        for module, line, optional, level in _imports(tree, optional=False):
            if level:
                # A relative import is of the folder: from the package that the file lies in, or one above it.
                waiting += _own(path.parents[min(level, len(path.parents)) - 1], module)
                continue
            own = _own(folder, module)
            waiting += own
            top = module.partition(".")[0]
            if own or not top:
                continue
            earlier = found.get(top)
            if earlier is None or (earlier.optional and not optional):
                place = f"{path.relative_to(folder)}:{line}"
                found[top] = Import(module=top, place=place, optional=optional)
    return sorted(found.values(), key=lambda each: each.module), problems


def imports_of_file(path: Path) -> list[Import]:
    """Return the modules that one file imports, relative ones left out. Raises ``SyntaxError``."""
    tree = ast.parse(path.read_bytes(), str(path))
    found: dict[str, Import] = {}
    for module, line, optional, level in _imports(tree, optional=False):
        top = module.partition(".")[0]
        if not level and (top not in found or found[top].optional):
            found[top] = Import(module=top, place=f"{path.name}:{line}", optional=optional)
    return list(found.values())


def _own(folder: Path, module: str) -> list[Path]:
    """Return the files of the folder that importing a module runs."""
    files = []
    path = folder
    for part in module.split("."):
        path = path / part
        files += [each for each in (path.with_suffix(".py"), path / "__init__.py") if each.is_file()]
    return files


def _imports(node: ast.AST, *, optional: bool) -> Iterator[tuple[str, int, bool, int]]:
    """Yield module, line, whether it is in ``try``, and how many dots stand before it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield alias.name, child.lineno, optional, 0
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            for name in [base, *(f"{base}.{alias.name}".lstrip(".") for alias in child.names)]:
                if name:
                    yield name, child.lineno, optional, child.level
        elif isinstance(child, ast.If) and _is_type_checking(child.test):
            yield from _imports(ast.Module(body=child.orelse, type_ignores=[]), optional=optional)
        else:
            yield from _imports(child, optional=optional or isinstance(child, ast.Try))


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )
