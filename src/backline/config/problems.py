"""How a setting that cannot be used is told: what, where, how to mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from backline.errors import ConfigError


class SettingError(ConfigError):
    """A setting or a file of the model folder cannot be used.

    ``usage`` is true where the mistake lies in how Backline was called (a flag, an environment variable, a path that is
    not there) and false where it lies in what a file of the model folder holds.
    """

    def __init__(self, what: str, *, where: str, mend: str, usage: bool = False) -> None:
        super().__init__(f"{where}: {what}; {mend}")
        self.what = what
        self.where = where
        self.mend = mend
        self.usage = usage


class ValueProblem(ValueError):
    """A value is not of its kind; says what is wrong and how to mend it, the caller adds where it stands."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(f"{what}; {mend}")
        self.what = what
        self.mend = mend


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> list[str]:
    """Return up to ``count`` names that look like ``name``, the nearest first."""
    by_folded = {_folded(each): each for each in known}
    matches = difflib.get_close_matches(_folded(name), by_folded, n=count, cutoff=0.6)
    return [by_folded[match] for match in matches]


def did_you_mean(name: str, known: Iterable[str], *, otherwise: str) -> str:
    """Return ``did you mean a, b?``, or ``otherwise`` where nothing is near."""
    names = nearest(name, known)
    return f"did you mean {' or '.join(names)}?" if names else otherwise


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")
