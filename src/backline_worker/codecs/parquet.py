"""Parquet files.

Footer and page headers are checked before pyarrow reads the pages; the table that comes out is validated before use.

What does not survive a round trip: see ``arrow_table``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Sequence

from ..errors import DecodeError, DecompressedTooLarge, RequestError
from ..types import Buffer
from . import arrow_table, parquet_footer
from ._libraries import pandas_for, pyarrow_for
from .cells import Column

if TYPE_CHECKING:
    from pandas import DataFrame

_WHAT = "the Parquet file"


def decode(data: Buffer, *, max_bytes: int) -> DataFrame:
    """Return the table; raises ``EmptyBody``, ``DecodeError`` or ``DecompressedTooLarge``."""
    pyarrow = pyarrow_for("reading Parquet")
    pandas = pandas_for("reading Parquet")
    try:
        table = _read(pyarrow, data, max_bytes)
        return arrow_table.to_frame(pyarrow, pandas, table, max_bytes=max_bytes, what=_WHAT)
    except RequestError:
        raise
    except pyarrow.ArrowMemoryError as exc:
        raise DecompressedTooLarge(f"{_WHAT} declares more data than there is memory: {exc}") from exc
    except MemoryError:
        raise
    except Exception as exc:
        raise DecodeError(f"{_WHAT} cannot be read: {exc}") from exc


def encode(columns: Sequence[Column], rows: int) -> bytes:
    """Return the columns as a file with one row group."""
    pyarrow = pyarrow_for("Parquet", answering=True)
    from pyarrow import parquet

    table = arrow_table.from_columns(pyarrow, columns, rows)
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def _read(pyarrow: Any, data: Buffer, max_bytes: int) -> Any:
    from pyarrow import parquet

    footer = parquet_footer.check(data, max_bytes)
    source = pyarrow.BufferReader(pyarrow.py_buffer(data))
    file = parquet.ParquetFile(source, read_dictionary=footer.as_dictionaries)
    if footer.batch_rows:
        table = _read_batches(pyarrow, file, footer.batch_rows, max_bytes)
    else:
        table = file.read(use_threads=False)
    if table.nbytes > max_bytes or table.num_rows != footer.rows:
        raise DecompressedTooLarge(f"{_WHAT} holds more than it declares, or than the limit of {max_bytes} bytes")
    table.validate(full=True)
    return table


def _read_batches(pyarrow: Any, file: Any, rows: int, max_bytes: int) -> Any:
    batches = []
    size = 0
    for batch in file.iter_batches(batch_size=rows, use_threads=False):
        size += batch.nbytes
        if size > max_bytes:
            raise DecompressedTooLarge(f"{_WHAT} holds more than the limit of {max_bytes} bytes; send fewer rows")
        batches.append(batch)
    return pyarrow.Table.from_batches(batches, schema=file.schema_arrow)
