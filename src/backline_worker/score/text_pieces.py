"""Reads a chunk of CSV or JSON lines: from where it starts to the end of the last record that lies in it."""

from __future__ import annotations

import os
from typing import Any, Callable, Dict, Iterator

from ..errors import DecodeError
from ..records import last_end
from .columns import Reader, Rows
from .csv_rows import CsvReader, CsvRows
from .json_rows import JsonReader, JsonRows

_MOST_BYTES = 512 << 20


def pieces(job: Dict[str, Any], readers: Dict[str, Reader], tell: Callable[[Dict[str, Any]], None]) -> Iterator[Rows]:
    """Yield the rows of a job; ``tell`` gets ``end``, the offset behind them, before they are looked at.

    The file is read from ``start`` for ``size`` bytes, and further where no record ends in these. With ``more`` more
    bytes will be in the file later: then ``tell`` gets the end 0 where no record ends.
    """
    is_csv = job["format"] == "csv"
    body = _read(job, is_csv, tell)
    if not body:
        return
    if is_csv:
        header = job["header"]
        reader = readers.get(header)
        if reader is None:
            with open(header, "rb") as file:
                reader = readers[header] = CsvReader(file.read())
        yield CsvRows(reader, body)
    else:
        reader = readers.setdefault("json", JsonReader())
        yield JsonRows(reader, body)


def _read(job: Dict[str, Any], is_csv: bool, tell: Callable[[Dict[str, Any]], None]) -> bytes:
    start, size, whole = job["start"], job["size"], job["file_size"]
    exact = job.get("end")
    try:
        with open(job["input"], "rb", buffering=0) as file:
            if exact is not None:
                return _take(file.fileno(), start, exact - start)
            while True:
                body = _take(file.fileno(), start, min(size, whole - start))
                at_end = start + len(body) >= whole
                end = len(body) if at_end and not job.get("more") else last_end(body, quotes=is_csv)
                if end or at_end:
                    break
                size *= 2
                if size > _MOST_BYTES:
                    raise DecodeError(
                        "no record ends within {} MiB from offset {} of the input; is the closing quote of a field "
                        "missing?".format(_MOST_BYTES >> 20, start)
                    )
    except OSError as exc:
        raise DecodeError("{} cannot be read: {}".format(job["input"], exc)) from exc
    tell({"end": start + end})
    return body if end == len(body) else body[:end]


def _take(descriptor: int, start: int, size: int) -> bytes:
    pieces = []
    while size:
        piece = os.pread(descriptor, size, start)
        if not piece:
            raise DecodeError("the input has become shorter while it was read")
        pieces.append(piece)
        start += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
