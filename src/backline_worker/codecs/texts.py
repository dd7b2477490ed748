"""One column of texts, read as texts: "NA", "1.0" and "007" are prompts, and none of them a missing value or a number.

So CSV and JSON are read here without pandas, which is then not needed at all; other formats have types of their own.
"""

from __future__ import annotations

from typing import Any, List, Sequence

from ..errors import DecodeError, EmptyBody, SchemaMismatch
from ..types import Part
from . import csv, json
from .compression import decompress
from .decoding import choose, decode_table
from .formats import Format

_SHOWN_NAMES = 20
_SHOWN_ROWS = 10


def decode_texts(part: Part, column: str, *, content_encoding: str, max_bytes: int) -> List[str]:
    """Return the texts in ``column`` of the table that the part carries, one for each row.

    Raises a ``RequestError``: as ``decode_table`` does, and ``SchemaMismatch`` where there is no such column, or rows
    have nothing in it; it says which.
    """
    if not len(part.data):
        raise EmptyBody("the body is empty; a table with at least one row is needed")
    data = decompress(part.data, content_encoding, max_bytes)
    chosen, charset, filename = choose(part, data)
    if chosen is Format.GZIP:
        data = decompress(data, "gzip", max_bytes)
        chosen, charset, filename = choose(Part(part.name, "", data, filename), data)
    if chosen is Format.CSV:
        values = csv.read_column(data, column, charset=charset)
    elif chosen in (Format.JSON, Format.JSON_LINES):
        read = json.read if chosen is Format.JSON else json.read_lines
        table = read(data, charset=charset, max_bytes=max_bytes)
        check_has(table.names, column)
        place = table.names.index(column)
        values = [row[place] for row in table.rows]
    else:
        frame = decode_table(
            Part(part.name, part.content_type, data, filename), (), content_encoding="", max_bytes=max_bytes
        )
        check_has([str(name) for name in frame.columns], column)
        values = frame[column].tolist()
    return _texts(values, column)


def check_has(names: Sequence[str], column: str) -> None:
    """Raise ``SchemaMismatch`` where the column is not among these."""
    if column not in names:
        shown = ", ".join(repr(name) for name in names[:_SHOWN_NAMES])
        more = " and {} more".format(len(names) - _SHOWN_NAMES) if len(names) > _SHOWN_NAMES else ""
        raise SchemaMismatch(
            "the prompts are read from the column {!r} (--prompt-column), and the data has {}{}".format(
                column, shown, more
            ),
            details={"column": column, "columns": list(names[:_SHOWN_NAMES])},
        )


def _texts(values: Sequence[Any], column: str) -> List[str]:
    missing = [row for row, value in enumerate(values, 1) if value is None or value != value or not str(value).strip()]
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN_ROWS])) + (" and more" if len(missing) > _SHOWN_ROWS else "")
        raise SchemaMismatch(
            "{} of {} rows have no text in {!r}, counted from 1: {}".format(len(missing), len(values), column, shown),
            details={"rows": missing[:_SHOWN_ROWS]},
        )
    for row, value in enumerate(values, 1):
        if isinstance(value, (dict, list)):
            raise DecodeError(
                "row {} has a JSON {} in {!r}; a prompt is a text".format(row, type(value).__name__, column)
            )
    return [value if isinstance(value, str) else str(value) for value in values]
