"""What an Arrow IPC body will become, read from its framing before pyarrow touches it.

pyarrow allocates what a body declares: the lengths of compressed buffers, the rows of columns that have no buffers.
This walks the messages (flatbuffers, https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc)
with every offset checked, and adds up rows and decompressed bytes.

::

    stream   (marker -1, metadata length, metadata, body)*  end marker: length 0
    file     "ARROW1" padding stream footer footer length "ARROW1"
"""

from __future__ import annotations

import struct
from typing import Iterator, List, Tuple

from ..errors import DecodeError, DecompressedTooLarge
from ..types import Buffer

_MAGIC = b"ARROW1"
_INT16 = struct.Struct("<h")
_UINT16 = struct.Struct("<H")
_INT32 = struct.Struct("<i")
_UINT32 = struct.Struct("<I")
_INT64 = struct.Struct("<q")
_PAIR = struct.Struct("<qq")
_BLOCK = struct.Struct("<qi4xq")
_BYTES_PER_CELL = 8
# Values of the MessageHeader union.
_SCHEMA, _DICTIONARY, _RECORDS = 1, 2, 3


class _Table:
    """One flatbuffers table: fields are found through its vtable, each read is checked by ``struct``."""

    def __init__(self, buffer: memoryview, position: int) -> None:
        self._buffer = buffer
        self._position = position
        self._vtable = position - _INT32.unpack_from(buffer, position)[0]
        if position < 0 or self._vtable < 0:
            raise ValueError("a table outside its message")
        self._vtable_size = _UINT16.unpack_from(buffer, self._vtable)[0]

    @classmethod
    def root(cls, buffer: memoryview) -> _Table:
        return cls(buffer, _UINT32.unpack_from(buffer, 0)[0])

    def _place(self, field: int) -> int:
        """Return where the field lies, or 0 when it has its default."""
        slot = 4 + 2 * field
        if slot + 2 > self._vtable_size:
            return 0
        offset: int = _UINT16.unpack_from(self._buffer, self._vtable + slot)[0]
        return self._position + offset if offset else 0

    def integer(self, field: int, form: struct.Struct, default: int = 0) -> int:
        place = self._place(field)
        return int(form.unpack_from(self._buffer, place)[0]) if place else default

    def byte(self, field: int) -> int:
        place = self._place(field)
        return self._buffer[place] if place else 0

    def table(self, field: int) -> _Table | None:
        place = self._place(field)
        return _Table(self._buffer, place + _UINT32.unpack_from(self._buffer, place)[0]) if place else None

    def structs(self, field: int, form: struct.Struct) -> List[Tuple[int, ...]]:
        """Return a vector of structs."""
        place = self._place(field)
        if not place:
            return []
        start = place + _UINT32.unpack_from(self._buffer, place)[0]
        count = _UINT32.unpack_from(self._buffer, start)[0]
        size = count * form.size
        piece = self._buffer[start + 4 : start + 4 + size]
        if len(piece) != size:
            raise ValueError("a vector that is longer than its message")
        return list(form.iter_unpack(piece))


def check_stream(data: Buffer, max_bytes: int) -> None:
    """Check the framing of a stream and that what it declares fits in ``max_bytes``.

    Raises ``DecodeError`` for broken framing and what is not read here, ``DecompressedTooLarge``.
    """
    _check(_stream_messages(memoryview(data)), "stream", max_bytes)


def check_file(data: Buffer, max_bytes: int) -> None:
    """Check the framing of a file, as ``check_stream`` does."""
    _check(_file_messages(memoryview(data)), "file", max_bytes)


def _check(messages: Iterator[Tuple[memoryview, memoryview]], what: str, max_bytes: int) -> None:
    total = 0
    try:
        for metadata, body in messages:
            total += _declared_bytes(metadata, body)
            if total > max_bytes:
                raise DecompressedTooLarge(
                    f"the Arrow {what} declares more than the limit of {max_bytes} bytes of data; send fewer rows"
                )
    except (struct.error, ValueError, IndexError, OverflowError) as exc:
        raise DecodeError(f"the Arrow {what} is damaged or cut off: {exc}") from exc


