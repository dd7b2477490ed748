"""Several CSV bodies with one header, read as one table wherever that is provably what reading each alone gives.

Reading a one-row CSV costs pandas as much as reading a hundred rows, so a batch is read in one go. What may differ is
the types: pandas infers them from the values that it sees, and in a batch it sees more. So each body's part of a column
is checked for what it would have been alone:

- integers in an integer column, truth values in a truth column: the same alone;
- a float column: the same alone where the part has a missing value or a number with a fraction; a part of whole
  numbers may have been integers (``1``) or not (``1.0``), which the table does not tell any more;
- a text column: the same alone where the part has a value that can be no number and no truth value;
- everything else is left open.

A body with an open part is read alone, and so is everything that is not plain: quotes, blank lines, another header.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, List, NamedTuple, Optional, Sequence

from ..types import Buffer
from . import text
from ._libraries import pandas_for

if TYPE_CHECKING:
    from pandas import DataFrame

# No number, infinity, missing value or truth value of pandas' CSV reader starts with one of these letters.
_CERTAINLY_TEXT = re.compile(r"[A-EG-HJ-MO-SU-Za-eg-hj-mo-su-z]")


class Joined(NamedTuple):
    """``frame`` has the rows of the bodies ``members`` (places in the batch), ``rows`` of each, one after another."""

    frame: DataFrame
    members: List[int]
    rows: List[int]


def decode_together(bodies: Sequence[Buffer]) -> Optional[Joined]:
    """Read plain bodies with the first one's header as one table; ``None`` when no two can be read together.

    Bodies that are not among the members have to be read alone, where their faults will be told.
    """
    pieces = [bytes(body) for body in bodies]
    header, _, _ = pieces[0].partition(b"\n")
    columns = header.count(b",") + 1
    if len(set(header.split(b","))) != columns:
        return None  # pandas would rename what stands twice; reading alone refuses it
    members = [place for place, piece in enumerate(pieces) if _is_plain(piece, header, columns)]
    if len(members) < 2 or columns < 2:
        return None
    rows_of = {place: _count_rows(pieces[place]) for place in members}
    start = len(header) + 1
    joined = header + b"\n" + b"".join(_ended(pieces[place][start:]) for place in members)
    pandas = pandas_for("reading CSV")
    try:
        frame = pandas.read_csv(text.open_bytes(joined), low_memory=False, index_col=False)
    except Exception:  # whose fault it is, reading each alone tells
        return None
    if len(frame) != sum(rows_of.values()) or len(frame.columns) != columns:
        return None
    counts = [rows_of[place] for place in members]
    certain = _certain(frame, counts)
    if all(certain):
        return Joined(frame, members, counts)
    keep = [position for position, is_certain in enumerate(certain) if is_certain]
    if len(keep) < 2:
        return None
    import numpy

    wanted = numpy.repeat(certain, counts)
    return Joined(
        frame[wanted].reset_index(drop=True), [members[position] for position in keep], [counts[p] for p in keep]
    )


def _is_plain(piece: bytes, header: bytes, columns: int) -> bool:
    start = len(header)
    if not piece.startswith(header + b"\n") or len(piece) == start + 1:
        return False
    if b'"' in piece or b"\r" in piece or b"\0" in piece or b"\n\n" in piece or b"\n " in piece or b"\n\t" in piece:
        return False
    first_row_end = piece.find(b"\n", start + 1)
    if piece.count(b",", start, len(piece) if first_row_end < 0 else first_row_end) != columns - 1:
        return False  # pandas measures the others by the first row, and cuts it without a word
    # With no row longer than the header, which pandas now refuses, the commas are all there only if none is shorter.
    return piece.count(b",") == (columns - 1) * (_count_rows(piece) + 1)


def _count_rows(piece: bytes) -> int:
    """Return the rows of a plain body: its lines less the header."""
    return piece.count(b"\n") - piece.endswith(b"\n")


def _ended(rows: bytes) -> bytes:
    return rows if rows.endswith(b"\n") else rows + b"\n"


def _certain(frame: DataFrame, counts: Sequence[int]) -> Any:
    """Return for each body whether each of its columns has the type that it would have alone."""
    import numpy

    starts = numpy.concatenate(([0], numpy.cumsum(counts)[:-1]))
    certain = numpy.ones(len(counts), dtype=bool)
    floats = []
    for name, dtype in zip(frame.columns, frame.dtypes):
        kind = getattr(dtype, "kind", "O")
        if kind == "f":
            floats.append(name)
        elif kind in "OTU" or str(dtype) in ("str", "string"):
            cells = frame[name].tolist()
            telling = [type(cell) is str and _CERTAINLY_TEXT.match(cell) is not None for cell in cells]
            certain &= numpy.logical_or.reduceat(telling, starts)
        elif kind != "b" and dtype != numpy.int64:
            return numpy.zeros(len(counts), dtype=bool)
    if floats:
        numbers = (frame if len(floats) == frame.shape[1] else frame[floats]).to_numpy()
        # Whole numbers that are too large for an integer are floats in any company; they are left open too.
        telling = numpy.isnan(numbers) | (numbers != numpy.floor(numbers))
        certain &= numpy.logical_or.reduceat(telling, starts, axis=0).all(axis=1)
    return certain
