"""Text in bodies: character sets, and scanning large read-only views without copying them."""

from __future__ import annotations

import codecs
import io
from typing import Iterator, NoReturn, Tuple, Union

from ..errors import DecodeError
from ..types import Buffer

_CHUNK = 1 << 20
_UTF8_BOM = b"\xef\xbb\xbf"
# Python offers these as character sets; none is one that a table comes in, and some take quadratic time.
NOT_CHARSETS = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem"})


class ViewReader(io.RawIOBase):
    """A file over a read-only view: lets parsers read a mapped body without a copy of the whole."""

    def __init__(self, view: Buffer) -> None:
        super().__init__()
        self._view = memoryview(view)
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, target: Union[bytearray, memoryview]) -> int:  # type: ignore[override]
        piece = self._view[self._position : self._position + len(target)]
        target[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def open_bytes(data: Buffer) -> Union[io.BytesIO, io.BufferedReader]:
    """Return the data as a binary file; bytes are shared, a view is read piece by piece."""
    if isinstance(data, bytes):
        return io.BytesIO(data)
    if len(data) <= _CHUNK:
        return io.BytesIO(bytes(data))
    return io.BufferedReader(ViewReader(data), _CHUNK)


def chunks(data: Buffer) -> Iterator[bytes]:
    """Yield the data in pieces of 1 MiB, small enough to stay in the cache."""
    if isinstance(data, bytes) and len(data) <= _CHUNK:
        yield data
        return
    view = memoryview(data)
    for start in range(0, len(view), _CHUNK):
        yield bytes(view[start : start + _CHUNK])


def find_byte(data: Buffer, byte: bytes) -> int:
    """Return the offset of the first such byte, or -1."""
    start = 0
    for piece in chunks(data):
        found = piece.find(byte)
        if found >= 0:
            return start + found
        start += len(piece)
    return -1


def count_byte(data: Buffer, byte: bytes) -> int:
    """Return how often the byte occurs."""
    return sum(piece.count(byte) for piece in chunks(data))


def line_at(data: Buffer, offset: int) -> int:
    """Return the number, from 1, of the line that holds this offset."""
    return 1 + count_byte(memoryview(data)[:offset], b"\n")


def to_utf8(data: Buffer, charset: str, what: str) -> Buffer:
    """Return the text as UTF-8 without a byte order mark; UTF-8 and ASCII are handed back unchecked and uncopied.

    Raises ``DecodeError`` when the charset is unknown or the bytes are not in it.
    """
    name = _charset_name(charset, what)
    if name in ("utf-8", "ascii"):
        return strip_bom(data)
    return decode_text(data, charset, what).encode("utf-8", "surrogatepass")


def strip_bom(data: Buffer) -> Buffer:
    """Return the data without a leading UTF-8 byte order mark."""
    if bytes(data[:3]) != _UTF8_BOM:
        return data
    return data[3:] if len(data) <= _CHUNK else memoryview(data)[3:]


def decode_text(data: Buffer, charset: str, what: str) -> str:
    """Return the text of the body, without a byte order mark.

    Raises ``DecodeError`` when the charset is unknown or the bytes are not in it, with offset and line.
    """
    name = _charset_name(charset, what)
    if name == "ascii":
        name = "utf-8"
    try:
        text = str(data, name)
    except UnicodeDecodeError as exc:
        if name == "utf-8":
            raise_not_utf8(data, what)
        raise DecodeError(
            f"{what} is not {charset} text: {exc.reason} at byte {exc.start}; mend the charset parameter of its "
            "Content-Type"
        ) from exc
    except (UnicodeError, ValueError) as exc:
        raise DecodeError(f"{what} is not {charset} text: {exc}") from exc
    return text[1:] if text.startswith("\ufeff") else text


def raise_not_utf8(data: Buffer, what: str) -> NoReturn:
    """Raise the ``DecodeError`` for text that is not UTF-8, naming the first offending byte and its line."""
    offset, reason = first_bad_utf8(data)
    if offset < 0:
        raise DecodeError(f"{what} is not UTF-8 text")
    value = memoryview(data)[offset]
    raise DecodeError(
        f"{what} is not UTF-8 text: byte 0x{value:02x} at offset {offset} (line {line_at(data, offset)}): {reason}; "
        "send UTF-8, or name the charset in the Content-Type, for example text/csv; charset=latin-1",
        details={"offset": offset},
    )


def first_bad_utf8(data: Buffer) -> Tuple[int, str]:
    """Return offset and reason of the first byte that is not UTF-8, or ``(-1, "")``."""
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    start = 0
    for piece in chunks(data):
        held = len(decoder.getstate()[0])
        try:
            decoder.decode(piece)
        except UnicodeDecodeError as exc:
            return start - held + exc.start, exc.reason
        start += len(piece)
    try:
        decoder.decode(b"", True)
    except UnicodeDecodeError as exc:
        return start - len(exc.object) + exc.start, exc.reason
    return -1, ""


def _charset_name(charset: str, what: str) -> str:
    if not charset:
        return "utf-8"
    try:
        name = codecs.lookup(charset).name
        "".encode(name)  # refuses codecs that are no character sets, such as zlib and rot13
    except (LookupError, ValueError, TypeError, ImportError) as exc:
        raise _unknown_charset(charset, what) from exc
    if name.replace("-", "_") in NOT_CHARSETS:
        raise _unknown_charset(charset, what)
    # The server does not mind a byte order mark: utf-8-sig is utf-8 here.
    return "utf-8" if name == "utf-8-sig" else name


def _unknown_charset(charset: str, what: str) -> DecodeError:
    return DecodeError(f"{what} comes with charset {charset[:40]!r}, which is not known here; send UTF-8")
