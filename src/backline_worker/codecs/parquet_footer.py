"""What a Parquet file will become, read from its footer and page headers before pyarrow touches it.

pyarrow allocates what a file declares, and some of its accessors for metadata end the process on a damaged file. This
reads the footer and the page headers (Thrift's compact protocol,
https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift) with every length checked.

::

    "PAR1" pages ... footer  footer length (uint32)  "PAR1"
"""

from __future__ import annotations

import struct
from typing import Any, Dict, List, NamedTuple, Tuple

from ..errors import DecodeError, DecompressedTooLarge
from ..types import Buffer

_MAGIC = b"PAR1"
_WHAT = "the Parquet file"
_UINT32 = struct.Struct("<I")
_BYTES_PER_CELL = 8
_MAX_DEPTH = 32
# Thrift's compact types.
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
# Parquet's enums: physical type BYTE_ARRAY, page types, and the encodings that build a value on the one before.
_BYTE_ARRAY = 6
_DATA_PAGE, _INDEX_PAGE, _DICTIONARY_PAGE, _DATA_PAGE_V2 = range(4)
_DELTA_BYTE_ARRAYS = frozenset({6, 7})

# Which fields to keep: field id -> True, or the fields of the struct (or of the list of structs) that it holds.
_PAGE_FIELDS: Dict[int, Any] = {
    1: True,  # type
    2: True,  # uncompressed size
    3: True,  # compressed size
    5: {1: True, 2: True},  # data page: values, encoding
    7: {1: True},  # dictionary page: values
    8: {1: True, 4: True},  # data page v2: values, encoding
}
_COLUMN_FIELDS: Dict[int, Any] = {
    1: True,  # physical type
    3: True,  # path
    5: True,  # values
    6: True,  # uncompressed size
    7: True,  # compressed size
    9: True,  # offset of the first data page
    11: True,  # offset of the dictionary page
}
_FOOTER_FIELDS: Dict[int, Any] = {
    2: {1: True, 4: True, 5: True},  # schema: type, name, children
    3: True,  # rows
    4: {1: {3: _COLUMN_FIELDS}, 3: True},  # row groups: columns, rows
}


class Footer(NamedTuple):
    """What the checked footer says that matters for reading."""

    rows: int
    as_dictionaries: List[str]  # text columns to be read as dictionaries, by their path
    batch_rows: int  # how many rows to read at a time, 0 for all


class _Reader:
    """Thrift's compact protocol over a view; raises ``ValueError`` or ``IndexError`` where it ends early."""

    def __init__(self, view: memoryview, position: int = 0) -> None:
        self.view = view
        self.position = position

    def _byte(self) -> int:
        value = self.view[self.position]
        self.position += 1
        return value

    def _unsigned(self) -> int:
        result = shift = 0
        while True:
            byte = self._byte()
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result
            shift += 7
            if shift > 63:
                raise ValueError("an integer of more than 64 bits")

    def _integer(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)

    def skip_bytes(self, count: int) -> None:
        if count < 0 or count > len(self.view) - self.position:
            raise ValueError("a value that is longer than its file")
        self.position += count

    def struct(self, wanted: Dict[int, Any], depth: int = 0) -> Dict[int, Any]:
        """Return the wanted fields of the struct here; the others are passed over."""
        if depth > _MAX_DEPTH:
            raise ValueError("structures nested too deeply")
        fields: Dict[int, Any] = {}
        number = 0
        while True:
            head = self._byte()
            if head == 0:
                return fields
            kind = head & 0x0F
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(kind, wanted.get(number), depth, in_struct=True)

    def _value(self, kind: int, wanted: Any, depth: int, *, in_struct: bool) -> Any:
        if kind in (_TRUE, _FALSE):
            if not in_struct:
                self.skip_bytes(1)
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._integer()
        if kind == _BYTE:
            return self._byte()
        if kind == _DOUBLE:
            return self.skip_bytes(8)
        if kind == _BINARY:
            length = self._unsigned()
            start = self.position
            self.skip_bytes(length)
            return bytes(self.view[start : start + length]) if wanted else None
        if kind in (_LIST, _SET):
            return self._list(wanted, depth + 1)
        if kind == _MAP:
            return self._map(depth + 1)
        if kind == _STRUCT:
            return self.struct(wanted if isinstance(wanted, dict) else {}, depth + 1)
        raise ValueError(f"a value of unknown kind {kind}")

    def _list(self, wanted: Any, depth: int) -> List[Any]:
        head = self._byte()
        count = head >> 4 if head >> 4 != 15 else self._unsigned()
        if count > len(self.view) - self.position:  # each item takes a byte at least
            raise ValueError("a list that is longer than its file")
        if depth > _MAX_DEPTH:
            raise ValueError("structures nested too deeply")
        return [self._value(head & 0x0F, wanted, depth, in_struct=False) for _ in range(count)]

    def _map(self, depth: int) -> None:
        count = self._unsigned()
        if count == 0:
            return
        if depth > _MAX_DEPTH or count > len(self.view) - self.position:
            raise ValueError("a map that is longer than its file")
        kinds = self._byte()
        for _ in range(count):
            self._value(kinds >> 4, None, depth, in_struct=False)
            self._value(kinds & 0x0F, None, depth, in_struct=False)


