"""Several CSV bodies read as one table wherever that is provably what reading each alone gives.

Reading a one-row CSV costs pandas as much as reading a hundred rows, so a batch is read in one go. What may differ is
the types: pandas infers them from the values that it sees, and in a batch it sees more. So each body's part of a column
is classed by its text before it is read:

- INT: all fields are integers;
- FLOAT: all are numbers or missing, and one at least is missing or has a point or an exponent;
- BOOL: all are truth values;
- TEXT: one at least can be no number, no truth value and no missing value;
- ODD: everything else, such as infinities, or integers too long for a float beside missing values.

That takes time by the byte. So long bodies are read first, where they are plain, and mostly the table's own values tell
that each part would have had the same type alone (``_read_and_check``).

Bodies with the same header and the same classes are read as one table, and the table stands only if each of its columns
has its class's type. Then every part has it alone too: of integers and of truth values any part is of the same kind;
a FLOAT part has a field that is no integer; a TEXT part has one that is only text.

A body with an ODD part is read alone, and so is what is malformed or hard to cut into fields.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from ..types import Buffer
from . import text
from ._libraries import pandas_for
from .csv_fields import FRACTION, LONG, MISSING, TRUTH, UNSURE, WORD, BadQuotes, Fields
from .joined import Joined

_INT, _FLOAT, _BOOL, _TEXT, _ODD = range(5)
_HEADER = re.compile(rb'(?:[^" \t,\r\0][^",\r\0]*|"[^",\r\0]*")(?:,(?:[^",\r\0]*|"[^",\r\0]*"))*')
_LONG_BYTES = 16 << 10
_HARD = (b'"', b"\r", b"\0")
# No number, infinity, missing value or truth value of pandas' CSV reader starts with one of these letters.
_CERTAINLY_TEXT = re.compile(r"[A-EG-HJ-MO-SU-Za-eg-hj-mo-su-z]")
_LONG_WHOLE = 1e15
_BOM = b"\xef\xbb\xbf"


class _Body(NamedTuple):
    """A body of the batch: its place, and its rows without the header, each ended by a line feed."""

    place: int
    rows: bytes


class _Group(NamedTuple):
    """Bodies whose parts are of the same classes; ``counts`` are their rows, ``classes`` those of the columns."""

    members: Sequence[_Body]
    counts: List[int]
    classes: bytes


def decode_together(bodies: Sequence[Buffer], *, max_bytes: int = 0) -> List[Joined]:
    """Return a table for each set of two or more bodies that can be read together; the others have to be read alone.

    Nothing is raised for bodies that are at fault: reading them alone will tell.
    """
    by_header: Dict[bytes, List[_Body]] = {}
    for place, data in enumerate(bodies):
        body = bytes(data)
        end = body.find(b"\n")
        header, rows = body[:end], body[end + 1 :]
        if header[-1:] == b"\r" and b'"' not in rows:
            header = header[:-1]
            rows = rows.replace(b"\r\n", b"\n")
        if rows[-2:-1] == b"\n" or rows[-1:] != b"\n":
            rows = rows.rstrip(b"\n") + b"\n"
        if end > 0:
            by_header.setdefault(header, []).append(_Body(place, rows))
    tables = []
    for header, members in by_header.items():
        columns = _count_columns(header)
        if not columns or len(members) < 2:
            continue
        is_long = sum(len(member.rows) for member in members) >= _LONG_BYTES
        table = _read_and_check(header, members, columns) if is_long and _trials.worth(header) else None
        if table is None:
            tables += [_read(header, group) for group in _alike(members, columns)]
        else:
            tables.append(table)
    return [table for table in tables if table is not None]


class _Trials:
    """Which headers' bodies are read first and checked afterwards: those for which that has worked lately."""

    _SKIP = 31  # batches after one for which it has not
    _MAX_HEADERS = 256

    def __init__(self) -> None:
        self._skip: Dict[bytes, int] = {}

    def worth(self, header: bytes) -> bool:
        left = self._skip.get(header, 0)
        if left:
            self._skip[header] = left - 1
        return not left

    def failed(self, header: bytes) -> None:
        if len(self._skip) >= self._MAX_HEADERS:
            self._skip.clear()
        self._skip[header] = self._SKIP


_trials = _Trials()


def _read_and_check(header: bytes, members: Sequence[_Body], columns: int) -> Optional[Joined]:
    """Return the table of all members if its values tell that each would have had these types alone."""
    rows = b"".join([member.rows for member in members])
    counts = [member.rows.count(b"\n") for member in members]
    count = sum(counts)
    first_row = rows[: rows.find(b"\n")]
    # pandas refuses a row that is longer than the first one. So with the first one as it should be, and with as many
    # commas as all the rows have, none of them is too short.
    if (
        columns > 1
        and first_row.count(b",") == columns - 1
        and rows.count(b",") == count * (columns - 1)
        and not any(byte in rows for byte in _HARD)
    ):
        pandas = pandas_for("reading CSV")
        try:
            frame = pandas.read_csv(text.open_bytes(b"".join([header, b"\n", rows])), low_memory=False, index_col=False)
        except Exception:  # whose fault it is, reading each alone tells
            frame = None
        if frame is not None and len(frame) == count and _has_types_of_parts(frame, counts):
            return Joined(frame, [member.place for member in members], counts)
    _trials.failed(header)
    return None


