from __future__ import annotations

import datetime as dt
import decimal
import struct
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from backline_worker.codecs import encode_predictions, encode_table
from backline_worker.contract.target_types import Predictions, TargetType
from backline_worker.errors import DecodeError, DecompressedTooLarge, EmptyBody
from tests.unit.backline_worker.codecs.bodies import arrow_body, decode

STREAM = "application/vnd.apache.arrow.stream"
FILE = "application/vnd.apache.arrow.file"
TEXT = pd.Series(["a"]).dtype


def column(values: pa.Array, **options: Any) -> pd.Series:
    return decode(arrow_body(pa.table({"x": values}), **options), STREAM)["x"]


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (pa.array([1, 2, None]), "float64"),
        (pa.array([1, 2, 3], pa.int8()), "int8"),
        (pa.array([1, 2, 2**64 - 1], pa.uint64()), "uint64"),
        (pa.array([1.5, None, 2], pa.float32()), "float32"),
        (pa.array([True, False, True]), "bool"),
        (pa.array([True, None, False]), "object"),
        (pa.array(["a", None, "ü"]), TEXT),
        (pa.array(["a", None, "ü"], pa.large_string()), TEXT),
        (pa.array(["a", None, "a"]).dictionary_encode(), TEXT),
        (pa.array([5, None, 6]).dictionary_encode(), "float64"),
        (pa.array([b"a", None, b"c"]), "object"),
        (pa.nulls(3), "float64"),
        (pa.array([None, None, None], pa.string()), "float64"),
        (pa.array([1, None, 3], pa.decimal128(5, 2)), "float64"),
        (pa.array([[1], None, []]), "object"),
        (pa.array([{"a": 1}, None, {"a": 2}]), "object"),
        (pa.array([dt.date(2020, 1, 1)] * 3), "datetime64"),
        (pa.array([dt.datetime.fromisoformat("2020-01-01")] * 3), "datetime64"),
    ],
)
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_columns_have_the_types_that_a_csv_gives_where_a_csv_can(values: Any, dtype: Any, compression: Any) -> None:
    got = column(values, **({"compression": compression} if compression else {}))
    assert str(got.dtype).startswith(str(dtype)) if dtype == "datetime64" else got.dtype == dtype
    assert len(got) == len(values)
    for row, expected in enumerate(values.to_pylist()):
        value = got.tolist()[row]
        if expected is None:
            assert isinstance(value, float) and value != value  # NaN, never None: as in a CSV
        elif isinstance(expected, decimal.Decimal):
            assert value == float(expected)
        elif isinstance(expected, dt.date):
            assert str(value)[:10] == str(expected)[:10]
        else:
            assert value == expected


def test_a_file_reads_as_a_stream_does() -> None:
    table = pa.table({"a": [1, 2], "s": ["x", None]})
    pd.testing.assert_frame_equal(decode(arrow_body(table, file=True), FILE), decode(arrow_body(table), STREAM))


def test_several_batches_with_dictionaries_of_their_own_are_one_table() -> None:
    table = pa.concat_tables([pa.table({"d": pa.array(values).dictionary_encode()}) for values in (["a", "b"], ["c"])])
    assert decode(arrow_body(table), STREAM)["d"].tolist() == ["a", "b", "c"]


@pytest.mark.skipif(not hasattr(pa, "string_view"), reason="this pyarrow has no such type")
def test_views_are_read_as_text() -> None:
    values = ["a", None, "b" * 40]
    got = column(pa.array(values, pa.string_view()))
    assert got.dtype == TEXT and got[2] == values[2] and got.isnull().tolist() == [False, True, False]


def test_dictionaries_inside_lists_are_read() -> None:
    values = pa.array([["x", "y"], ["x"]], pa.list_(pa.dictionary(pa.int8(), pa.string())))
    assert column(values).tolist() == [["x", "y"], ["x"]]


def test_the_index_that_pandas_adds_is_dropped_and_a_named_one_is_a_column() -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["a", "b"]), "n": [1, 2]}, index=[5, 7])
    got = decode(arrow_body(pa.Table.from_pandas(frame)), STREAM)
    assert list(got.columns) == ["c", "n"] and got.index.tolist() == [0, 1]
    assert got["c"].dtype == "category"  # pandas said so itself
    named = decode(arrow_body(pa.Table.from_pandas(frame.rename_axis("key"))), STREAM)
    assert sorted(named.columns) == ["c", "key", "n"] and named.index.tolist() == [0, 1]


def test_metadata_of_pandas_that_is_none_does_not_matter() -> None:
    table = pa.table({"a": [1]})
    for text in (
        b"{",
        b"[]",
        b'{"index_columns": 3}',
        b'{"columns": [1]}',
        b"\xff",
        b'{"columns": [{"pandas_type": []}]}',
    ):
        assert decode(arrow_body(table.replace_schema_metadata({b"pandas": text})), STREAM)["a"].tolist() == [1]


def test_the_frame_is_writable_and_its_own() -> None:
    body = bytearray(arrow_body(pa.table({"a": [1.0, 2.0]})))
    frame = decode(memoryview(body).toreadonly(), STREAM)
    frame.loc[0, "a"] = 9.0
    body[:] = bytes(len(body))
    assert frame["a"].tolist() == [9.0, 2.0]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "'a' twice"),
        (lambda: pa.table({}), "no columns"),
        (
            lambda: pa.table({"u": pa.UnionArray.from_sparse(pa.array([0, 0], pa.int8()), [pa.array([1, 2])])}),
            "column 'u' .*union",
        ),
        (
            lambda: pa.table({"r": pa.RunEndEncodedArray.from_arrays(pa.array([2], pa.int32()), ["x"])}),
            "run_end_encoded",
        ),
        (lambda: pa.table({"l": pa.array([["x"]], pa.list_(pa.string_view()))}), "inside others"),
        (lambda: pa.table({"l": pa.array([["x"]], pa.list_view(pa.string()))}), "list_view"),
    ],
)
def test_what_a_frame_cannot_carry_is_refused_by_column(make: Any, words: str) -> None:
    try:
        table = make()
    except AttributeError as exc:
        pytest.skip(str(exc))  # this pyarrow has no such type
    with pytest.raises(DecodeError, match=words):
        decode(arrow_body(table), STREAM)


