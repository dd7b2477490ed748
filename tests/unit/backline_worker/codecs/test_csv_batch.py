"""Read together is read alone: the same values, the same types, or not read together."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backline_worker.codecs import csv, csv_batch
from backline_worker.codecs.csv_batch import decode_together
from backline_worker.errors import RequestError

HOSTILE = [
    *("1", "1.0", "01", "-0", "0.0", "1e5", "1e400", "0x10", "+1", ".5", "5.", "1_000", "1,5"),
    *("9223372036854775807", "9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" * 40),
    *("", "NA", "NaN", "nan", "null", "None", "N/A", "#N/A", "-nan", "inf", "-Infinity", "Inf"),
    *("True", "False", "TRUE", "true", "false", "yes", "t", "F"),
    *(
        "1.2.3",
        "1-2",
        "1e-5",
        "e5",
        "E12",
        "-",
        "+",
        ".",
        "1e",
        "3rd",
        "nAn",
        " inf",
        "Female",
        "No",
        "9007199254740993",
        '""',
        '"x ""y"""',
        "1.#IND",
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
    # A few values for each column, or nothing would ever be read together.
    pools = [draw(st.lists(cells, min_size=1, max_size=3)) for _ in range(columns)]
    row = st.tuples(*map(st.sampled_from, pools)).map(",".join)
    # Now and then a row is too long or too short.
    odd = st.sampled_from([lambda text: text] * 18 + [lambda text: text + ",1", lambda text: text[:1]])
    row = st.builds(lambda change, text: change(text), odd, row)
    rows = st.lists(row, min_size=1, max_size=3)
    header = ",".join("abc"[:columns])
    ends = st.sampled_from(["", "\n", "\n", "\n\n", "\r\n", "\n \n"])
    texts = st.builds(lambda lines, end: "\n".join([header, *lines]) + end, rows, ends)
    return [text.encode() for text in draw(st.lists(texts, min_size=2, max_size=5))]


@pytest.fixture(autouse=True, params=["by trial", "by classes"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of reading together: first and checked afterwards, where that works, and classed before."""
    monkeypatch.setattr(csv_batch, "_LONG_BYTES", 0)
    monkeypatch.setattr(csv_batch._trials, "worth", lambda header: request.param == "by trial")


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
@example([b"a\n9007199254740993\nNA\n", b"a\n0.5\n"])
@example([b"a,b\n1.0,Female\n", b"a,b\n20.0,No\n"])
@example([b'a,b\n"1","x,y"\n', b'a,b\n2,"x ""y"""\n', b"a,b\n3,z\n"])
@example([b'a\n"x\n', b'a\ny"\n'])
@example([b'a,b\n"x",\n', b'a,b\n"y",\n'])
@example([b"a\n0.5\n", b"a\n" + b"1" * 40 + b"\nNA\n"])
@example([b"a\n" + b"1" * 40 + b"\nx\n", b"a\ny\n"])
def test_what_is_read_together_is_what_reading_alone_gives(sent: list[bytes]) -> None:
    taken: list[int] = []
    for joined in decode_together(sent):
        assert len(joined.frame) == sum(joined.rows)
        taken += joined.members
        start = 0
        for member, rows in zip(joined.members, joined.rows):  # noqa: B905  (Python 3.8 has no strict)
            part = joined.frame.iloc[start : start + rows].reset_index(drop=True)
            start += rows
            expected = alone(sent[member])
            assert expected is not None
            pd.testing.assert_frame_equal(part, expected, check_exact=True)
    assert len(set(taken)) == len(taken)


def test_plain_bodies_are_read_together() -> None:
    (joined,) = decode_together([b"a,b\n%d.5,c%d\n" % (number, number) for number in range(32)])
    assert joined.members == list(range(32))
    assert joined.rows == [1] * 32
    assert joined.frame["a"].tolist() == [number + 0.5 for number in range(32)]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (["1.0", "2.0", "", "NA"], "float64"),
        (["1", "-2", "+3", "04"], "int64"),
        (["True", "FALSE"], "bool"),
        (["Female", "No", "Turkey", "Infra", "\u00e9", "a b"], "str"),
        (["2024-01-01", "12:30", "1.2.3", "-", "e5", "10-20", "3rd", "\u4e2d"], "str"),
        (['"x, y"', '"said ""no"""', "plain", '"3,5"'], "str"),
        (['"1"', "2"], "int64"),
    ],
)
def test_usual_values_of_one_type_are_read_as_one_table(values: list[str], dtype: str) -> None:
    (joined,) = decode_together([f"n,x\n0.5,{value}\n".encode() for value in values])
    assert joined.members == list(range(len(values)))
    expected = pd.Series(["a"]).dtype if dtype == "str" else dtype
    assert joined.frame["x"].dtype == expected


def test_bodies_with_other_headers_or_types_are_tables_of_their_own() -> None:
    bodies = [
        b"a,b\n1,x\n",
        b"b,a\nx,1\n",
        b"a,b\n1.5,x\n",
        b"a,b\n2,y\n",
        b"b,a\ny,2\n",
        b"a,b\n2.5,y\n",
        b"a,b\nx,y\n",
    ]
    assert sorted(joined.members for joined in decode_together(bodies)) == [[0, 3], [1, 4], [2, 5]]


def test_lines_of_windows_and_blank_lines_at_the_end_make_no_difference() -> None:
    (joined,) = decode_together([b"a,b\r\n1,x\r\n2,y\r\n", b"a,b\n3,z\n\n\n", b"a,b\n4,w"])
    assert joined.frame.to_dict("list") == {"a": [1, 2, 3, 4], "b": ["x", "y", "z", "w"]}
    assert joined.rows == [2, 1, 1]


@pytest.mark.parametrize(
    "odd",
    [
        b"b,a\n1.5,x\n",
        b"a,b\n1.5\n",
        b"a,b\n1.5,x,y\n",
        b'a,b\n1.5,x"y"\n',
        b'a,b\n1.5,"x\n',
        b'a,b\n1.5,"x"y\n',
        b"a,b\n\xff,x\n",
        b"a,b\n1,x\n",
        b"a,b\n",
        b"",
        b"a,b\n1.5,x\r",
        b"a,b\n1.5,Inf\n",
        b"a,b\n\n1.5,x\n",
        b"a,b\n1,2,3\n4\n",
    ],
)
def test_a_body_that_is_not_like_the_others_is_left_to_be_read_alone(odd: bytes) -> None:
    (joined,) = decode_together([b"a,b\n0.5,x\n", odd, b"a,b\n2.5,y\n"])
    assert joined.members == [0, 2]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_rows_too_long_and_too_short_that_balance_out_are_not_read_together(order: tuple[int, int]) -> None:
    sent = [b"a,b\n1,2,3\n4\n", b"a,b\n1.5,x\n"]
    assert decode_together([sent[place] for place in order]) == []


@pytest.mark.parametrize("header", [b"a,a", b'a,"a"', b'a,b"', b" a,b", b"\xef\xbb\xbfa,b", b""])
def test_a_header_that_is_not_plain_is_not_read_together(header: bytes) -> None:
    assert decode_together([header + b"\n1.5,2.5\n"] * 2) == []


def test_a_quoted_header_is_read_together() -> None:
    (joined,) = decode_together([b'"a","b c",d\n1,2,x\n', b'"a","b c",d\n3,4,y\n'])
    assert list(joined.frame.columns) == ["a", "b c", "d"]
