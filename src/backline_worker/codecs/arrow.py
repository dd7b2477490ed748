"""Arrow IPC, stream and file (Feather is such a file).

pyarrow segfaults on damaged streams whose columns are used unvalidated, and allocates what a stream declares. So the
framing is walked first, then each batch is fully validated, and only then is anything computed from it.

What does not survive a round trip: see ``arrow_table``; index names, extension types (their storage is what is read).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Iterator, List, Sequence

from ..errors import DecodeError, DecompressedTooLarge, RequestError
from ..types import Buffer
from . import arrow_ipc, arrow_table
from ._libraries import pandas_for, pyarrow_for
from .cells import Column

if TYPE_CHECKING:
    from pandas import DataFrame


def decode_stream(data: Buffer, *, max_bytes: int) -> DataFrame:
    """Return the table of a stream; raises ``EmptyBody``, ``DecodeError`` or ``DecompressedTooLarge``."""
    pyarrow = pyarrow_for("reading an Arrow stream")
    return _to_frame(pyarrow, read_stream(pyarrow, data, max_bytes), "the Arrow stream", max_bytes)


def decode_file(data: Buffer, *, max_bytes: int) -> DataFrame:
    """Return the table of a file; raises ``EmptyBody``, ``DecodeError`` or ``DecompressedTooLarge``."""
    pyarrow = pyarrow_for("reading an Arrow file")
    return _to_frame(pyarrow, read_file(pyarrow, data, max_bytes), "the Arrow file", max_bytes)


def read_stream(pyarrow: Any, data: Buffer, max_bytes: int) -> Any:
    """Return the validated Arrow table of a stream; raises ``DecodeError`` or ``DecompressedTooLarge``."""
    arrow_ipc.check_stream(data, max_bytes)
    with _worded(pyarrow, "the Arrow stream"):
        return _read(pyarrow, pyarrow.ipc.open_stream, data, max_bytes)


def read_file(pyarrow: Any, data: Buffer, max_bytes: int) -> Any:
    """Return the validated Arrow table of a file; raises as ``read_stream`` does."""
    arrow_ipc.check_file(data, max_bytes)
    with _worded(pyarrow, "the Arrow file"):
        return _read(pyarrow, pyarrow.ipc.open_file, data, max_bytes)


def encode_stream(columns: Sequence[Column], rows: int) -> bytes:
    """Return the columns as one uncompressed stream."""
    pyarrow = pyarrow_for("an Arrow stream", answering=True)
    table = arrow_table.from_columns(pyarrow, columns, rows)
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def _to_frame(pyarrow: Any, table: Any, what: str, max_bytes: int) -> DataFrame:
    pandas = pandas_for("reading Arrow")
    with _worded(pyarrow, what):
        return arrow_table.to_frame(pyarrow, pandas, table, max_bytes=max_bytes, what=what)


@contextlib.contextmanager
def _worded(pyarrow: Any, what: str) -> Iterator[None]:
    """Turn what pyarrow raises into errors of the request."""
    try:
        yield
    except (RequestError, pyarrow.ArrowMemoryError, MemoryError) as exc:
        if isinstance(exc, pyarrow.ArrowMemoryError):
            raise DecompressedTooLarge(f"{what} declares more data than there is memory: {exc}") from exc
        raise
    except Exception as exc:
        raise DecodeError(f"{what} cannot be read: {exc}") from exc


def _read(pyarrow: Any, opener: Any, data: Buffer, max_bytes: int) -> Any:
    """Return the validated table; the bytes of its buffers are counted as they come."""
    reader = opener(pyarrow.BufferReader(pyarrow.py_buffer(data)))
    batches: List[Any] = []
    total = 0
    for batch in _batches(reader):
        batch.validate(full=True)
        bound = 0 if batches else _upper_bound(batch, len(data))
        # For a small body the bound is enough: adding up takes pyarrow longer than reading.
        total += bound if 0 < bound <= max_bytes >> 10 else _size(pyarrow, batch)
        if total > max_bytes:
            raise DecompressedTooLarge(f"the Arrow data is more than the limit of {max_bytes} bytes")
        batches.append(batch)
    table = pyarrow.Table.from_batches(batches, schema=reader.schema)
    # The schema's own claims, and dictionaries that several batches share.
    table.validate(full=True)
    return table


def _upper_bound(batch: Any, body_bytes: int) -> int:
    """Return bytes that the batch cannot exceed, though several of its columns may lie in the same bytes.

    Each buffer of a column takes 16 bytes of the body to declare.
    """
    return int(batch.get_total_buffer_size()) * (body_bytes // 16)


def _size(pyarrow: Any, batch: Any) -> int:
    """Return the batch's bytes; with views, whose extent pyarrow does not tell, those of the buffers they lie in."""
    try:
        return int(batch.nbytes)
    except pyarrow.ArrowException:
        return int(batch.get_total_buffer_size())


def _batches(reader: Any) -> Any:
    if hasattr(reader, "get_batch"):
        return (reader.get_batch(place) for place in range(reader.num_record_batches))
    return iter(reader)
