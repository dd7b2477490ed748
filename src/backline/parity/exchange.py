"""A request and its answer, as they are recorded, replayed and compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

HeaderPairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request without its host: ``target`` is path and query as on the wire, percent-encoded."""

    method: str
    target: str
    headers: HeaderPairs = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. ``error`` says why there is no complete answer; then ``status`` may be 0.

    ``seconds`` are from the first byte of the request to the last of the answer; ``None`` where nobody measured.
    """

    status: int
    headers: HeaderPairs = ()
    body: bytes = b""
    seconds: float | None = None
    error: str | None = None

    def header(self, name: str) -> str:
        """Return a header's value, the last where there are several, and nothing where there is none."""
        return header_of(self.headers, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A request, when it was made (seconds since 1970), and what was answered, where that is known."""

    request: Request
    answer: Answer | None = None
    at: float = field(default=0.0)


def header_of(headers: HeaderPairs, name: str) -> str:
    """Return the last value of a header, or nothing."""
    return next((value for key, value in reversed(headers) if key.lower() == name), "")


def media_type(content_type: str) -> str:
    """Return a content type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()
