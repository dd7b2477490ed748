"""From a request's part to a table: which format it is, and who reads it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

from ..errors import DecodeError, EmptyBody, UnsupportedMediaType
from ..types import Buffer, Part
from . import arrow, csv, json, mtx, parquet
from .compression import decompress
from .formats import (
    SUPPORTED_INPUT,
    Format,
    format_of_file,
    named_format,
    says_nothing,
    sniff,
    split_content_type,
)

if TYPE_CHECKING:
    from pandas import DataFrame


def decode_table(part: Part, others: Sequence[Part], *, content_encoding: str, max_bytes: int) -> DataFrame:
    """Return the table that the part carries, with an index from 0 and names as strings.

    The format is the content type's; where that says nothing, the file name's extension; then what the first bytes
    show. ``others`` are the request's further parts: the column names of a sparse matrix are looked for there.
    ``max_bytes`` bounds what a body may grow to when it is decompressed or decoded.

    Raises a ``RequestError``: ``EmptyBody``, ``DecodeError``, ``UnsupportedMediaType``, ``UnsupportedEncoding`` or
    ``DecompressedTooLarge``. ``MemoryError`` is left to the caller.
    """
    if not len(part.data):
        raise EmptyBody("the body is empty; a table with at least one row is needed")
    data = decompress(part.data, content_encoding, max_bytes)
    chosen, charset, filename = choose(part, data)
    if chosen is Format.GZIP:
        data = decompress(data, "gzip", max_bytes)
        inner = Part(part.name, "", data, filename)
        chosen, _, _ = choose(inner, data)
        if chosen is Format.GZIP:
            raise DecodeError("the gzip file holds another gzip file; compress it once")
    if not len(data):
        raise EmptyBody("the body is empty once decompressed; a table with at least one row is needed")
    return _decode(chosen, data, charset, others, max_bytes)


def choose(part: Part, data: Buffer) -> Tuple[Format, str, Optional[str]]:
    """Return the format, the charset, and for gzip the name of the file inside.

    Raises ``UnsupportedMediaType`` for a content type that is none of ours.
    """
    chosen, charset, inner = _named(part.content_type, part.filename)
    if chosen is None:
        bare = split_content_type(part.content_type)[0]
        if not says_nothing(bare):
            raise UnsupportedMediaType(
                "{}no table can be read from {}; send one of {}".format(
                    f"part {part.name!r}: " if part.name else "",
                    bare[:80],
                    ", ".join(SUPPORTED_INPUT),
                ),
                details={"supported": list(SUPPORTED_INPUT)},
            )
        chosen = sniff(data)
    if chosen is Format.GZIP and inner and inner.lower().endswith(".gz"):
        inner = inner[:-3]
    return chosen, charset, inner


@functools.lru_cache(maxsize=256)
def _named(content_type: str, filename: Optional[str]) -> Tuple[Optional[Format], str, Optional[str]]:
    """Return the format that type and name stand for, ``None`` where they do not tell; the charset, and the name."""
    bare, charset = split_content_type(content_type)
    chosen = named_format(bare)
    if chosen is None and says_nothing(bare):
        chosen = format_of_file(filename)
        if chosen is Format.ARROW_FILE:
            chosen = None  # streams are found under these extensions too
    return chosen, charset, filename


def _decode(chosen: Format, data: Buffer, charset: str, others: Sequence[Part], max_bytes: int) -> DataFrame:
    if chosen is Format.CSV:
        return csv.decode(data, charset=charset, max_bytes=max_bytes)
    if chosen is Format.JSON:
        return json.decode(data, charset=charset, max_bytes=max_bytes)
    if chosen is Format.JSON_LINES:
        return json.decode_lines(data, charset=charset, max_bytes=max_bytes)
    if chosen is Format.ARROW_STREAM:
        return arrow.decode_stream(data, max_bytes=max_bytes)
    if chosen is Format.ARROW_FILE:
        return arrow.decode_file(data, max_bytes=max_bytes)
    if chosen is Format.PARQUET:
        return parquet.decode(data, max_bytes=max_bytes)
    return mtx.decode(data, others, max_bytes=max_bytes)
