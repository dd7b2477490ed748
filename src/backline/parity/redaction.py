"""Keeps secrets out of the store: values of headers and query fields whose names say that they are secret.

Bodies are stored as they are; who records personal data has to know that he does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from backline.parity.exchange import HeaderPairs

REDACTED = "[redacted]"
SECRET_NAMES = ("authorization", "proxy-authorization", "cookie", "set-cookie", "*key*", "*token*", "*secret*",
                "*password*", "*credential*", "*signature*")  # fmt: skip
"""What is redacted unless it is kept by name; ``*`` stands for any characters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Redaction:
    """Which names are secret: the default ones and ``more``, less those in ``keep``."""

    more: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()

    def headers(self, headers: HeaderPairs) -> list[tuple[str, str]]:
        """Return the headers with the values of secret ones replaced."""
        is_secret = self._matcher()
        return [(name, REDACTED if is_secret(name) else value) for name, value in headers]

    def target(self, target: str) -> str:
        """Return path and query with the values of secret query fields replaced."""
        path, mark, query = target.partition("?")
        if not mark:
            return target
        is_secret = self._matcher()
        fields = []
        for each in query.split("&"):
            name, equals, _ = each.partition("=")
            fields.append(f"{name}={REDACTED}" if equals and is_secret(name) else each)
        return f"{path}?{'&'.join(fields)}"

    def _matcher(self) -> _Matcher:
        return _Matcher(_pattern((*SECRET_NAMES, *self.more)), _pattern(self.keep))


@dataclass(frozen=True, slots=True)
class _Matcher:
    secret: re.Pattern[str]
    kept: re.Pattern[str]

    def __call__(self, name: str) -> bool:
        return self.secret.fullmatch(name) is not None and self.kept.fullmatch(name) is None


def without_redacted(headers: HeaderPairs) -> list[tuple[str, str]]:
    """Return the headers that can be sent again: those whose values were not redacted."""
    return [(name, value) for name, value in headers if value != REDACTED]


def _pattern(names: Iterable[str]) -> re.Pattern[str]:
    parts = [".*".join(map(re.escape, name.split("*"))) for name in names]
    return re.compile("|".join(parts) or r"(?!)", re.IGNORECASE | re.DOTALL)
