"""Takes secrets out of text that is written or shown: credentials in headers and URLs, keys in the usual shapes.

What a model prints, and what an error quotes, may hold any of them. What is known to be a secret is found literally,
the rest by its name or its shape; text that only speaks of a token ("max_tokens=512") stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

HIDDEN = "[redacted]"

_LEAST_LENGTH = 8  # characters of a known secret: shorter ones would blot out ordinary words

# Most lines hold nothing of the kind, and this is quicker than what follows.
_SUSPICIOUS = re.compile(
    r"auth|bearer|basic |cookie|key|secret|passw|pwd|credential|token|signature|sig=|://[^\s/]*@|eyJ|\bsk-|\bgh[opsu]_"
    r"|\bhf_|\bxox|nvapi|AKIA",
    re.IGNORECASE,
)

# Anybody may write into a log: each pattern has to take a time that grows with the text and no faster. So a name is
# taken whole, from its start, and judged apart.
# name: value, name=value, "name": "value", ('name', 'value'), b'name', b'value'
_NAME = re.compile(r"(?<![A-Za-z0-9_-])([A-Za-z0-9_-]{2,64}+)\\?[\"']?\s{0,4}(?:[:=]|,\s?(?=b?[\"']))\s{0,4}")
_VALUE = re.compile(
    r"(b?\\?[\"'])(?:(?:bearer|basic)\s{1,4})?(?!\[redacted\])(?:[^\"'\\]|\\(?![\"']))++"
    r"|(?!b?\\?[\"'])(?:(?:bearer|basic)\s{1,4})?(?!\[redacted\]|None\b|null\b)[^\s&,;\"')}\]]++",
    re.IGNORECASE,
)
_TELLING_NAME = re.compile(
    r"(?:.*[-_])?(?:authorization|cookie|api[-_]?keys?|password|passwd|pwd|secret|secret[-_]key|private[-_]key|access[-_]key"
    r"|credentials?|(?:access|auth|api|bearer|refresh|id|session|secret)[-_]token)|x-.*token",
    re.IGNORECASE,
)
_TELLING_FLAG = re.compile(rf"--(?:{_TELLING_NAME.pattern}|token)", re.IGNORECASE)

_Replacement = Callable[[re.Match[str]], str] | str


def _hide_named(text: str) -> str:
    pieces = []
    done = 0
    for name in _NAME.finditer(text):
        if name.start() >= done and _TELLING_NAME.fullmatch(name[1]) and (value := _VALUE.match(text, name.end())):
            pieces += [text[done : name.end()], value[1] or "", HIDDEN]
            done = value.end()
    return "".join([*pieces, text[done:]]) if pieces else text


def _flag(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}{HIDDEN}" if _TELLING_FLAG.fullmatch(match[1]) else match[0]


_PATTERNS: tuple[tuple[re.Pattern[str], _Replacement], ...] = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^\s/?#@\"'<>]++@"), f"{HIDDEN}@"),
    # --api-key xyz, as in a command line
    (re.compile(r"(?<![\w-])(--[a-z0-9-]{2,64}+)([ =]['\"]?)(?!\[redacted\]|-)[^\s'\"]++", re.IGNORECASE), _flag),
    # Bearer xyz, without its header's name
    (re.compile(r"\b(bearer|basic)(\s{1,4})(?!\[redacted\])[A-Za-z0-9._~+/=-]{8,}+", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    # ?token=...&sig=... in a URL or a query string
    (
        re.compile(
            r"([?&](?:[a-z0-9_.-]{0,64}(?:token|signature|credential|secret|password|api[-_]?key)|key|sig|auth|code)=)"
            r"(?!\[redacted\])[^\s&#\"'<>]++",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # JSON Web Tokens and keys whose makers gave them a shape
    (re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+(?:\.[A-Za-z0-9_-]*+)?"), HIDDEN),
    (
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{16,}+|nvapi-[A-Za-z0-9_-]{16,}+|hf_[A-Za-z0-9]{16,}+|gh[opsu]_[A-Za-z0-9]{16,}+"
            r"|xox[abprs]-[A-Za-z0-9-]{10,}+|AKIA[A-Z0-9]{16})"
        ),
        HIDDEN,
    ),
)


class Redactor:
    """Replaces secrets by ``[redacted]``; ``known`` are values to be found wherever they stand, such as a key."""

    def __init__(self, known: Iterable[str] = ()) -> None:
        values = sorted({value for value in known if len(value) >= _LEAST_LENGTH}, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, values))) if values else None

    def __call__(self, text: str) -> str:
        """Return ``text`` without what looks like a secret."""
        if self._known is not None:
            text = self._known.sub(HIDDEN, text)
        if _SUSPICIOUS.search(text) is None:
            return text
        text = _hide_named(text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text
