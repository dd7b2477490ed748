"""Keeps a message that comes again and again from filling the log: the first few are written, the others counted."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

_DIGITS = re.compile(r"\d+")
_KEY_LENGTH = 200  # characters of a message that tell it from others
_MOST_KEYS = 1000

Key = tuple[str, int, str]


class Repeated(NamedTuple):
    """A message that was held back ``repeats`` times within ``seconds``; ``text`` is the last of them."""

    logger: str
    level: int
    text: str
    repeats: int
    seconds: float


class _Seen:
    __slots__ = ("held_back", "since", "text", "written")

    def __init__(self, since: float) -> None:
        self.since = since
        self.written = 0
        self.held_back = 0
        self.text = ""


class Repeats:
    """Says which messages are written. Alike are messages of one logger and level that differ in numbers only."""

    WINDOW = 10.0  # seconds

    def __init__(self) -> None:
        self._seen: dict[Key, _Seen] = {}

    def admit(self, logger: str, level: int, text: str, *, burst: int, now: float) -> bool:
        """Whether this message is to be written: it is among the first ``burst`` of its kind in this window."""
        key = (logger, level, _DIGITS.sub("#", text[:_KEY_LENGTH]))
        seen = self._seen.get(key)
        if seen is None:
            if len(self._seen) >= _MOST_KEYS:
                return True  # so many kinds are no repeats
            seen = self._seen[key] = _Seen(now)
        if seen.written < burst:
            seen.written += 1
            return True
        seen.held_back += 1
        seen.text = text
        return False

    def take_ended(self, now: float, *, all_of_them: bool = False) -> Iterator[Repeated]:
        """Return what was held back in windows that are over, or in all of them, and forget these."""
        for key, seen in list(self._seen.items()):
            if now - seen.since < self.WINDOW and not all_of_them:
                continue
            del self._seen[key]
            if seen.held_back:
                yield Repeated(key[0], key[1], seen.text, seen.held_back, now - seen.since)
