"""The formats by name: content types, aliases, file extensions, and how a body without them gives itself away."""

from __future__ import annotations

import enum
from typing import Dict, Optional, Tuple

from ..types import Buffer


class Format(str, enum.Enum):
    """A format that a table can come in."""

    CSV = "CSV"
    JSON = "JSON"
    JSON_LINES = "JSON lines"
    ARROW_STREAM = "Arrow stream"
    ARROW_FILE = "Arrow file"
    PARQUET = "Parquet"
    MATRIX_MARKET = "Matrix Market"
    GZIP = "gzip"


CSV = "text/csv"
JSON = "application/json"
JSON_LINES = "application/x-ndjson"
ARROW_STREAM = "application/vnd.apache.arrow.stream"
ARROW_FILE = "application/vnd.apache.arrow.file"
PARQUET = "application/vnd.apache.parquet"
MATRIX_MARKET = "text/mtx"

_ALIASES: Dict[str, str] = {
    "application/csv": CSV,
    "text/x-csv": CSV,
    "application/x-csv": CSV,
    "text/comma-separated-values": CSV,
    "text/json": JSON,
    "application/x-json": JSON,
    "application/jsonl": JSON_LINES,
    "application/jsonlines": JSON_LINES,
    "application/x-jsonlines": JSON_LINES,
    "application/ndjson": JSON_LINES,
    "application/x-apache-arrow-stream": ARROW_STREAM,
    "application/x-apache-arrow-file": ARROW_FILE,
    "application/x-feather": ARROW_FILE,
    "application/x-parquet": PARQUET,
    "application/parquet": PARQUET,
    "application/x-matrix-market": MATRIX_MARKET,
}

_FORMATS: Dict[str, Format] = {
    CSV: Format.CSV,
    JSON: Format.JSON,
    JSON_LINES: Format.JSON_LINES,
    ARROW_STREAM: Format.ARROW_STREAM,
    ARROW_FILE: Format.ARROW_FILE,
    PARQUET: Format.PARQUET,
    MATRIX_MARKET: Format.MATRIX_MARKET,
    "application/gzip": Format.GZIP,
    "application/x-gzip": Format.GZIP,
}

_EXTENSIONS: Dict[str, Format] = {
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".jsonl": Format.JSON_LINES,
    ".ndjson": Format.JSON_LINES,
    ".arrows": Format.ARROW_STREAM,
    ".arrow": Format.ARROW_FILE,
    ".feather": Format.ARROW_FILE,
    ".parquet": Format.PARQUET,
    ".mtx": Format.MATRIX_MARKET,
    ".gz": Format.GZIP,
}

# Sent by clients that do not know better: curl's default for a body, browsers on Windows for .csv, a part's default.
_SAYS_NOTHING = frozenset(
    {
        "",
        "application/octet-stream",
        "binary/octet-stream",
        "application/x-www-form-urlencoded",
        "application/vnd.ms-excel",
        "multipart/form-data",
        "text/plain",
    }
)

SUPPORTED_INPUT: Tuple[str, ...] = (CSV, JSON, JSON_LINES, ARROW_STREAM, ARROW_FILE, PARQUET, MATRIX_MARKET)
SUPPORTED_OUTPUT: Tuple[str, ...] = (JSON, CSV, ARROW_STREAM, PARQUET, JSON_LINES)
"""What predictions can be answered as, the default first; a transformed table can be ``text/mtx`` as well."""


def split_content_type(value: str) -> Tuple[str, str]:
    """Return the bare type in lower case and the ``charset`` parameter, each ``""`` when missing."""
    bare, _, parameters = value.partition(";")
    charset = ""
    for parameter in parameters.split(";"):
        name, _, text = parameter.partition("=")
        if name.strip().lower() == "charset":
            charset = text.strip().strip("\"'").strip()
    return bare.strip().lower(), charset


def canonical_type(content_type: str) -> str:
    """Return the one name of a content type that may come under an alias; others as they are."""
    return _ALIASES.get(content_type, content_type)


def named_format(content_type: str) -> Optional[Format]:
    """Return the format of a bare content type, or ``None`` when it names none of ours."""
    return _FORMATS.get(canonical_type(content_type))


def says_nothing(content_type: str) -> bool:
    """Say whether a bare content type is one that clients send for anything."""
    return content_type in _SAYS_NOTHING


def format_of_file(filename: Optional[str]) -> Optional[Format]:
    """Return the format that a file name's extension stands for, or ``None``."""
    name = (filename or "").lower()
    dot = name.rfind(".")
    return _EXTENSIONS.get(name[dot:]) if dot >= 0 else None


def sniff(data: Buffer) -> Format:
    """Return the format that the first bytes show; CSV has no such mark and is what is left."""
    head = bytes(data[:512])
    if head[:6] == b"ARROW1":
        return Format.ARROW_FILE
    if head[:4] == b"PAR1":
        return Format.PARQUET
    if head[:2] == b"\x1f\x8b":
        return Format.GZIP
    if head[:4] == b"\xff\xff\xff\xff" or _starts_as_old_stream(head, len(data)):
        return Format.ARROW_STREAM
    text = head[3:] if head[:3] == b"\xef\xbb\xbf" else head
    if text[:14].lower() == b"%%matrixmarket":
        return Format.MATRIX_MARKET
    if text.lstrip(b" \t\r\n")[:1] in (b"[", b"{"):
        return Format.JSON
    return Format.CSV


def _starts_as_old_stream(head: bytes, size: int) -> bool:
    """Say whether this is an Arrow stream of before 2019: no marker, only the schema's length, padded to 8 with it."""
    if len(head) < 16 or head[2:4] != b"\0\0":
        return False
    length = int.from_bytes(head[:4], "little")
    return 0 < length < size and (length + 4) % 8 == 0 and int.from_bytes(head[4:8], "little") < length
