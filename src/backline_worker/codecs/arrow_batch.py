"""Several Arrow bodies read as one table wherever that is provably what reading each alone gives.

A column becomes what its Arrow type says, and besides that only what its missing values make of it: integers with some
become floats, text without any value becomes floats too. So bodies share a table if their schemas are the same to the
byte, metadata included, and in each column none, some or all values are missing in all of them. Categories are those of
a body's own dictionary, so bodies that have some are read alone.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..errors import RequestError
from ..types import Buffer
from . import arrow, arrow_table
from ._libraries import pandas_for, pyarrow_for
from .joined import Joined


def decode_streams_together(bodies: Sequence[Buffer], *, max_bytes: int) -> List[Joined]:
    """Return a table for each set of two or more streams that can share one; the others have to be read alone.

    Nothing is raised for bodies that are at fault: reading them alone will tell.
    """
    return _together(arrow.read_stream, "the Arrow stream", bodies, max_bytes)


def decode_files_together(bodies: Sequence[Buffer], *, max_bytes: int) -> List[Joined]:
    """Do the same for files."""
    return _together(arrow.read_file, "the Arrow file", bodies, max_bytes)


def _together(read: Any, what: str, bodies: Sequence[Buffer], max_bytes: int) -> List[Joined]:
    pyarrow = pyarrow_for("reading Arrow")
    groups: Dict[Tuple[bytes, bytes], List[Tuple[int, Any]]] = {}
    readable: Dict[bytes, bool] = {}
    for place, body in enumerate(bodies):
        try:
            table = read(pyarrow, body, max_bytes)
        except RequestError:
            continue
        schema = table.schema.serialize().to_pybytes()
        if schema not in readable:
            readable[schema] = not arrow_table.has_categories(table.schema)
        if table.num_rows and readable[schema]:
            groups.setdefault((schema, _missing(table)), []).append((place, table))
    joined = [_join(pyarrow, what, members, max_bytes) for members in groups.values() if len(members) > 1]
    return [table for table in joined if table is not None]


def _missing(table: Any) -> bytes:
    """Return for each column whether none (0), some (1) or all (2) of its values are missing."""
    rows = table.num_rows
    return bytes(min(column.null_count, 1) + (column.null_count == rows) for column in table.columns)


def _join(pyarrow: Any, what: str, members: Sequence[Tuple[int, Any]], max_bytes: int) -> Optional[Joined]:
    tables = [table for _, table in members]
    joined = pyarrow.concat_tables(tables)
    try:
        frame = arrow_table.to_frame(pyarrow, pandas_for("reading Arrow"), joined, max_bytes=max_bytes, what=what)
    except Exception:  # whose fault it is, reading each alone tells
        return None
    return Joined(frame, [place for place, _ in members], [table.num_rows for table in tables])
