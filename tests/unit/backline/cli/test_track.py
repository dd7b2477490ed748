from __future__ import annotations

from pathlib import Path

import pytest

from backline.cli.track import track_of

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(
    ("fastapi", "pydantic", "track"),
    [
        ("0.165.0", "2.14.4", "track current"),
        ("0.137", "2.0", "track current"),
        ("0.109.0", "2.5.0", "track floor"),
        ("0.95.0", "1.10.0", "track conservative"),
        ("0.99.1", "1.10.26", "track conservative"),
        ("0.100.0", "1.10.26", "no track that is tested"),
        ("0.165.0", "3.0.0", "no track that is tested"),
        ("not installed", "2.14.4", "no track that is tested"),
    ],
)
def test_the_track_is_told_by_the_versions(fastapi: str, pydantic: str, track: str) -> None:
    assert track_of(fastapi, pydantic) == track


@pytest.mark.parametrize(
    ("lock", "track"),
    [
        ("server", "track current"),
        ("track-plain", "track current"),
        ("track-floor", "track floor"),
        ("track-conservative-lowest", "track conservative"),
        ("track-conservative-newest", "track conservative"),
    ],
)
def test_every_lock_is_on_the_track_that_it_is_named_for(lock: str, track: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    versions = dict(line.split(" ")[0].split("==") for line in lines if "==" in line)
    assert track_of(versions["fastapi"], versions["pydantic"]) == track