def _has_types_of_parts(frame: Any, counts: Sequence[int]) -> bool:
    """Say whether each column of each part has, for certain, the type alone that it has in the table.

    Whole numbers in a column of floats would be integers alone, unless a number with a fraction or a missing value is
    among them; text would be numbers or truth values, unless one is certain to be only text. Large whole numbers beside
    missing values are rounded in another way alone.
    """
    import numpy

    starts = numpy.cumsum([0, *counts[:-1]])
    floats = []
    for _, column in frame.items():  # noqa: PERF102 - it is a table, and has no values()
        dtype = column.dtype
        if dtype == "str":
            if not all(map(_is_certainly_text, column.to_numpy()[starts].tolist())):
                return False
        elif getattr(dtype, "kind", "O") == "f":
            floats.append(column.to_numpy())
        elif dtype not in (numpy.int64, numpy.bool_):
            return False
    if not floats:
        return True
    values = numpy.array(floats)
    if (numpy.abs(values) >= _LONG_WHOLE).any():
        return False
    certain = values != numpy.floor(values)  # true of missing values as well
    return bool(certain.all() or numpy.logical_or.reduceat(certain, starts, axis=1).all())


def _is_certainly_text(value: Any) -> bool:
    return isinstance(value, str) and _CERTAINLY_TEXT.match(value) is not None


def _count_columns(header: bytes) -> int:
    """Return how many columns a plain header names, 0 for one that is not plain."""
    if not _HEADER.fullmatch(header) or header.startswith(_BOM):
        return 0
    names = header.replace(b'"', b"").split(b",")
    # pandas would rename what stands twice; reading alone refuses it.
    return len(names) if len(set(names)) == len(names) else 0


def _read(header: bytes, group: _Group) -> Optional[Joined]:
    """Return the table of a group, or ``None`` if its types are not those that were foreseen."""
    pandas = pandas_for("reading CSV")
    data = b"".join([header, b"\n", *(member.rows for member in group.members)])
    try:
        frame = pandas.read_csv(text.open_bytes(data), low_memory=False, index_col=False)
    except Exception:  # whose fault it is, reading each alone tells
        return None
    if len(frame) != sum(group.counts) or bytes(map(_class_of, frame.dtypes.tolist())) != group.classes:
        return None
    return Joined(frame, [member.place for member in group.members], group.counts)


def _class_of(dtype: Any) -> int:
    kind = getattr(dtype, "kind", "O")
    if kind == "i":
        return _INT
    if kind == "f":
        return _FLOAT
    if kind == "b":
        return _BOOL
    return _TEXT if kind == "O" or str(dtype) in ("str", "string") else _ODD


def _alike(members: Sequence[_Body], columns: int) -> List[_Group]:
    """Return the groups of two and more whose parts are of the same classes."""
    import numpy

    data = b"".join([member.rows for member in members])
    if not _is_plain(data):
        return _alike_without(members, columns, [not _is_plain(member.rows) for member in members])
    if b'"' in data:
        odd = [member.rows.count(b'"') % 2 == 1 for member in members]
        if any(odd):
            return _alike_without(members, columns, odd)
    last = numpy.cumsum([len(member.rows) for member in members]) - 1  # the offset at which each member ends
    bad = numpy.zeros(len(members), dtype=bool)
    try:
        fields = Fields(data)
    except BadQuotes as exc:
        bad[numpy.searchsorted(last, exc.places)] = True
        return _alike_without(members, columns, bad)
    misfits = fields.misfits(columns)
    if misfits.any():
        bad[numpy.searchsorted(last, fields.row_ends[misfits])] = True
        return _alike_without(members, columns, bad)
    found = fields.classes().reshape(-1, columns)
    past = numpy.searchsorted(fields.row_ends, last, side="right")
    counts = numpy.diff(past, prepend=0)
    if len(found) != len(members):
        found = numpy.bitwise_or.reduceat(found, past - counts, axis=0)
    parts = found.tobytes().translate(_part_classes())
    groups: Dict[bytes, List[int]] = {}
    for position in range(len(members)):
        groups.setdefault(parts[position * columns : (position + 1) * columns], []).append(position)
    return [
        _Group([members[position] for position in positions], counts[positions].tolist(), classes)
        for classes, positions in groups.items()
        if len(positions) > 1 and _ODD not in classes
    ]


def _alike_without(members: Sequence[_Body], columns: int, bad: Sequence[bool]) -> List[_Group]:
    rest = [member for member, is_bad in zip(members, bad) if not is_bad]
    return _alike(rest, columns) if 1 < len(rest) < len(members) else []


def _is_plain(rows: bytes) -> bool:
    """Say whether the rows are UTF-8 whose lines end in line feeds."""
    if b"\0" in rows or b"\r" in rows:
        return False
    if not rows.isascii():
        try:
            rows.decode()
        except UnicodeDecodeError:
            return False
    return True


@functools.lru_cache(maxsize=1)
def _part_classes() -> bytes:
    """Return the class of a part by the classes of its fields."""
    return bytes(map(_part_class, range(256)))


def _part_class(fields: int) -> int:
    if fields & UNSURE or not fields:
        return _ODD
    if fields & WORD:
        # A column in which an integer overflows before a word comes is one of objects, not of strings.
        return _ODD if fields & LONG else _TEXT
    if fields & TRUTH:
        return _BOOL if fields == TRUTH else _ODD
    if not fields & (FRACTION | MISSING):
        return _INT
    # Where a value is missing, pandas parses integers as such first, and a long one is rounded in another way.
    return _ODD if fields & LONG else _FLOAT
