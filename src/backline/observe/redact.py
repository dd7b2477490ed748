"""Takes secrets out of text that is written or shown: credentials in headers and URLs, keys in the usual shapes.

What a model prints, and what an error quotes, may hold any of them. What is known to be a secret is found literally,
the rest by its name or its shape; text that only speaks of a token ("max_tokens=512") stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HIDDEN = "[redacted]"

_LEAST_LENGTH = 8  # characters of a known secret: shorter ones would blot out ordinary words

# Most lines hold nothing of the kind, and this is quicker than what follows.
_SUSPICIOUS = re.compile(
    r"auth|bearer|basic |cookie|key|secret|passw|pwd|credential|token|signature|sig=|://|eyJ|\bsk-|\bgh[opsu]_|\bhf_|\bxox|nvapi",
    re.IGNORECASE,
)

_TELLTALE = (
    r"(?:proxy-)?authorization|(?:set-)?cookie|(?:x-)?(?:[a-z0-9]+[-_])*api[-_]?key|x-[a-z0-9-]*(?:token|secret)"
    r"|(?:[a-z0-9]+[-_])*(?:password|passwd|secret|secret[-_]key|private[-_]key|access[-_]key|credentials?)"
    r"|(?:[a-z0-9]+[-_])*(?:access|auth|api|bearer|refresh|id|session|secret)[-_]token"
)
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # scheme://user:password@host
    (re.compile(r"(?<=://)[^\s/?#@\"'<>]+@"), f"{HIDDEN}@"),
    # name: value, name=value, "name": "value", ('name', 'value'), b'name', b'value'
    (
        re.compile(
            rf"(?<![a-z0-9])({_TELLTALE})(\\?[\"']?\s*(?:[:=]|,\s?(?=b?[\"']))\s*)"
            r"(?:(b?\\?[\"'])(?:(?:bearer|basic)\s+)?(?!\[redacted\])(?:[^\"'\\]|\\(?![\"']))+"
            r"|(?!b?\\?[\"'])(?:(?:bearer|basic)\s+)?(?!\[redacted\]|None\b|null\b)[^\s&,;\"')}\]]+)",
            re.IGNORECASE,
        ),
        rf"\1\2\3{HIDDEN}",
    ),
    # --api-key xyz, as in a command line
    (re.compile(rf"(--(?:{_TELLTALE}|token)[ =]['\"]?)(?!\[redacted\]|-)[^\s'\"]+", re.IGNORECASE), rf"\1{HIDDEN}"),
    # Bearer xyz, without its header's name
    (re.compile(r"\b(bearer|basic)(\s+)(?!\[redacted\])[A-Za-z0-9._~+/=-]{8,}", re.IGNORECASE), rf"\1\2{HIDDEN}"),
    # ?token=...&sig=... in a URL or a query string
    (
        re.compile(
            r"([?&](?:[a-z0-9_.-]*(?:token|signature|credential|secret|password|api[-_]?key)|key|sig|auth|code)=)"
            r"(?!\[redacted\])[^\s&#\"'<>]+",
            re.IGNORECASE,
        ),
        rf"\1{HIDDEN}",
    ),
    # JSON Web Tokens and keys whose makers gave them a shape
    (re.compile(r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
    (
        re.compile(
            r"\b(?:sk-[A-Za-z0-9_-]{16,}|nvapi-[A-Za-z0-9_-]{16,}|hf_[A-Za-z0-9]{16,}|gh[opsu]_[A-Za-z0-9]{16,}"
            r"|xox[abprs]-[A-Za-z0-9-]{10,}|AKIA[A-Z0-9]{16})"
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
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text
