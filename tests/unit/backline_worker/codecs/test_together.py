"""JSON and Arrow bodies read together are what reading each alone gives, or are not read together."""

from __future__ import annotations

import datetime as dt
import decimal
import json
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backline_worker.codecs import decode_together
from backline_worker.errors import RequestError
from backline_worker.types import Part
from tests.unit.backline_worker.codecs.bodies import LIMIT, arrow_body, decode

JSON, LINES = "application/json", "application/x-ndjson"

HOSTILE = [
    *("1", "0", "-1", "1.0", "1e5", "-0.0", "1e400", "2.5", "9007199254740993", "9223372036854775807"),
    *("9223372036854775808", "-9223372036854775809", "18446744073709551616", "1" * 40, "null", "true", "false"),
    *('"x"', '"1"', '""', '"NA"', '"é"', '"\\ud83d\\ude00"', '"\\ud800"', "[]", "[1, null]", "{}", '{"a": null}'),
    *("NaN", "Infinity", "01", "'x'"),
]
# Most bodies of a batch are alike, or nothing would ever be read together.
COMMON = ["1", "2", "2.5", "1e5", "null", "true", '"x"', '"y"']
values = st.sampled_from(COMMON) | st.sampled_from(HOSTILE)


@st.composite
def record(draw: st.DrawFn, names: str) -> str:
    order = draw(st.sampled_from([names] * 6 + [names[::-1], names[:-1], names + "a", names + "z"]))
    return "{" + ", ".join(f'"{name}": {draw(values)}' for name in order) + "}"


@st.composite
def documents(draw: st.DrawFn) -> list[bytes]:
    names = "abc"[: draw(st.integers(1, 3))]
    records = st.lists(record(names), min_size=1, max_size=3)
    sent = [draw(records.map(lambda rows: "[" + ",".join(rows) + "]")) for _ in range(draw(st.integers(2, 6)))]
    if draw(st.booleans()):
        rows = st.lists(st.lists(values, min_size=len(names), max_size=len(names)), min_size=1, max_size=3)
        head = '{"columns": ' + json.dumps(list(names)) + ', "data": ['
        sent.append(head + ",".join("[" + ",".join(row) + "]" for row in draw(rows)) + "]}")
    return [text.encode() for text in sent]


def check(sent: list[bytes], content_type: str) -> list[list[int]]:
    """Compare what is read together with what reading alone gives; return which were."""
    taken: list[int] = []
    tables = decode_together([Part("X", content_type, body) for body in sent], max_bytes=LIMIT)
    for table in tables:
        assert len(table.members) > 1
        assert len(table.frame) == sum(table.rows)
        taken += table.members
        start = 0
        for member, rows in zip(table.members, table.rows):  # noqa: B905  (Python 3.8 has no strict)
            part = table.frame.iloc[start : start + rows].reset_index(drop=True)
            start += rows
            try:
                expected = decode(sent[member], content_type)
            except RequestError as exc:  # pragma: no cover - the failure that this looks for
                pytest.fail(f"{sent[member]!r} is refused alone: {exc}")
            pd.testing.assert_frame_equal(part, expected, check_exact=True)
            for name in part.columns:
                assert list(map(type, part[name].tolist())) == list(map(type, expected[name].tolist()))
    assert len(set(taken)) == len(taken)
    return sorted(table.members for table in tables)


@given(documents())
@settings(max_examples=300)
@example([b'[{"a": 9007199254740993}, {"a": null}]', b'[{"a": 0.5}]'])
@example([b'[{"a": null}]', b'[{"a": "x"}]'])
@example([b'[{"a": 18446744073709551616}, {"a": null}]', b'[{"a": 0.5}]'])
@example([b'[{"a": 9223372036854775808}, {"a": null}]', b'[{"a": -1}, {"a": null}]', b'[{"a": 0.5}]'])
@example([b'[{"a": 1e400}]', b'[{"a": 1.5}]'])
def test_json_read_together_is_what_reading_alone_gives(sent: list[bytes]) -> None:
    check(sent, JSON)


@given(documents())
@settings(max_examples=100)
def test_json_lines_read_together_are_what_reading_alone_gives(sent: list[bytes]) -> None:
    check([body[1:-1].replace(b"},{", b"}\n{") for body in sent], LINES)


def test_json_bodies_with_the_same_columns_and_types_share_a_table() -> None:
    bodies = [
        b'[{"a": 1.5, "b": "x"}]',
        b'[{"b": "x", "a": 1.5}]',
        b'[{"a": null, "b": "y"}, {"a": 2, "b": null}]',
        b'[{"a": 1, "b": "x"}]',
        b'[{"a": 1.5, "b": ',
        b'{"columns": ["a", "b"], "data": [[2.5, "z"]]}',
        b'[{"a": 2, "b": "y"}]',
        b'[{"b": "y", "a": 2.5}]',
    ]
    assert check(bodies, JSON) == [[0, 2, 5], [1, 7], [3, 6]]


def test_bodies_of_several_formats_are_told_apart() -> None:
    bodies = [b'[{"a": 1.5}]', b"a\n1.5\n", b'[{"a": 2.5}]', b"a\n2.5\n"]
    assert check(bodies, "") == [[0, 2], [1, 3]]


