"""gzip and deflate bodies, taken apart in steps: a bomb is noticed after ``max_bytes``, not after it went off."""

from __future__ import annotations

import zlib
from typing import Any, List

from ..errors import DecodeError, DecompressedTooLarge, UnsupportedEncoding
from ..types import Buffer

_STEP = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS
_DEFLATE = zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


def decompress(data: Buffer, encoding: str, max_bytes: int) -> Buffer:
    """Return the body without its Content-Encoding; ``""`` and ``identity`` hand it back as it is.

    Several encodings (``"deflate, gzip"``) are undone from last to first. Raises ``UnsupportedEncoding`` for one that
    is unknown, ``DecompressedTooLarge`` once more than ``max_bytes`` come out, ``DecodeError`` for a body that is
    damaged, cut off, or followed by something else.
    """
    encodings = [name.strip().lower() for name in encoding.split(",")]
    steps = [name for name in encodings if name not in ("", "identity")]
    for name in steps:
        if name not in ("gzip", "x-gzip", "deflate"):
            raise UnsupportedEncoding(
                f"Content-Encoding {name[:40]!r} is not known here; send gzip, deflate or no encoding"
            )
    if len(steps) > 3:
        raise UnsupportedEncoding(f"the body is encoded {len(steps)} times over; once will do")
    for name in reversed(steps):
        data = _inflate(data, "deflate" if name == "deflate" else "gzip", max_bytes)
    return data


def _inflate(data: Buffer, name: str, max_bytes: int) -> bytes:
    view = memoryview(data)
    if not view:
        raise DecodeError(f"the {name} body is empty")
    window = _GZIP if name == "gzip" else _deflate_window(view)
    pieces: List[bytes] = []
    size = 0
    start = 0
    while start < len(view):
        stream: Any = zlib.decompressobj(window)
        # Each member is read until its end: what follows it must be another one, and only gzip has several.
        while not stream.eof:
            held = stream.unconsumed_tail
            if not held:
                held = view[start : start + _STEP]
                start += len(held)
                if len(held) == 0:
                    raise DecodeError(f"the {name} body is cut off: it ends inside its compressed data")
            try:
                piece = stream.decompress(held, _STEP)
            except zlib.error as exc:
                raise DecodeError(f"the {name} body is damaged: {exc}") from exc
            size += len(piece)
            if size > max_bytes:
                raise DecompressedTooLarge(
                    f"the {name} body grows past the limit of {max_bytes} bytes when it is decompressed; send it in "
                    "several requests"
                )
            pieces.append(piece)
        start -= len(stream.unused_data)
        if start < len(view) and (name != "gzip" or bytes(view[start : start + 2]) != b"\x1f\x8b"):
            raise DecodeError(f"the {name} body has {len(view) - start} bytes after its end")
    return b"".join(pieces)


def _deflate_window(view: memoryview) -> int:
    """Return the window bits: "deflate" is zlib's format (RFC 9110, 8.4.1.2), and some clients send it bare."""
    has_zlib_header = len(view) >= 2 and view[0] & 0x0F == 8 and (view[0] << 8 | view[1]) % 31 == 0
    return _DEFLATE if has_zlib_header else _RAW_DEFLATE
