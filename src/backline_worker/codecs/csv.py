"""CSV tables: what ``pandas.read_csv`` reads by default, with everything that it lets slip refused.

Comma, header row, double quotes, pandas' own inference of types and its tokens for missing values. Read as one piece
(``low_memory=False``), so that a column's type never depends on where a chunk ends.

What does not survive a round trip: types (a column of the strings ``"1"`` comes back as numbers), the difference
between a missing value and the strings that stand for one (``""``, ``"NA"``, ...), the last bit of some floats (before
3.1 pandas' default parser is not correctly rounded, and it is what models were trained with), dates, nested values,
lone surrogates.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
import sys
import threading
from typing import TYPE_CHECKING, Any, Iterator, List, Optional, Sequence, Tuple

from ..errors import DecodeError, EmptyBody
from ..types import Buffer
from . import text
from ._libraries import pandas_for
from .cells import Column, float_texts, plain_values, slices

if TYPE_CHECKING:
    from pandas import DataFrame

_WHAT = "the CSV"
_HEAD_BYTES = 1 << 16
_LONE_CR = re.compile(b"\r(?!\n)")
# A quoted field, which opens where a field starts, or the end of a line.
_QUOTED_OR_END = re.compile(b'(?<![^,\r\n])"(?:[^"]|"")*"|\r\n?')
_NEEDS_QUOTES = re.compile('[,"\r\n]')
_field_limit_lock = threading.Lock()


def decode(data: Buffer, *, charset: str = "", max_bytes: int = 0) -> DataFrame:
    """Return the table, with the header's names and an index from 0.

    Raises ``EmptyBody`` when there is no row, and ``DecodeError`` with the line for everything malformed.
    """
    pandas = pandas_for("reading CSV")
    data = text.to_utf8(data, charset, _WHAT)
    if not len(data):
        raise EmptyBody("the CSV is empty; a header line and at least one row are needed")
    offset = text.find_byte(data, b"\0")
    if offset >= 0:
        raise DecodeError(
            f"the CSV has a NUL byte at offset {offset} (line {text.line_at(data, offset)}); it may be binary, or "
            "UTF-16 without its charset parameter"
        )
    if text.find_byte(data, b"\r") >= 0 and _LONE_CR.search(data):
        data = _with_line_feeds(data)
    header, first_row = _first_records(data)
    columns = len(header)
    # Where the first row has more fields than the header pandas takes the first ones for an index, without a word.
    if first_row > columns:
        raise _find_fault(data) or DecodeError("the CSV's rows have more fields than its header")
    # pandas would make an object for each column, and then find no row: ten seconds for 200 KB of commas.
    if not first_row and text.find_byte(data, b'"') < 0 and text.first_bad_utf8(data)[0] < 0:
        raise EmptyBody("the CSV has a header and no rows")
    try:
        frame = pandas.read_csv(text.open_bytes(data), low_memory=False, index_col=False)
    except MemoryError:
        raise
    except UnicodeDecodeError:
        text.raise_not_utf8(data, _WHAT)
    except Exception as exc:
        raise _explain(data, exc) from exc
    if not len(frame):
        raise EmptyBody("the CSV has a header and no rows")
    if len(frame.columns) != columns:
        raise _find_fault(data) or DecodeError("the CSV's header cannot be read: is there a quote inside a name?")
    if columns > 1 and _may_have_short_rows(data, frame, columns):
        fault = _find_fault(data)
        if fault is not None:
            raise fault
    return frame


def read_column(data: Buffer, name: str, *, charset: str = "") -> List[str]:
    """Return a column as the texts that stand there, without pandas. Raises as ``decode`` does."""
    from .texts import check_has

    data = text.to_utf8(data, charset, _WHAT)
    offset = text.find_byte(data, b"\0")
    if offset >= 0:
        raise DecodeError(f"the CSV has a NUL byte at offset {offset} (line {text.line_at(data, offset)})")
    if text.first_bad_utf8(data)[0] >= 0:
        text.raise_not_utf8(data, _WHAT)
    records = _records(data)
    _, header = next(records, (0, []))
    if not header:
        raise EmptyBody("the CSV has no header; a header line and at least one row are needed")
    check_has(header, name)
    if header.count(name) > 1:
        raise DecodeError(f"the CSV's header has the column {name!r} twice; name each column once")
    place = header.index(name)
    values = []
    for line, record in records:
        if len(record) != len(header):
            raise DecodeError(f"line {line} of the CSV has {len(record)} fields where the header has {len(header)}")
        values.append(record[place])
    if not values:
        raise EmptyBody("the CSV has a header and no rows")
    return values


def encode(columns: Sequence[Column], rows: int, counts: Sequence[int]) -> List[bytes]:
    """Return header and rows for each member of the table, ``counts`` rows each.

    Lines are ended by a line feed, floats are as Python writes them, missing values are empty.
    """
    cells = [_cells(values, rows) for _, values in columns]
    header = (",".join(_quote(name) for name, _ in columns) or '""') + "\n"
    if len(cells) == 1:
        lines = [(cell or '""') + "\n" for cell in cells[0]]  # an empty line would be skipped by readers
    else:
        lines = [",".join(row) + "\n" for row in zip(*cells)]
    return [(header + "".join(piece)).encode("utf-8", "replace") for piece in slices(lines, counts)]


def _cells(values: Any, rows: int) -> List[str]:
    plain = plain_values(values, rows)
    kinds = set(map(type, plain))
    if kinds <= {float}:
        # repr is the shortest text that reads back as the same float; "nan" is what read_csv takes for missing too.
        return ["" if cell == "nan" else cell for cell in float_texts(plain)]
    if kinds <= {int}:
        return list(map(int.__repr__, plain))
    return [_cell(value) for value in plain]


def _cell(value: Any) -> str:
    if value is None or value != value:
        return ""
    return _quote(value if isinstance(value, str) else str(value))


def _quote(value: str) -> str:
    if _NEEDS_QUOTES.search(value):
        return '"' + value.replace('"', '""') + '"'
    return value


def _with_line_feeds(data: Buffer) -> bytes:
    """Return the text with a line feed for each end of line that is a carriage return, as old Macs wrote.

    At a line that starts with a blank pandas before 3 goes back to the last line feed and reads on from there: rows
    come twice, or without end, until the memory is full. All versions lose rows that start with a comma.
    """
    return _QUOTED_OR_END.sub(lambda match: b"\n" if match.group()[:1] == b"\r" else match.group(), bytes(data))


def _first_records(data: Buffer) -> Tuple[List[str], int]:
    """Return the header's names and how many fields the first row has (0: there is none).

    Raises ``DecodeError`` for a name that stands twice.
    """
    names: List[str] = []
    fields = 0
    head = bytes(data[:_HEAD_BYTES])
    if b'"' not in head and head.count(b"\n") > 1:
        # The usual case by hand. A last line that may be cut off is left out.
        lines = (line for line in head.replace(b"\r", b"\n").split(b"\n")[:-1] if line.strip(b" \t"))
        first, second = next(lines, b""), next(lines, b"")
        try:
            names = first.decode("utf-8").split(",") if first else []
        except UnicodeDecodeError:
            text.raise_not_utf8(data, _WHAT)
        fields = second.count(b",") + 1 if second else 0
    if not names or not fields:
        records = [record for _line, record in itertools.islice(_records(data), 2)]
        names = records[0] if records else []
        fields = len(records[1]) if len(records) > 1 else 0
    if not names:
        raise EmptyBody("the CSV has no header; a header line and at least one row are needed")
    if len(set(names)) != len(names):
        seen = set()
        for name in names:
            # pandas names empty ones after their place, so several of them are no clash.
            if name and name in seen:
                raise DecodeError(f"the CSV's header has the column {name!r} twice; name each column once")
            seen.add(name)
    return names, fields


def _may_have_short_rows(data: Buffer, frame: Any, columns: int) -> bool:
    """Say whether a row may have fewer fields than the header: pandas pads those without a word.

    A padded row misses the last column's value. And with no row too long, or pandas had refused it, all the commas
    are there only when each row has all of its own; with quotes the commas tell nothing.
    """
    if len(data) > _HEAD_BYTES and not frame.iloc[:, -1].isnull().any():
        return False
    return text.find_byte(data, b'"') >= 0 or text.count_byte(data, b",") != (columns - 1) * (len(frame) + 1)


def _records(data: Buffer) -> Iterator[Tuple[int, List[str]]]:
    """Yield each record with the number of the line it starts at; blank lines are left out, as pandas does."""
    stream = io.TextIOWrapper(text.open_bytes(data), encoding="utf-8", errors="replace", newline="")
    line = ""

    def lines() -> Iterator[str]:
        nonlocal line
        for line in stream:  # noqa: UP028 - the line is remembered
            yield line

    reader = csv.reader(lines())
    end = 0
    while True:
        # The limit is the interpreter's, not the reader's: it is lent for as long as one record takes.
        with _field_limit_lock:
            limit = csv.field_size_limit(sys.maxsize)
            try:
                record = next(reader, None)
            finally:
                csv.field_size_limit(limit)
        if record is None:
            return
        start, end = end + 1, reader.line_num
        # An empty field in quotes makes a row; a line of blanks does not.
        if end > start or line.strip(" \t\r\n"):
            yield start, record


def _find_fault(data: Buffer) -> Optional[DecodeError]:
    """Return the error for the first row that is not as long as the header, or ``None``."""
    expected: Optional[int] = None
    try:
        for line, record in _records(data):
            if expected is None:
                expected = len(record)
            elif len(record) != expected:
                many = len(record) > expected
                return DecodeError(
                    "line {} of the CSV has {} field{} where the header has {}{}".format(
                        line,
                        len(record),
                        "" if len(record) == 1 else "s",
                        expected,
                        _hint_for_many(record, expected) if many else "; missing values need their commas",
                    ),
                    details={"line": line},
                )
    except csv.Error as exc:
        return DecodeError(f"the CSV cannot be read: {exc}")
    return None


def _hint_for_many(record: List[str], expected: int) -> str:
    if len(record) == expected + 1 and record[-1] == "":
        return "; is there a comma at its end?"
    return "; a field that has commas in it must stand in double quotes"


def _explain(data: Buffer, exc: Exception) -> DecodeError:
    """Return the error for what pandas refused, by its line in the file rather than pandas' count of rows."""
    message = str(exc).strip()
    if "EOF inside string" in message:
        line = 1
        for start, _record in _records(data):
            line = start
        return DecodeError(
            f"the CSV ends inside a quoted field that starts in the row at line {line}; a closing double quote is "
            "missing",
            details={"line": line},
        )
    if type(exc).__name__ == "EmptyDataError":
        return DecodeError("the CSV has no header; a header line and at least one row are needed")
    fault = _find_fault(data)
    if fault is not None:
        return fault
    return DecodeError("the CSV cannot be read: {}".format(message.replace("Error tokenizing data. ", "")))
