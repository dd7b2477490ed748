"""Reads Arrow and Parquet answers: the one place of the server's package that knows pyarrow.

It is imported when an answer of these formats is to be compared, in the process of ``backline parity`` or of a shadow's
agent and never in the server's. The extra ``parity`` installs it.
"""

from __future__ import annotations

from typing import Any

ARROW = frozenset({
    "application/vnd.apache.arrow.stream", "application/vnd.apache.arrow.file", "application/x-apache-arrow-stream",
    "application/x-apache-arrow-file",
})  # fmt: skip
PARQUET = frozenset({"application/vnd.apache.parquet", "application/x-parquet", "application/parquet"})


class NoPyarrow(Exception):
    """pyarrow is not installed beside Backline."""


def read(body: bytes, media: str) -> tuple[dict[str, list[Any]], dict[str, str]]:
    """Return the columns' values and their types. Raises ``ValueError`` for what is no such table, ``NoPyarrow``."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as exc:
        raise NoPyarrow(
            "Arrow and Parquet answers are compared by column only where pyarrow is installed beside Backline: "
            'pip install "backline[parity]"'
        ) from exc
    try:
        if media in PARQUET:
            table = parquet.read_table(pa.BufferReader(body))
        elif body[:6] == b"ARROW1":
            table = pa.ipc.open_file(pa.BufferReader(body)).read_all()
        else:
            table = pa.ipc.open_stream(pa.BufferReader(body)).read_all()
        table.validate(full=True)  # an unsound one can crash the process when it is read
    except (pa.ArrowException, OSError, ValueError) as exc:
        raise ValueError(f"it is no such table: {exc}") from exc
    names = table.column_names
    labels = [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names)]
    columns = {label: table.column(place).to_pylist() for place, label in enumerate(labels)}
    return columns, {label: str(table.schema.field(place).type) for place, label in enumerate(labels)}