ARROW, ARROW_FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file"
COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "int64": (pa.int64(), [1, 2**60, None]),
    "uint8": (pa.uint8(), [1, 255, None]),
    "float32": (pa.float32(), [0.1, float("nan"), None]),
    "double": (pa.float64(), [0.1, float("inf"), None]),
    "bool": (pa.bool_(), [True, False, None]),
    "text": (pa.string(), ["a", "", "\u00e9", None]),
    "large": (pa.large_string(), ["a", None]),
    "binary": (pa.binary(), [b"a", None]),
    "day": (pa.date32(), [dt.date(2024, 1, 1), None]),
    "time": (pa.timestamp("us", "Europe/Berlin"), [dt.datetime(2024, 1, 1, tzinfo=dt.UTC), None]),
    "decimal": (pa.decimal128(9, 2), [decimal.Decimal("1.25"), None]),
    "words": (pa.dictionary(pa.int8(), pa.string()), ["x", "y", None]),
    "list": (pa.list_(pa.int64()), [[1, None], [], None]),
    "null": (pa.null(), [None]),
}


@st.composite
def arrow_tables(draw: st.DrawFn) -> tuple[list[bytes], bool]:
    names = draw(st.lists(st.sampled_from(list(COLUMNS)), min_size=1, max_size=4, unique=True))
    file = draw(st.booleans())
    sent = []
    for _ in range(draw(st.integers(2, 5))):
        rows = draw(st.integers(0, 3))
        arrays = []
        for name in names:
            kind, choices = COLUMNS[name]
            # Without missing values as a rule, or nothing would be read together.
            cells = st.sampled_from(choices[:-1] or choices) if draw(st.integers(0, 3)) else st.sampled_from(choices)
            arrays.append(pa.array(draw(st.lists(cells, min_size=rows, max_size=rows)), type=kind))
        metadata = draw(st.sampled_from([None, None, None, {b"by": b"x"}]))
        table = pa.Table.from_arrays(arrays, names).replace_schema_metadata(metadata)
        body = arrow_body(table, file=file)
        sent.append(body if draw(st.integers(0, 9)) else body[:-40])
    return sent, file


@given(arrow_tables())
@settings(max_examples=300)
def test_arrow_read_together_is_what_reading_alone_gives(drawn: tuple[list[bytes], bool]) -> None:
    sent, file = drawn
    check(sent, ARROW_FILE if file else ARROW)


def test_arrow_bodies_with_one_schema_share_a_table_and_categories_do_not() -> None:
    plain = [pa.table({"a": [1, number], "b": ["x", None]}) for number in range(3)]
    other = [pa.table({"a": [1, None], "b": ["x", None]}), pa.table({"a": [2, None], "b": [None, "z"]})]
    assert check([arrow_body(table) for table in plain + other], ARROW) == [[0, 1, 2], [3, 4]]
    frames = [pd.DataFrame({"a": pd.Categorical(["x", letter])}) for letter in "yz"]
    assert check([arrow_body(pa.Table.from_pandas(frame)) for frame in frames], ARROW) == []


@pytest.mark.parametrize(
    "odd",
    [
        "",
        ", {}",
        ', {"n": 1}',
        ', {"n": 1, "x": 1, "t": "", "z": 0}',
        ", 3",
        ',{"n": NaN}',
        "] [",
        "]]",
        ', {"n": "\\ud800"}',
    ],
)
@pytest.mark.parametrize("blank", ["", " \r\n\t"])
def test_a_large_document_is_read_as_a_small_one_is(odd: str, blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces where it is regular, and with the same errors where it is not."""
    from backline_worker.codecs import json as codec

    rows = [{"n": row, "x": row + 0.5 if row < 1700 else row, "t": "é" if row % 7 else None} for row in range(1703)]
    listed = ("," + blank).join(json.dumps(row) + blank for row in rows)
    body: Any = (blank + "[" + blank + listed + odd + blank + "]" + blank).encode()

    def outcome() -> Any:
        try:
            return decode(body, JSON)
        except RequestError as exc:
            return type(exc), exc.message, exc.details

    whole = outcome()
    monkeypatch.setattr(codec, "_LARGE", 10)
    in_pieces = outcome()
    if isinstance(whole, pd.DataFrame):
        pd.testing.assert_frame_equal(in_pieces, whole, check_exact=True)
    else:
        assert in_pieces == whole


@given(st.lists(st.lists(values, min_size=2, max_size=2), min_size=1, max_size=5))
def test_any_document_is_read_in_pieces_as_whole(rows: list[list[str]]) -> None:
    from backline_worker.codecs import json as codec

    body = ("[" + ",".join(f'{{"a": {a}, "b": {b}}}' for a, b in rows) + "]").encode()
    try:
        whole = decode(body, JSON)
    except RequestError:
        return
    large, piece = codec._LARGE, codec._PIECE
    codec._LARGE, codec._PIECE = 1, 2
    try:
        pd.testing.assert_frame_equal(decode(body, JSON), whole, check_exact=True)
    finally:
        codec._LARGE, codec._PIECE = large, piece
