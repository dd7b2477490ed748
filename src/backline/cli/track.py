"""Tells on which track of dependencies the server runs; ``docs/design/tracks.md`` has them."""

from __future__ import annotations

import re

# From, and to before which, FastAPI and pydantic a track goes; the same as in constraints/, which an install lacks.
_TRACKS = {
    "track current": (((0, 137), (1, 0)), ((2, 0), (3, 0))),
    "track floor": (((0, 109), (0, 137)), ((2, 5), (3, 0))),
    "track conservative": (((0, 95), (0, 100)), ((1, 10), (2, 0))),
}


def track_of(fastapi: str, pydantic: str) -> str:
    """Return the track of these versions, as ``--version`` names it."""
    versions = [_numbers(fastapi), _numbers(pydantic)]
    for track, bounds in _TRACKS.items():
        if all(lowest <= version < end for version, (lowest, end) in zip(versions, bounds, strict=True)):
            return track
    return "no track that is tested"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
