from __future__ import annotations

import datetime as dt
import struct
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from backline_worker.codecs import encode_predictions
from backline_worker.contract.target_types import Predictions, TargetType
from backline_worker.errors import DecodeError, DecompressedTooLarge, EmptyBody
from tests.unit.backline_worker.codecs.bodies import arrow_body, decode, parquet_body

PARQUET = "application/vnd.apache.parquet"
TABLE = pa.table(
    {
        "i": [1, None, 3] * 2000,
        "s": ["a", None, "ü" * 20] * 2000,
        "d": pa.array(["x", "y", None] * 2000).dictionary_encode(),
        "l": [[1], None, [2, 3]] * 2000,
        "n": [{"a": 1, "b": ["q"]}, None, {"a": None, "b": []}] * 2000,
        "t": [dt.datetime.fromisoformat("2020-01-01")] * 6000,
        "m": pa.array([[("k", 1)], None, []] * 2000, pa.map_(pa.string(), pa.int64())),
        "e": pa.nulls(6000),
    }
)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "none", "use_dictionary": False},
        {"compression": "zstd", "data_page_version": "2.0", "row_group_size": 500},
        {"compression": "gzip", "data_page_size": 64, "write_page_index": True, "write_statistics": False},
        {"compression": "lz4", "use_dictionary": ["i"], "version": "1.0"},
        {"compression": "brotli", "store_schema": False},
        {"use_dictionary": False, "column_encoding": {"i": "DELTA_BINARY_PACKED", "s": "DELTA_BYTE_ARRAY"}},
    ],
)
def test_files_of_all_kinds_read_as_the_same_table(options: Any) -> None:
    # Timestamps may change their unit, and without pandas' or Arrow's schema a dictionary is plain text: as here.
    got = decode(parquet_body(TABLE, **options), PARQUET)
    expected = decode(arrow_body(TABLE), "")
    assert got["t"].tolist() == expected["t"].tolist()
    pd.testing.assert_frame_equal(got.drop(columns="t"), expected.drop(columns="t"))


def test_empty_row_groups_and_no_rows() -> None:
    with pytest.raises(EmptyBody):
        decode(parquet_body(TABLE.slice(0, 0)), PARQUET)
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, TABLE.schema) as writer:
        for size in (0, 2, 0, 1):
            writer.write_table(TABLE.slice(0, size))
    assert len(decode(sink.getvalue().to_pybytes(), PARQUET)) == 3


def test_cut_off_and_foreign_bodies_are_refused() -> None:
    body = parquet_body(TABLE.slice(0, 3))
    for end in range(4, len(body), 7):
        with pytest.raises(DecodeError):
            decode(body[:end], PARQUET)
    for foreign in (b"PAR1", b"PAR1" * 3, b"PAR1\xff\xff\xff\x7fPAR1", b"PARE" + body[4:-4] + b"PARE"):
        with pytest.raises(DecodeError):
            decode(foreign, PARQUET)


def test_tables_over_the_limit_are_refused_before_they_are_read() -> None:
    zeros = parquet_body(pa.table({"x": np.zeros(1_000_000)}))
    assert len(zeros) < 50_000
    with pytest.raises(DecompressedTooLarge, match="limit of 1048576"):
        decode(zeros, PARQUET, max_bytes=1 << 20)


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_long_text_that_is_referred_to_often_is_counted_as_often(use_dictionary: bool) -> None:
    options: Any = {} if use_dictionary else {"use_dictionary": False, "column_encoding": {"s": "DELTA_BYTE_ARRAY"}}
    body = parquet_body(pa.table({"s": ["x" * 100_000] * 1000}), **options)
    assert len(body) < 500_000
    with pytest.raises(DecompressedTooLarge):
        decode(body, PARQUET)


def test_text_read_by_way_of_a_dictionary_is_text() -> None:
    values = [f"value {row % 7} {'x' * 500}" for row in range(50_000)]
    body = parquet_body(pa.table({"s": values, "plain": range(50_000)}), use_dictionary=["s"])
    frame = decode(body, PARQUET, max_bytes=32 << 20)
    assert frame["s"].tolist() == values and frame["s"].dtype == pd.Series(["a"]).dtype


def test_a_footer_that_lies_about_rows_is_refused() -> None:
    body = parquet_body(pa.table({"x": list(range(1000))}))
    # 1000 rows as a zigzag varint, in the footer's count of rows and elsewhere.
    footer = len(body) - 8 - struct.unpack("<I", body[-8:-4])[0]
    varint = bytes([0xD0, 0x0F])
    assert varint in body[footer:]
    for lie in (bytes([0xD2, 0x0F]), bytes([0xD0, 0x7F]), bytes([0xD1, 0x0F])):
        with pytest.raises((DecodeError, DecompressedTooLarge)):
            decode(body[:footer] + body[footer:].replace(varint, lie, 1), PARQUET)


def test_predictions_are_written() -> None:
    predictions = Predictions(TargetType.REGRESSION, {"Predictions": np.array([1.5, np.nan])}, 2)
    for content_type in (PARQUET, "application/x-parquet"):
        table = pq.read_table(pa.BufferReader(encode_predictions(predictions, content_type)))
        assert table.schema.names == ["Predictions"] and table.schema.types == [pa.float64()]
