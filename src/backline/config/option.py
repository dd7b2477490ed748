"""What a setting is beside its value: help, flags, environment variables, range. Stands in the field's metadata."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from backline.config.kinds import Kind

_METADATA_KEY = "backline.option"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One setting.

    ``flags`` set it, or turn a switch on; messages name the first. ``off_flag`` turns a switch off, ``--no-...`` where
    it is empty. ``twins`` are environment variables of the documented contract, below ``BACKLINE_<FLAG>``; ``clamped``
    names those whose value is moved into a range rather than refused. ``least`` and ``most`` are inclusive; ``zero``
    says what 0 means where it is allowed below ``least``. ``in_file`` is false for what ``backline.toml`` cannot set.
    ``commands`` are those that take it.
    """

    section: str
    name: str
    kind: Kind
    help: str
    default: Any
    flags: tuple[str, ...]
    off_flag: str = ""
    twins: tuple[str, ...] = ()
    clamped: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    least: float | None = None
    most: float | None = None
    zero: str = ""
    show_none: str = "none"
    in_file: bool = True
    commands: tuple[str, ...] = ("serve", "score")

    @property
    def dotted(self) -> str:
        """``section.name``: the name everywhere but on the command line."""
        return f"{self.section}.{self.name}"

    @property
    def variables(self) -> tuple[str, ...]:
        """The environment variables, the strongest first."""
        ours = [
            f"BACKLINE_{flag.lstrip('-').replace('-', '_').upper()}" for flag in self.flags if flag.startswith("--")
        ]
        return (*dict.fromkeys([f"BACKLINE_{self.name.upper()}" if not ours else ours[0], *self.twins]),)

    def flag_for(self, value: Any) -> str:
        """Return the flag that gives ``value``: the opposite one for a switch that is turned off."""
        if self.kind.is_switch and value is False:
            return self.off_flag or "--no-" + self.flags[0].removeprefix("--")
        return self.flags[0]

    def show(self, value: Any) -> str:
        """Return the value as people write it."""
        return self.show_none if value is None else self.kind.show(value)


def setting(default: Any, kind: Kind, help: str, **more: Any) -> Any:  # noqa: A002 - reads as in click
    """Return a dataclass field that is a setting; ``more`` are further fields of ``Option``."""
    return dataclasses.field(default=default, metadata={_METADATA_KEY: {"kind": kind, "help": help, **more}})


def options_of(section: str, settings_class: type) -> tuple[Option, ...]:
    """Return the options of one section's dataclass, in order."""
    found = []
    for field in dataclasses.fields(settings_class):
        described = dict(field.metadata[_METADATA_KEY])
        if "flags" not in described:
            described["flags"] = ("--" + field.name.replace("_", "-"),)
        found.append(Option(section=section, name=field.name, default=field.default, **described))
    return tuple(found)
