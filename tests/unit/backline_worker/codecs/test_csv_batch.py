"""Read together is read alone: the same values, the same types, or not read together."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backline_worker.codecs import csv
from backline_worker.codecs.csv_batch import decode_together
from backline_worker.errors import RequestError

HOSTILE = [
    *("1", "1.0", "01", "-0", "0.0", "1e5", "1e400", "0x10", "+1", ".5", "5.", "1_000", "1,5"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" * 40),
    *("", "NA", "NaN", "nan", "null", "None", "N/A", "#N/A", "-nan", "inf", "-Infinity", "Inf"),
    *("True", "False", "TRUE", "true", "false", "yes", "t", "F"),
    *(
        "2024-01-01",
        "12:30",
        "a",
        "x y",
        " 1",
        "1 ",
        " a",
        "é",
        "\u200b",
        "\ufeff",
        "'1'",
        '"1"',
        '"a,b"',
        '"a\nb"',
        "\t",
    ),
]
cells = st.sampled_from(HOSTILE) | st.floats(allow_nan=False).map(repr) | st.integers().map(str)


@st.composite
def bodies(draw: st.DrawFn) -> list[bytes]:
    columns = draw(st.integers(1, 3))
    # Now and then a row is too long or too short.
    lengths = st.sampled_from([columns] * 8 + [columns + 1, max(1, columns - 1)])
    row = lengths.flatmap(lambda length: st.lists(cells, min_size=length, max_size=length).map(",".join))
    rows = st.lists(row, min_size=1, max_size=3)
    header = ",".join("abc"[:columns])
    ends = st.sampled_from(["", "\n", "\n\n", "\r\n", "\n \n"])
    texts = st.builds(lambda lines, end: "\n".join([header, *lines]) + end, rows, ends)
    return [text.encode() for text in draw(st.lists(texts, min_size=2, max_size=5))]


def alone(body: bytes) -> pd.DataFrame | None:
    try:
        return csv.decode(body)
    except RequestError:
        return None


@given(bodies())
@settings(max_examples=500)
@example([b"a,b\n1,x\n", b"a,b\n1.0,x\n", b"a,b\nNA,x\n"])
@example([b"a,b\n1,x\n", b"a,b\n1,2\n"])
@example([b"a,b\n1.5,True\n", b"a,b\n2.5,x\n"])
@example([b"a,b\n1.5,x\n", b"a,b\n2.5,\n"])
def test_what_is_read_together_is_what_reading_alone_gives(sent: list[bytes]) -> None:
    joined = decode_together(sent)
    if joined is None:
        return
    assert len(joined.frame) == sum(joined.rows)
    start = 0
    for member, rows in zip(joined.members, joined.rows):  # noqa: B905  (Python 3.8 has no strict)
        part = joined.frame.iloc[start : start + rows].reset_index(drop=True)
        start += rows
        expected = alone(sent[member])
        assert expected is not None
        pd.testing.assert_frame_equal(part, expected, check_exact=True)


def test_plain_bodies_are_read_together() -> None:
    joined = decode_together([b"a,b\n%d.5,c%d\n" % (number, number) for number in range(32)])
    assert joined is not None
    assert joined.members == list(range(32))
    assert joined.rows == [1] * 32
    assert joined.frame["a"].tolist() == [number + 0.5 for number in range(32)]


@pytest.mark.parametrize(
    "odd",
    [
        b"b,a\n1.5,x\n",
        b"a,b\n1.5\n",
        b"a,b\n1.5,x,y\n",
        b'a,b\n1.5,"x"\n',
        b"a,b\n\xff,x\n",
        b"a,b\n1,x\n",
        b"a,b\n",
        b"",
        b"a,b\r\n1.5,x\r\n",
        b"a,b\n\n1.5,x\n",
        b"a,b\n1,2,3\n4\n",
    ],
)
def test_a_body_that_is_not_like_the_others_is_left_to_be_read_alone(odd: bytes) -> None:
    joined = decode_together([b"a,b\n0.5,x\n", odd, b"a,b\n2.5,y\n"])
    assert joined is None or joined.members == [0, 2]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rows_too_long_and_too_short_that_balance_out_are_not_read_together(order: tuple[int, int]) -> None:
    sent = [b"a,b\n1,2,3\n4\n", b"a,b\n1.5,x\n"]
    assert decode_together([sent[place] for place in order]) is None


def test_a_header_with_a_name_twice_is_not_read_together() -> None:
    assert decode_together([b"a,a\n1.5,2.5\n", b"a,a\n1.5,2.5\n"]) is None


def test_a_table_of_the_rest_is_made_where_one_member_is_uncertain() -> None:
    joined = decode_together([b"a,b\n0.5,x\n", b"a,b\n1,x\n", b"a,b\n2.5,y\n"])
    assert joined is not None
    assert joined.members == [0, 2]
    assert joined.frame["a"].tolist() == [0.5, 2.5]
