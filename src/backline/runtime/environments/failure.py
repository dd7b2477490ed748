"""Tells why ``uv`` could not build an environment: what, in which line, how to mend it."""

from __future__ import annotations

import re

from backline.errors import EnvironmentFailed
from backline.runtime.environments import requirements
from backline.runtime.environments.recipe import Recipe
from backline.runtime.environments.requirements import Line

_MAX_LINES = 20
_MAX_CHARACTERS = 2500
_NOISE = re.compile(
    r"^(Using (CPython|Python)|Creating virtual|Activate with|Resolved|Prepared|Downloading| Downloaded|\s*Building"
    r"|Installed|warning: )"
)
_WORD = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")


def explain(recipe: Recipe, text: str) -> EnvironmentFailed:
    """Return the error for what ``uv`` has written before it gave up."""
    said = _trimmed(text)
    what, mend = _judge(recipe, text)
    lines = _lines_named(recipe, said)
    where = str(recipe.source)
    if lines:
        where = "; ".join(f"{line.file}:{line.number} ({line.text})" for line in lines)
    return EnvironmentFailed(f"{what}\n{said}", where=where, mend=mend)


def _judge(recipe: Recipe, text: str) -> tuple[str, str]:
    """Return what went wrong and how to mend it, by the words of uv that tell one case from another."""
    version = recipe.python or "its version"
    choose = f"choose the Python in .python-version (now {version}: {recipe.python_from})"
    name = recipe.source.name
    if "network was disabled" in text:
        return (
            "a package is not in uv's cache, and the network is switched off (UV_OFFLINE)",
            "build the environment once with the network, with backline env build",
        )
    # Before the network: what uv says of a failed build may hold anything.
    if found := re.search(r"Failed to (?:build|download and build) `?([^`\s]+)`?", text):
        return (
            f"{found[1]} has no wheel for Python {version} here, and building it from source failed",
            f"ask for a version that has one, or {choose}",
        )
    if re.search(r"No interpreter found|Python interpreter|interpreter .* failed|python-build-standalone", text):
        return (
            f"there is no Python {version} here, and uv could not bring it",
            f"install it (apt, pyenv, uv python install '{version}'), or name another in .python-version",
        )
    if re.search(r"error sending request|dns error|Connect|timed out|Failed to fetch", text):
        return (
            "the package index cannot be reached",
            "check the network, or name the index in UV_DEFAULT_INDEX or uv.toml (uv reads nothing of pip's)",
        )
    if found := re.search(r"[Bb]ecause (\S+) was not found in the package registry", text):
        return f"there is no package {found[1]} in the index", f"mend its name in {name}, or name the index that has it"
    if found := re.search(r"(?:there is no version of|there are no versions of) (\S+?)(?:,| and|$)", text):
        return f"there is no {found[1]} in the index", f"ask for a version that there is in {name}"
    if "does not satisfy Python" in text or "requires-python" in text:
        return f"a package does not take Python {version}", f"ask for another version of it in {name}, or {choose}"
    if "No solution found" in text:
        return f"the packages that {name} asks for do not go together", "change one of the lines named"
    if "parse" in text:
        return f"{name} cannot be read", "write one requirement a line, as pip takes them"
    return "uv could not build it", f"try it by hand: uv pip install -r {recipe.source}"


def _trimmed(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not _NOISE.match(line)]
    if len(lines) > _MAX_LINES:
        half = _MAX_LINES // 2
        lines = [*lines[:half], f"... {len(lines) - _MAX_LINES} lines ...", *lines[-half:]]
    trimmed = "\n".join(f"    {line}" for line in lines)
    return trimmed if len(trimmed) <= _MAX_CHARACTERS else trimmed[:_MAX_CHARACTERS] + " ..."


def _lines_named(recipe: Recipe, said: str) -> list[Line]:
    """Return the lines of the requirements file whose packages uv names."""
    if recipe.kind != "requirements":
        return []
    named = {requirements.normalized(word) for word in _WORD.findall(re.sub(r"[<>=!~\[].*?(?=[\s,`]|$)", " ", said))}
    return [line for line in requirements.read_lines(recipe.source) if line.name and line.name in named]
