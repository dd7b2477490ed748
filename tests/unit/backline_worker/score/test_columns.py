"""Chunks are read with the types, and to the values, of the whole file."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from backline_worker import column_types
from backline_worker.codecs import csv
from backline_worker.codecs import json as json_codec
from backline_worker.errors import RequestError
from backline_worker.score.columnar import ArrowReader, ArrowRows, _to_frame
from backline_worker.score.csv_rows import CsvReader, CsvRows
from backline_worker.score.json_rows import JsonReader, JsonRows

# Numbers that do not fit, in every order, with what goes with them and what does not; and words that are nearly others.
CELLS = [
    "1",
    "0",
    "-1",
    "-0",
    "+5",
    "007",
    " 1",
    "1.0",
    "1.5",
    ".5",
    "1.",
    "1e5",
    "1e",
    "inf",
    "-Infinity",
    "-1.5",
    "-x",
    "-1_000",
    "NA",
    "nan",
    "NULL",
    "",
    "True",
    "False",
    "TRUE",
    "true",
    "x",
    "x y",
    "1_000",
    "0x10",
    "2020-01-01",
    "12:30",
    "-",
    "é",
    '"1"',
    '""',
    '"a,b"',
    '"a\nb"',
    '"a\r\nb"',
    '"say ""so"""',
    'a"b',
    "9007199254740993",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775809",
    "99999999999999999999999",
]


@st.composite
def columns_of_cells(draw: st.DrawFn) -> list[list[str]]:
    """A table by columns; each column draws from a few cells, so that all kinds of company are met."""
    rows = draw(st.integers(1, 12))
    columns = []
    for _ in range(draw(st.integers(1, 3))):
        few = draw(st.lists(st.sampled_from(CELLS), min_size=1, max_size=4))
        columns.append(draw(st.lists(st.sampled_from(few), min_size=rows, max_size=rows)))
    return columns


def chunked(reader: Any, make: Any, pieces: list[Any]) -> list[pd.DataFrame | None]:
    """Read the pieces as a run does: as they come, and where types change anew with those of the whole file."""
    frames, known, stable = read_once(reader, make, pieces, exact=False)
    if column_types.unclear(known, csv=make is CsvRows):
        _, known, _ = read_once(reader, make, pieces, exact=True)
        stable = False
    if not stable:
        frames = [reader.read_final(make(reader, piece), known)[0] for piece in pieces]
    return frames


def read_once(
    reader: Any, make: Any, pieces: list[Any], *, exact: bool
) -> tuple[list[pd.DataFrame | None], dict[str, str], bool]:
    frames = []
    known: dict[str, str] = {}
    seen = []
    for piece in pieces:
        frame, own, classes = reader.read(make(reader, piece), known, exact=exact)
        known = column_types.add(known, own, csv=make is CsvRows)
        frames.append(frame)
        if frame is not None:
            seen.append(classes)
    return frames, known, all(classes == seen[0] for classes in seen)


def same(frames: list[pd.DataFrame | None], whole: pd.DataFrame) -> None:
    rows = [frame for frame in frames if frame is not None]
    for frame in rows:
        assert list(frame.columns) == list(whole.columns)
        assert frame.dtypes.tolist() == whole.dtypes.tolist()
    assert sum(map(len, rows)) == len(whole)
    start = 0
    for frame in rows:
        part = whole.iloc[start : start + len(frame)].reset_index(drop=True)
        start += len(frame)
        pd.testing.assert_frame_equal(frame, part, check_exact=True)
        for name in whole.columns:
            assert [type(value) for value in frame[name].tolist()] == [type(value) for value in part[name].tolist()]


@settings(max_examples=1500, deadline=None)
@given(columns_of_cells(), st.data(), st.sampled_from(["\n", "\r\n"]))
def test_csv_in_chunks_is_csv_as_a_whole(columns: list[list[str]], data: st.DataObject, end: str) -> None:
    names = [f"c{place}" for place in range(len(columns))]
    records = [",".join(row) + end for row in zip(*columns, strict=True)]
    header = ",".join(names) + end
    body = "".join(records)
    try:
        whole = csv.decode((header + body).encode())
    except RequestError:
        return  # the whole file is refused
    cuts = sorted(data.draw(st.sets(st.integers(0, len(records)), max_size=4)))
    places = [0, *cuts, len(records)]
    pieces = ["".join(records[one:two]).encode() for one, two in itertools.pairwise(places)]
    same(chunked(CsvReader(header.encode()), CsvRows, [piece for piece in pieces if piece]), whole)


VALUES: list[Any] = [
    1,
    0,
    -1,
    1.5,
    1.0,
    None,
    True,
    False,
    "x",
    "1",
    "",
    [1],
    {"a": 1},
    2**53 + 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    -(2**63) - 1,
    1e300,
]


@st.composite
def json_records(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows = draw(st.integers(1, 10))
    few = {name: draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=3)) for name in ("a", "b", "c")}
    records: list[dict[str, Any]] = []
    for _ in range(rows):
        names = draw(st.sets(st.sampled_from("abc"), min_size=0 if records else 1))
        records.append({name: draw(st.sampled_from(few[name])) for name in sorted(names)})
    return records


@settings(max_examples=1500, deadline=None)
@given(json_records(), st.data())
def test_json_lines_in_chunks_are_json_lines_as_a_whole(records: list[dict[str, Any]], data: st.DataObject) -> None:
    lines = [json.dumps(record) + "\n" for record in records]
    whole = json_codec.decode_lines("".join(lines).encode())
    cuts = sorted(data.draw(st.sets(st.integers(1, len(lines)), max_size=3)))
    places = [0, *cuts, len(lines)]
    pieces = ["".join(lines[one:two]).encode() for one, two in itertools.pairwise(places)]
    same(chunked(JsonReader(), JsonRows, [piece for piece in pieces if piece]), whole)


TYPES: list[Any] = [
    pa.int64(),
    pa.int8(),
    pa.uint64(),
    pa.float64(),
    pa.float32(),
    pa.bool_(),
    pa.string(),
    pa.null(),
    pa.date32(),
]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_arrow_in_chunks_is_arrow_as_a_whole(data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 10))
    arrays = []
    for _ in range(3):
        kind = data.draw(st.sampled_from(TYPES))
        some: dict[str, list[Any]] = {
            "int8": [1, None],
            "bool": [True, False, None],
            "string": ["x", None],
            "date32[day]": [18000, None],
        }
        values: list[Any] = [None] if pa.types.is_null(kind) else some.get(str(kind), [1, 2**20, None])
        few = data.draw(st.lists(st.sampled_from(values), min_size=1, max_size=2))
        drawn = data.draw(st.lists(st.sampled_from(few), min_size=rows, max_size=rows))
        if pa.types.is_date(kind):
            arrays.append(pa.array(drawn, type=pa.int32()).cast(kind))
        else:
            arrays.append(pa.array(drawn, type=kind))
    table = pa.Table.from_arrays(arrays, names=["a", "b", "c"])
    whole = _to_frame(table)
    cut = data.draw(st.integers(0, rows))
    pieces = [piece for piece in (table.slice(0, cut), table.slice(cut)) if piece.num_rows]
    same(chunked(ArrowReader(table.schema), ArrowRows, pieces), whole)
