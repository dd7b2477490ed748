"""From a request's part to a table: which format it is, and who reads it."""

from __future__ import annotations

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
    chosen, charset, filename = _choose(part, data)
    if chosen is Format.GZIP:
        data = decompress(data, "gzip", max_bytes)
        inner = Part(part.name, "", data, filename)
        chosen, _, _ = _choose(inner, data)
        if chosen is Format.GZIP:
            raise DecodeError("the gzip file holds another gzip file; compress it once")
    if not len(data):
        raise EmptyBody("the body is empty once decompressed; a table with at least one row is needed")
    return _decode(chosen, data, charset, others, max_bytes)


def is_csv(part: Part) -> bool:
    """Say whether ``decode_table`` would read the part as CSV in UTF-8, so that several can be read together."""
    try:
        chosen, charset, _ = _choose(part, part.data)
    except UnsupportedMediaType:
        return False
    return chosen is Format.CSV and charset.lower() in ("", "utf-8", "utf8", "us-ascii")


def _choose(part: Part, data: Buffer) -> Tuple[Format, str, Optional[str]]:
    """Return the format, the charset, and for gzip the name of the file inside."""
    content_type, charset = split_content_type(part.content_type)
    chosen = named_format(content_type)
    if chosen is None and not says_nothing(content_type):
        raise UnsupportedMediaType(
            "{}no table can be read from {}; send one of {}".format(
                f"part {part.name!r}: " if part.name else "",
                content_type[:80],
                ", ".join(SUPPORTED_INPUT),
            ),
            details={"supported": list(SUPPORTED_INPUT)},
        )
    if chosen is None:
        chosen = format_of_file(part.filename)
        if chosen is Format.ARROW_FILE:
            chosen = sniff(data)  # streams are found under these extensions too
    if chosen is None:
        chosen = sniff(data)
    inner = part.filename
    if chosen is Format.GZIP and inner and inner.lower().endswith(".gz"):
        inner = inner[:-3]
    return chosen, charset, inner


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