def _stream_messages(view: memoryview) -> Iterator[Tuple[memoryview, memoryview]]:
    position = 0
    while position < len(view):
        length = _INT32.unpack_from(view, position)[0]
        position += 4
        if length == -1:
            length = _INT32.unpack_from(view, position)[0]
            position += 4
        if length == 0:
            if position != len(view):
                raise ValueError(f"{len(view) - position} bytes follow its end")
            return
        metadata, body = _message(view, position, length)
        position += length + len(body)
        yield metadata, body


def _file_messages(view: memoryview) -> Iterator[Tuple[memoryview, memoryview]]:
    if bytes(view[:6]) != _MAGIC or len(view) < 18 or bytes(view[-6:]) != _MAGIC:
        raise ValueError("it does not start and end with ARROW1")
    length = _INT32.unpack_from(view, len(view) - 10)[0]
    start = len(view) - 10 - length
    if length <= 0 or start < 8:
        raise ValueError(f"its footer has a length of {length}")
    footer = _Table.root(view[start : len(view) - 10])
    for vector in (2, 3):
        for offset, metadata_length, body_length in footer.structs(vector, _BLOCK):
            if offset < 8 or offset % 8 or metadata_length < 8 or offset + metadata_length + body_length > start:
                raise ValueError("its footer names a block outside it")
            prefix = 8 if _INT32.unpack_from(view, offset)[0] == -1 else 4
            metadata, body = _message(view, offset + prefix, metadata_length - prefix)
            if len(body) != body_length:
                raise ValueError("its footer and its blocks have different lengths")
            yield metadata, body


def _message(view: memoryview, position: int, length: int) -> Tuple[memoryview, memoryview]:
    if length < 8 or length > len(view) - position:
        raise ValueError(f"metadata of {length} bytes at offset {position}, where {len(view) - position} are left")
    metadata = view[position : position + length]
    start = position + length
    size = _Table.root(metadata).integer(3, _INT64)
    if size < 0 or size > len(view) - start:
        raise ValueError(f"a body of {size} bytes at offset {start}, where {len(view) - start} are left")
    return metadata, view[start : start + size]


def _declared_bytes(metadata: memoryview, body: memoryview) -> int:
    """Return the bytes that the message's columns take as a table: cells of 8 bytes, and decompressed buffers."""
    message = _Table.root(metadata)
    kind = message.byte(1)
    if kind == _SCHEMA:
        return 0
    batch = message.table(2)
    if kind == _DICTIONARY and batch is not None:
        if batch.byte(2):
            raise ValueError("dictionaries that are sent in pieces are not read here; send whole ones")
        batch = batch.table(1)
    elif kind != _RECORDS:
        raise ValueError(f"a message of kind {kind}, which is no table")
    if batch is None:
        raise ValueError("a message without its content")
    rows = batch.integer(0, _INT64)
    nodes = batch.structs(1, _PAIR)
    lengths = [length for length, _nulls in nodes]
    if rows < 0 or (lengths and min(lengths) < 0):
        raise ValueError("a negative number of rows")
    # How many buffers each column of views has: pyarrow makes room for them before it looks for them.
    views = [count for (count,) in batch.structs(4, _INT64)]
    if views and (min(views) < 0 or sum(views) > len(batch.structs(2, _PAIR))):
        raise ValueError("a column of views with more buffers than there are")
    total = (rows + sum(lengths)) * _BYTES_PER_CELL
    if batch.table(3) is not None:
        for offset, length in batch.structs(2, _PAIR):
            if length == 0:
                continue
            if offset < 0 or length < 8 or offset + length > len(body):
                raise ValueError("a buffer outside its message")
            size = _INT64.unpack_from(body, offset)[0]
            if size < -1:
                raise ValueError("a compressed buffer of a negative length")
            total += max(size, 0)
    return total
