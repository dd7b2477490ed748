"""What the codec tests share: decoding as a request does, and writing Arrow bodies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from backline_worker.codecs import decode_table
from backline_worker.types import Part

LIMIT = 64 << 20


def decode(
    data: Any,
    content_type: str = "",
    *,
    filename: Any = None,
    encoding: str = "",
    others: Sequence[Part] = (),
    max_bytes: int = LIMIT,
) -> Any:
    """Decode one body as the worker does for a request's part ``X``."""
    part = Part("X", content_type, data, filename)
    return decode_table(part, others, content_encoding=encoding, max_bytes=max_bytes)


def arrow_body(table: Any, *, file: bool = False, **options: Any) -> bytes:
    """Return the table as an Arrow stream, or file, written by pyarrow itself."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    keywords = {"options": pa.ipc.IpcWriteOptions(**options)} if options else {}
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema, **keywords) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def parquet_body(table: Any, **options: Any) -> bytes:
    """Return the table as a Parquet file, written by pyarrow itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, **options)
    return bytes(sink.getvalue().to_pybytes())
