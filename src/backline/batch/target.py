"""The output on its way: pieces of chunks, one after another, in a hidden file beside the output."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from backline.batch.source import zstd
from backline.errors import BacklineError, ConfigError
from backline_worker.codecs.formats import ARROW_STREAM, CSV, JSON, JSON_LINES, PARQUET

# By extension of the output. What is read is found out by extension or by content.
_TYPES = {
    ".csv": CSV,
    ".json": JSON,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".parquet": PARQUET,
    ".arrow": ARROW_STREAM,
}
# Formats that rows are read in: CSV under such a name would mislead whoever opens it.
_NOT_WRITTEN = (".mtx", ".feather", ".arrows")
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_TEXTS = (CSV, JSON_LINES)


class OutputFailed(BacklineError):
    """The output cannot be written."""


def output_format(path: Path) -> tuple[str, str]:
    """Return content type and compression that an output's name asks for. Raises ``ConfigError``."""
    compression = _COMPRESSIONS.get(path.suffix.lower(), "")
    suffix = (Path(path.stem) if compression else path).suffix.lower()
    if suffix in _NOT_WRITTEN:
        raise ConfigError(f"--output {path}: predictions are not written as {suffix}; use .csv or .json")
    content_type = _TYPES.get(suffix, CSV)
    if compression and content_type not in _TEXTS:
        raise ConfigError(
            f"--output {path}: only CSV and JSON lines are written compressed; use {path.stem}, or .csv{path.suffix}"
        )
    if compression == "zstd":
        zstd(f"writing {path.name}")
    return content_type, compression


@contextlib.contextmanager
def telling(path: Path) -> Iterator[None]:
    """Turn errors of the file system into ones that say what to do."""
    try:
        yield
    except OSError as exc:
        full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        mend = "; make room, then go on with --resume" if full else ""
        raise OutputFailed(f"{exc.filename or path} cannot be written: {exc.strerror or exc}{mend}") from exc


class PartFile:
    """Bytes that are appended, from a given length on. ``close`` it."""

    def __init__(self, path: Path, length: int) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if os.fstat(self._descriptor).st_size < length:
            os.close(self._descriptor)
            raise ConfigError(f"{path} is shorter than its journal says; without --resume all is scored anew")
        self.length = length
        os.ftruncate(self._descriptor, length)
        os.lseek(self._descriptor, length, os.SEEK_SET)

    def write(self, data: bytes) -> None:
        """Append bytes."""
        with telling(self.path):
            view = memoryview(data)
            while view:
                count = os.write(self._descriptor, view)
                self.length += count
                view = view[count:]

    def append(self, piece: Path, size: int) -> None:
        """Append a file's content, without looking at it."""
        with telling(self.path), piece.open("rb") as source:
            left = size
            while left:
                count = os.sendfile(self._descriptor, source.fileno(), size - left, left)
                if not count:
                    raise OutputFailed(f"{piece} is shorter than the worker said")
                left -= count
                self.length += count

    def clear(self) -> None:
        """Begin anew."""
        os.ftruncate(self._descriptor, 0)
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        self.length = 0

    def sync(self) -> None:
        """Wait until all that was written is on the disk."""
        with telling(self.path):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def compressed(data: bytes, compression: str) -> bytes:
    """Return the data as one member, or frame, of a compressed file."""
    if compression == "gzip":
        packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return packer.compress(data) + packer.flush()
    if compression == "zstd":
        packed: bytes = zstd("writing").compress(data)
        return packed
    return data


def assemble_json(part: Path, target: Path, pieces: list[tuple[int, int, int]], head: str, rows: int) -> None:
    """Write ``target`` of the pieces [start, end, bytes of extra output] of JSON predictions in ``part``."""
    with telling(target), part.open("rb") as source, target.open("wb") as file:
        file.write(b'{"predictions":[')
        _copy_joined(source, file, [(start, end - extra) for start, end, extra in pieces])
        file.write(b"]")
        if head:
            file.write(b',"extraModelOutput":{"columns":' + head.encode() + b',"index":[')
            for first in range(0, rows, 10_000):
                numbers = ",".join(map(str, range(first, min(first + 10_000, rows))))
                file.write((("," if first else "") + numbers).encode())
            file.write(b'],"data":[')
            _copy_joined(source, file, [(end - extra, end) for _, end, extra in pieces])
            file.write(b"]}")
        file.write(b"}")
        file.flush()
        os.fsync(file.fileno())


def _copy_joined(source: Any, file: Any, ranges: list[tuple[int, int]]) -> None:
    first = True
    for start, end in ranges:
        if start == end:
            continue
        if not first:
            file.write(b",")
        first = False
        source.seek(start)
        left = end - start
        while left:
            piece = source.read(min(left, 1 << 20))
            file.write(piece)
            left -= len(piece)


def give_name(part: Path, final: Path) -> None:
    """Rename, for good: also the directory is on the disk then."""
    with telling(final):
        part.replace(final)
        descriptor = os.open(final.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(OSError):  # not every file system can
                os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy_out(path: Path, stream: Any) -> None:
    """Copy a file to a stream."""
    with path.open("rb") as file:
        shutil.copyfileobj(file, stream)
    stream.flush()


def rejects_lines(piece: Path, first_row: int, first_line: int | None) -> bytes:
    """Return a worker's rejects with rows and lines numbered in the whole input, from 1."""
    lines = []
    for text in piece.read_text("utf-8", "surrogatepass").split("\n"):
        if text:
            reject = json.loads(text)
            reject["row"] += first_row + 1
            line = reject["line"]
            reject["line"] = None if line is None or first_line is None else line + first_line
            lines.append(json.dumps(reject, ensure_ascii=False) + "\n")
    return "".join(lines).encode("utf-8", "backslashreplace")