def check(data: Buffer, max_bytes: int) -> Footer:
    """Check that the file's structure is whole and that what it declares fits in ``max_bytes``.

    How large text becomes stands in no header: one long value and a million references to it are a small file. So where
    a column's longest possible value, once for each row, would not fit, it is to be read as a dictionary, which stays
    small until its true size is known. Values that continue the one before (DELTA_BYTE_ARRAY) have no dictionary: then
    rows are to be read and counted in batches, each of which fits. Raises ``DecodeError`` or ``DecompressedTooLarge``.
    """
    view = memoryview(data)
    if len(view) < 12 or bytes(view[:4]) != _MAGIC or bytes(view[-4:]) != _MAGIC:
        raise DecodeError(f"{_WHAT} does not start and end with PAR1: it is cut off, encrypted or no Parquet")
    length = _UINT32.unpack_from(view, len(view) - 8)[0]
    end = len(view) - 8 - length
    if end < 4:
        raise DecodeError(f"{_WHAT} is damaged: its footer has {length} bytes, more than the file")
    try:
        footer = _Reader(view[end:-8]).struct(_FOOTER_FIELDS)
        return _check_footer(footer, view[:end], max_bytes)
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, struct.error) as exc:
        raise DecodeError(f"{_WHAT} is damaged: {exc}") from exc


def _check_footer(footer: Dict[int, Any], pages: memoryview, max_bytes: int) -> Footer:
    rows = _count(footer[3], "rows")
    leaves = sum(1 for element in footer[2] if not element.get(5))
    names = {element[4] for element in footer[2][1:]}
    _limit(rows * max(leaves, 1) * _BYTES_PER_CELL, max_bytes)
    groups = footer.get(4, [])
    if sum(_count(group[3], "rows in a row group") for group in groups) != rows:
        raise ValueError("its row groups do not add up to its rows")
    total = 0
    as_dictionaries: List[str] = []
    batch_rows = 0
    for group in groups:
        if len(group[1]) != leaves:
            raise ValueError(f"a row group has {len(group[1])} columns of {leaves}")
        for chunk in group[1]:
            column = chunk[3]
            path = column[3]
            if not path or path[0] not in names:
                raise ValueError("a column that is not in its schema")
            is_flat = len(path) == 1
            values = _count(column[5], "values")
            if values != group[3] if is_flat else values < group[3]:
                raise ValueError(f"a column of {values} values in a row group of {group[3]} rows")
            if not values:
                continue
            values, size, largest, delta = _check_pages(column, pages)
            total += size + values * _BYTES_PER_CELL
            _limit(total, max_bytes)
            if column[1] != _BYTE_ARRAY or values * size <= max_bytes:
                continue
            if not delta:
                as_dictionaries.append(b".".join(path).decode("utf-8"))
            elif is_flat:
                rows_that_fit = max(max_bytes // max(largest, 1), 1)
                batch_rows = min(batch_rows or rows_that_fit, rows_that_fit)
            else:
                raise _too_large(max_bytes)
    return Footer(rows, sorted(set(as_dictionaries)), batch_rows)


def _check_pages(column: Dict[int, Any], pages: memoryview) -> Tuple[int, int, int, bool]:
    """Return what the page headers say: values, uncompressed bytes, those of the largest page, and whether values
    continue earlier ones.
    """
    declared = _count(column[5], "values")
    start = _count(column[9], "offset")
    if 0 < column.get(11, 0) < start:
        start = column[11]
    end = start + _count(column[7], "compressed size")
    if start < 4 or end > len(pages):
        raise ValueError("a column that lies outside the file")
    size = largest = values = dictionary = 0
    delta = False
    reader = _Reader(pages[:end], start)
    # Readers stop when they have all values, so nothing has to follow those.
    while values < declared:
        header = reader.struct(_PAGE_FIELDS)
        page_size = _count(header[2], "page size")
        size += page_size
        largest = max(largest, page_size)
        reader.skip_bytes(_count(header[3], "compressed page size"))
        kind = header[1]
        if kind == _DICTIONARY_PAGE:
            dictionary += _count(header[7][1], "dictionary values")
        elif kind in (_DATA_PAGE, _DATA_PAGE_V2):
            data_page = header[5 if kind == _DATA_PAGE else 8]
            values += _count(data_page[1], "page values")
            delta = delta or data_page[2 if kind == _DATA_PAGE else 4] in _DELTA_BYTE_ARRAYS
    if values != declared:
        raise ValueError(f"a column has {values} values in its pages where its footer says {declared}")
    return values + dictionary, size, largest, delta


def _count(value: Any, what: str) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{what} is {value!r}")
    return value


def _limit(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise _too_large(max_bytes)


def _too_large(max_bytes: int) -> DecompressedTooLarge:
    return DecompressedTooLarge(
        f"{_WHAT} holds, or may hold, more than the limit of {max_bytes} bytes of data; send fewer rows"
    )
