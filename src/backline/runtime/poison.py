"""The list of requests that killed two workers, by the digest of their content."""

from __future__ import annotations

import time

_MAX_ENTRIES = 1024


class PoisonList:
    """Remembers digests for ``seconds``; bounded, the oldest go first."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until: dict[bytes, float] = {}

    def __bool__(self) -> bool:
        return bool(self._until)

    def add(self, digest: bytes) -> None:
        """Refuse this content from now on, for a while."""
        self._until.pop(digest, None)
        self._until[digest] = time.monotonic() + self._seconds
        if len(self._until) > _MAX_ENTRIES:
            del self._until[next(iter(self._until))]

    def seconds_left(self, digest: bytes) -> float:
        """Return for how long this content is still refused; 0 when it is not."""
        until = self._until.get(digest)
        if until is None:
            return 0.0
        left = until - time.monotonic()
        if left <= 0:
            del self._until[digest]
            return 0.0
        return left
