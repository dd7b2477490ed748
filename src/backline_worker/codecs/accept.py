"""Choosing the answer's format by the ``Accept`` header (RFC 9110, section 12.5.1)."""

from __future__ import annotations

import functools
import re
from typing import List, NamedTuple, Sequence, Tuple

from ..errors import NotAcceptable
from .formats import canonical_type

# Commas and semicolons inside a quoted parameter do not separate anything.
_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PARAMETER = re.compile(r'(?:[^;"]|"(?:[^"\\]|\\.)*"?)+')
_QUALITY = re.compile(r"(?:0(?:\.[0-9]*)?|1(?:\.0*)?|\.[0-9]+)\Z")


class _Range(NamedTuple):
    type: str
    subtype: str
    quality: float

    def specificity(self, content_type: str) -> int:
        """Say how closely this range names the type: 0 not at all, 1 ``*/*``, 2 ``text/*``, 3 by its name."""
        if self.type == "*":
            return 1 if self.subtype == "*" else 0
        main = content_type.partition("/")[0]
        if self.subtype == "*":
            return 2 if self.type == main else 0
        return 3 if canonical_type(f"{self.type}/{self.subtype}") == canonical_type(content_type) else 0


def choose_output(accept: str, offered: Sequence[str]) -> str:
    """Return the content type to answer with: of those offered, the one that the client likes best.

    A type's quality is that of the range that names it most closely. Between equals the one that is named, rather than
    matched by a wildcard, wins, then the one named first, then the one offered first. Where the client named an alias
    of a type, that alias is returned. No header is the first one offered. Parameters other than ``q`` do not matter.

    Raises ``NotAcceptable``, naming what is on offer, when every type is unwanted.
    """
    return _choose(accept, tuple(offered))


@functools.lru_cache(maxsize=256)
def _choose(accept: str, offered: Tuple[str, ...]) -> str:
    if not accept.strip():
        return offered[0]
    ranges = _parse(accept)
    best: Tuple[float, int, int, int] = (0.0, 0, 0, 0)
    chosen = ""
    for place, content_type in enumerate(offered):
        matches = [(entry.specificity(content_type), -order, entry) for order, entry in enumerate(ranges)]
        matches = [match for match in matches if match[0]]
        if not matches:
            continue
        closest = max(match[0] for match in matches)
        # The same type twice with different wishes: the kinder one counts.
        specificity, order, entry = max(
            (match for match in matches if match[0] == closest), key=lambda match: (match[2].quality, match[1])
        )
        rank = (entry.quality, specificity, order, -place)
        if entry.quality > 0 and (not chosen or rank > best):
            best = rank
            chosen = content_type if specificity < 3 else f"{entry.type}/{entry.subtype}"
    if not chosen:
        raise NotAcceptable(
            "nothing that Accept: {} asks for can be answered here; on offer are {}".format(
                accept if len(accept) <= 200 else accept[:200] + "...", ", ".join(offered)
            ),
            details={"offered": list(offered)},
        )
    return chosen


def _parse(accept: str) -> List[_Range]:
    """Return the header's media ranges; what is no media range is passed over, as browsers and proxies do."""
    ranges = []
    for match in _ELEMENT.finditer(accept):
        pieces = [piece.strip() for piece in _PARAMETER.findall(match.group())]
        if not pieces:
            continue
        main, slash, subtype = pieces[0].lower().partition("/")
        main, subtype = main.strip(), subtype.strip()
        if main == "*" and not slash:  # sent by the URL classes of old Java
            subtype, slash = "*", "/"
        if main and slash and subtype:
            ranges.append(_Range(main, subtype, _quality(pieces[1:])))
    return ranges


def _quality(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            value = value.strip()
            return float(value) if _QUALITY.match(value) else 1.0
    return 1.0
