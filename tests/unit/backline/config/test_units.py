from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.config.problems import ValueProblem
from backline.config.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512", 512),
        ("0", 0),
        ("64k", 65_536),
        ("64KiB", 65_536),
        ("64 kib", 65_536),
        ("64Ki", 65_536),
        ("50MB", 50_000_000),
        ("1.5GiB", 1_610_612_736),
        ("2g", 2_147_483_648),
        ("1T", 1_099_511_627_776),
        ("7B", 7),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1e3", "12 parsecs", "0.3", "1.5b", "0x10", "GiB", "1,000", "nan", "١"])
def test_what_is_no_size_is_refused_with_the_mend(text: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_size(text)
    assert "64KiB" in caught.value.mend


@given(st.integers(min_value=0, max_value=1 << 60))
def test_a_formatted_size_reads_back_as_itself(size: int) -> None:
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        ("0.5", 0.5),
        ("500ms", 0.5),
        ("299ms", 0.299),
        ("30s", 30.0),
        ("10 m", 600.0),
        ("1h", 3600.0),
        (".5", 0.5),
    ],
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "inf", "nan", "3 days", "1:30", "9" * 400])
def test_what_is_no_duration_is_refused_with_the_mend(text: str) -> None:
    with pytest.raises(ValueProblem) as caught:
        parse_duration(text)
    assert "500ms" in caught.value.mend


@given(st.floats(min_value=0, max_value=1e6).filter(lambda seconds: "e" not in repr(seconds)))
def test_a_formatted_duration_reads_back_as_itself(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds
