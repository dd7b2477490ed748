"""``backline env``: the environments that are built for models."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from backline.cli.group import SuggestingGroup
from backline.cli.messages import CallError, warn
from backline.config.python import AUTO, is_to_be_built
from backline.config.settings import Settings
from backline.config.sources import load_settings
from backline.config.units import parse_duration

_DAY = 86_400.0
_CACHE_HELP = "Where environments are kept; the same as BACKLINE_ENV_CACHE."
_directory = click.argument("directory", metavar="DIR")
_cache = click.option("--env-cache", metavar="DIR", help=_CACHE_HELP)
_python = click.option(
    "--env", "--python", "python", metavar="PATH", help="A packed conda environment (.tar.gz) instead of DIR's files."
)


@click.group(cls=SuggestingGroup)
def env() -> None:
    """Build, list and remove the environments that --env auto gives to models.

    A directory with requirements.txt, pyproject.toml, uv.lock, a packed conda environment or .python-version gets an
    environment of its own. It is built once, kept under the hash of what asks for it, and shared by all who ask for the
    same.
    """


@env.command()
@_directory
@_python
@_cache
def build(directory: str, python: str | None, env_cache: str | None) -> int:
    """Build the environment of the model in DIR, if it is not there, and print its interpreter.

    As --env auto does at the start of a server; ahead of time, as when an image is made, servers then start at once and
    without a network.
    """
    settings = _settings(directory, python, env_cache)
    from backline.runtime.environments import prepare
    from backline.runtime.environments.cache import Watch

    started = time.monotonic()
    told = False

    def tell(text: str) -> None:
        nonlocal told
        told = True
        click.echo(text[:1].upper() + text[1:], err=True)

    with _status() as show:
        held = prepare.build(settings, Watch(tell=tell, show=show, timeout=settings.workers.env_timeout))
    if held is None:
        raise _asks_for_nothing(settings)
    with held:
        seconds = f" in {time.monotonic() - started:.1f} s" if told else ", which was there"
        click.echo(f"{len(held.packages)} packages, Python {held.marker['version']}{seconds}", err=True)
        click.echo(held.python)
    return 0


@env.command()
@_directory
@_python
@_cache
def explain(directory: str, python: str | None, env_cache: str | None) -> int:
    """Tell what the model in DIR asks for, where its environment is, and what is in it."""
    settings = _settings(directory, python, env_cache)
    from backline.runtime.environments import prepare

    recipe = prepare.recipe_for(settings)
    if recipe is None:
        raise _asks_for_nothing(settings)
    cache = prepare.cache_for(settings)
    held = cache.find(recipe)
    rows = [
        ("asked by", str(recipe.source)),
        ("python", f"{recipe.python or 'its own'} ({recipe.python_from})"),
        ("key", f"{recipe.key}, made of {', '.join((*recipe.inputs, 'Python, system'))}"),
        *(("not used", each) for each in recipe.overlooked),
        ("directory", str(cache.folder(recipe.key))),
        ("state", "not built; backline env build makes it" if held is None else f"built {_when(held.marker['built'])}"),
    ]
    packages: list[str] = []
    if held is not None:
        with held:
            packages = held.packages
        rows += [("interpreter", f"{held.python} (Python {held.marker['version']})")]
        rows += [("packages", packages[0] if packages else "none"), *(("", each) for each in packages[1:])]
    for name, value in rows:
        click.echo(f"{name:<12}{value}")
    return 0


@env.command(name="list")
@_cache
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_environments(env_cache: str | None, as_json: bool) -> int:
    """List the environments, the one used last first."""
    entries = list(_open_cache(env_cache).entries())
    if as_json:
        document = [
            {**each.marker, "key": each.key, "directory": str(each.folder), "complete": each.complete,
             "in_use": each.in_use, "used": each.used, "bytes": each.bytes}
            for each in entries
        ]  # fmt: skip
        click.echo(json.dumps(document, indent=2))
        return 0
    if not entries:
        click.echo("No environments.", err=True)
        return 0
    table = [("key", "python", "packages", "size", "used", "made for")]
    for each in entries:
        if each.complete:
            used = "now" if each.in_use else _when(each.used)
            count = str(len(each.marker["packages"]))
            table.append((each.key, each.marker["version"], count, _megabytes(each.bytes), used, each.marker["source"]))
        else:
            state = "being built" if each.in_use else "unfinished"
            table.append((each.key, "", "", _megabytes(each.bytes), state, ""))
    widths = [max(len(row[column]) for row in table) for column in range(5)]
    for row in table:
        click.echo("  ".join([*(f"{row[column]:<{widths[column]}}" for column in range(5)), row[5]]).rstrip())
    return 0


@env.command()
@_cache
@click.option(
    "--unused", default="30d", show_default=True, metavar="TIME", help="Remove what was not used for as long."
)
@click.option("--all", "everything", is_flag=True, help="Remove all that is not in use.")
def prune(env_cache: str | None, unused: str, everything: bool) -> int:
    """Remove environments that were not used for a while, and what interrupted builds have left.

    What a running server uses is never removed; whoever asks for a removed one builds it again.
    """
    seconds = 0.0 if everything else _seconds(unused)
    cache = _open_cache(env_cache)
    removed = freed = 0
    for each in cache.entries():
        if each.complete and time.time() - each.used < seconds:
            continue
        if each.in_use or not cache.remove(each.key):
            click.echo(f"{each.key} is in use", err=True)
            continue
        removed += 1
        freed += each.bytes
    click.echo(f"Removed {removed} environment{'' if removed == 1 else 's'}, {_megabytes(freed)}", err=True)
    return 0


def _settings(directory: str, python: str | None, env_cache: str | None) -> Settings:
    resolved = load_settings(directory, {"workers.python": python, "workers.env_cache": env_cache})
    warn(resolved.warnings)
    settings = resolved.settings
    if is_to_be_built(settings.workers.python):
        return settings
    if resolved.sources["workers.python"].kind == "default":  # the question is what auto would do
        return load_settings(directory, {"workers.python": AUTO, "workers.env_cache": env_cache}).settings
    raise CallError(
        f"the model has an environment already: {settings.workers.python} ({resolved.sources['workers.python']})",
        "ask for another with --env auto",
    )


def _open_cache(env_cache: str | None) -> Any:
    from backline.runtime.environments import prepare

    return prepare.cache_for(load_settings(Path(), {"workers.env_cache": env_cache}).settings)


def _asks_for_nothing(settings: Settings) -> CallError:
    return CallError(
        f"{settings.model.code_dir} asks for no environment: with --env auto it is served in the server's own",
        "add a requirements.txt, pyproject.toml, uv.lock or .python-version",
    )


@contextlib.contextmanager
def _status() -> Iterator[Any]:
    """Give a function that shows what is being done: on a terminal in one line that changes, elsewhere not at all."""
    if not sys.stderr.isatty():
        yield lambda text: None
        return
    from rich.console import Console

    with Console(stderr=True).status("looking") as status:
        yield lambda text: status.update(text.replace("[", "\\["))


def _when(timestamp: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(timestamp))


def _seconds(text: str) -> float:
    try:
        return float(text[:-1]) * _DAY if text.endswith("d") else parse_duration(text)
    except ValueError:
        raise CallError(f"--unused {text} is no time", "write 30d, 12h or 90m") from None


def _megabytes(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
