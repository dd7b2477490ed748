"""A group of commands that tells an unknown one with the nearest name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from backline.cli.messages import CallError, similar


class SuggestingGroup(click.Group):
    """``aliases`` are further names; ``not_here`` maps names that people may expect to what to do instead."""

    def __init__(
        self,
        *args: Any,
        aliases: Mapping[str, str] | None = None,
        not_here: Mapping[str, str] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(*args, **more)
        self.aliases = dict(aliases or {})
        self.not_here = dict(not_here or {})

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. Raises ``CallError`` for an unknown one."""
        name = args[0]
        known = self.list_commands(ctx)
        real_name = self.aliases.get(name, name)
        if real_name in known:
            return super().resolve_command(ctx, [real_name, *args[1:]])
        if name.startswith("-"):
            return super().resolve_command(ctx, args)  # an unknown flag: click says so
        if name in self.not_here:
            raise CallError(f"there is no command {name} here", self.not_here[name], ctx)
        near = similar(name, [*known, *self.aliases])
        mend = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(known)}"
        raise CallError(f"unknown command {name}", mend, ctx)