def test_no_rows_are_empty() -> None:
    for table in (
        pa.table({"a": pa.array([], pa.int64())}),
        pa.table({"d": pa.array([], pa.string()).dictionary_encode()}),
    ):
        with pytest.raises(EmptyBody):
            decode(arrow_body(table), STREAM)


@pytest.mark.parametrize("file", [False, True])
def test_a_body_that_is_cut_off_or_goes_on_is_refused(file: bool) -> None:
    table = pa.table({"a": [1, 2, 3], "s": ["x", "y", None]})
    body = arrow_body(table, file=file)
    content_type = FILE if file else STREAM
    # A stream may end without its end marker (the last 8 bytes), between two messages.
    complete = {len(body) - 8, len(body)} if not file else {len(body)}
    for end in range(1, len(body)):
        if end not in complete:
            with pytest.raises((DecodeError, EmptyBody)):
                decode(body[:end], content_type)
    with pytest.raises(DecodeError):
        decode(body + b"12345678", content_type)


def test_compressed_buffers_that_grow_past_the_limit_are_refused_before_they_do() -> None:
    body = arrow_body(pa.table({"x": np.zeros(4 << 20, dtype="int8")}), compression="zstd")
    assert len(body) < 10_000
    with pytest.raises(DecompressedTooLarge, match="limit of 1048576 bytes"):
        decode(body, STREAM, max_bytes=1 << 20)


def test_a_compressed_buffer_that_claims_too_much_is_refused() -> None:
    body = arrow_body(pa.table({"x": np.zeros(100_000)}), compression="zstd")
    lied = body.replace(struct.pack("<q", 800_000), struct.pack("<q", 1 << 50))
    assert lied != body
    with pytest.raises(DecompressedTooLarge):
        decode(lied, STREAM)


def test_columns_without_buffers_cannot_be_endless() -> None:
    body = arrow_body(pa.table({"x": pa.nulls(1234567)}))
    for file in (False, True):
        body = arrow_body(pa.table({"x": pa.nulls(1234567)}), file=file)
        lied = body.replace(struct.pack("<q", 1234567), struct.pack("<q", 1 << 50))
        with pytest.raises(DecompressedTooLarge):
            decode(lied, FILE if file else STREAM)


def test_text_that_is_written_once_and_referred_to_often_is_counted_as_often() -> None:
    text = "x" * 100_000
    dictionary = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int8()), pa.array([text]))
    nested = pa.ListArray.from_arrays(pa.array([0, 1000], pa.int32()), dictionary)
    for values in (dictionary, nested):
        with pytest.raises(DecompressedTooLarge, match="text"):
            column(values)


def test_invalid_data_inside_a_well_framed_stream_is_refused() -> None:
    body = arrow_body(pa.table({"s": ["aaaa", "bbbb"]}))
    offsets = struct.pack("<iii", 0, 4, 8)
    assert offsets in body
    with pytest.raises(DecodeError):
        decode(body.replace(offsets, struct.pack("<iii", 0, 1 << 30, 8)), STREAM)
    with pytest.raises(DecodeError):
        decode(body.replace(b"aaaabbbb", b"aaaa\xff\xff\xff\xff"), STREAM)


def test_predictions_are_written_with_their_extra_columns_and_types() -> None:
    predictions = Predictions(
        TargetType.BINARY,
        {"yes": np.array([0.5, 1], dtype="float32"), "no": np.array([0.5, 0], dtype="float32")},
        2,
        pd.DataFrame({"why": ["x", None], "n": [1, 2]}),
    )
    for content_type in (STREAM, "application/x-apache-arrow-stream"):
        table = pa.ipc.open_stream(encode_predictions(predictions, content_type)).read_all()
        assert table.schema.names == ["yes", "no", "why", "n"]
        assert table.schema.types == [pa.float32(), pa.float32(), pa.string(), pa.int64()]
        assert table.to_pydict() == {"yes": [0.5, 1], "no": [0.5, 0], "why": ["x", None], "n": [1, 2]}


def test_values_that_arrow_has_no_type_for_are_written_as_text() -> None:
    frame = pd.DataFrame(
        {"mixed": [1, "a", None], "odd": pd.Series(["\ud800", "b", "c"], dtype=object), "big": [2**70, 1, 2]}
    )
    table = pa.ipc.open_stream(encode_table(frame, STREAM)).read_all()
    assert table.to_pydict() == {
        "mixed": ["1", "a", None],
        "odd": ["?", "b", "c"],
        "big": [str(2**70), "1", "2"],
    }


def test_a_stream_of_many_small_batches_is_read() -> None:
    """A bound that stands for the size of one small body must not be added up over thousands."""
    batch = pa.record_batch({"a": [1, 2]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        for _ in range(3000):
            writer.write_batch(batch)
    body = sink.getvalue().to_pybytes()
    assert len(decode(body, "application/vnd.apache.arrow.stream", max_bytes=1 << 30)) == 6000
