"""The input as a run sees it: its format, and where its chunks begin.

The chunks of a text are found one after another: where one ends, the worker that reads it says. A compressed text is
decompressed here, as that can only be done from its start; its chunks go to the workers as files in shared memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gzip
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from backline.errors import BacklineError, ConfigError
from backline_worker.codecs.formats import Format, format_of_file, named_format, says_nothing, sniff, split_content_type
from backline_worker.records import split

_HEAD_BYTES = 1 << 16
_MOST_HEADER_BYTES = 64 << 20
_BOM = b"\xef\xbb\xbf"
_ZSTD = b"\x28\xb5\x2f\xfd"
_GZIP = b"\x1f\x8b"
TEXTS = {Format.CSV: "csv", Format.JSON_LINES: "json lines"}
UNITS = {Format.PARQUET: "parquet", Format.ARROW_FILE: "arrow file", Format.ARROW_STREAM: "arrow stream"}


@dataclasses.dataclass(slots=True, kw_only=True)
class Chunk:
    """A part of the input. ``job`` is what a worker needs to find it; ``end``: once that is known."""

    index: int
    start: int
    job: dict[str, Any]
    end: int | None = None
    file: Path | None = None  # its content, where that does not stand in the input itself


class Source(Protocol):
    """Gives the chunks of an input in their order."""

    size: int
    """Of the input, in the unit of ``position``."""

    @property
    def position(self) -> int:
        """How much of ``size`` has been given out."""

    def is_ready(self) -> bool:
        """Say whether the next chunk's beginning is known and there is one."""

    async def take(self, index: int) -> Chunk:
        """Return the next chunk; it must be ready."""

    def ended(self, chunk: Chunk) -> None:
        """The chunk's end has become known; it may be told twice."""

    async def restart(self, offset: int | None) -> None:
        """Go on from where a chunk ended; ``None``: from the start."""

    async def line_at(self, offset: int) -> int | None:
        """Return the number, from 1, of the line that begins at the start of a chunk; ``None``: there are no lines."""

    def close(self) -> None:
        """Close what is open."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What is known of the input before anything is scored."""

    path: Path
    format: Format
    compression: str = ""
    charset: str = ""

    @property
    def chunked(self) -> str:
        """How the format is called where it can be read in chunks; empty where it is read whole."""
        if self.format in TEXTS:
            return TEXTS[self.format] if self.charset.lower() in ("", "utf-8", "utf8", "us-ascii") else ""
        return "" if self.compression else UNITS.get(self.format, "")


def examine(path: Path, content_type: str) -> Input:
    """Find out format and compression by name and content. Raises ``ConfigError`` and ``OSError``."""
    bare, charset = split_content_type(content_type)
    compression = _compression(path)
    name = path.name
    if compression and name.lower().endswith((".gz", ".zst")):
        name = name.rpartition(".")[0]
    chosen = named_format(bare)
    if chosen is None and not says_nothing(bare):
        raise ConfigError(f"--content-type {content_type}: no table is read from it")
    if chosen is Format.GZIP:
        chosen = None
    if chosen is None:
        chosen = format_of_file(name)
    if chosen is None or chosen is Format.ARROW_FILE:
        with contextlib.closing(_open(path, compression)) as file:
            chosen = sniff(file.read(_HEAD_BYTES))
    return Input(path=path, format=chosen, compression=compression, charset=charset)


def _compression(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    return "gzip" if head[:2] == _GZIP else "zstd" if head == _ZSTD else ""


def _open(path: Path, compression: str) -> Readable:
    if not compression:
        return path.open("rb")
    raw = path.open("rb")
    try:
        if compression == "gzip":
            return _Compressed(gzip.GzipFile(fileobj=raw), raw)
        return _Compressed(zstd(f"reading {path.name}").ZstdFile(raw), raw)
    except BaseException:
        raw.close()
        raise


def zstd(what: str) -> Any:
    """Return Python's module for Zstandard, which is in the standard library since 3.14; ``ConfigError`` without it."""
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    raise ConfigError(
        f"{what} needs Zstandard, which Python has since 3.14: install the package backports.zstd beside Backline, "
        "or compress with gzip"
    )


class Readable(Protocol):
    """What is needed of an open file."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end."""

    def close(self) -> None:
        """Close it."""


class _Compressed:
    """A decompressing file that also knows, and closes, the file below."""

    def __init__(self, file: Any, raw: BinaryIO) -> None:
        self._file = file
        self.raw = raw

    def read(self, size: int, /) -> bytes:
        data: bytes = self._file.read(size)
        return data

    def close(self) -> None:
        self._file.close()
        self.raw.close()


def _read_full(file: Readable, size: int) -> bytes:
    pieces = []
    while size:
        piece = file.read(min(size, 1 << 20))
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _header(file: Readable, path: Path) -> bytes:
    """Return the text up to the end of the header line, which may have quoted line feeds; all of it where no row is."""
    size = _HEAD_BYTES
    data = b""
    while True:
        more = _read_full(file, size - len(data))
        data += more
        at_end = len(data) < size
        for start, end, _ in split(data, final=at_end):
            if data[start:end].removeprefix(_BOM).strip(b" \t\r\n"):
                if end == len(data) and data.endswith(b"\r") and not at_end:
                    break
                return data[:end]
        if at_end:
            return data
        size *= 2
        if size > _MOST_HEADER_BYTES:
            raise ConfigError(
                f"--input {path}: its first line is longer than {_MOST_HEADER_BYTES >> 20} MiB; is it CSV?"
            )


class TextFile:
    """CSV or JSON lines as they lie in the file: workers read their part themselves."""

    def __init__(self, given: Input, *, chunk_bytes: int, scratch: Path) -> None:
        self.size = given.path.stat().st_size
        self._path = given.path
        self._chunk_bytes = chunk_bytes
        self._job: dict[str, Any] = {
            "format": given.chunked,
            "input": str(given.path.absolute()),
            "size": chunk_bytes,
            "file_size": self.size,
        }
        self._first = 0
        with given.path.open("rb") as file:
            if given.chunked == "csv":
                header = _header(file, given.path)
                self._first = len(header)
                self._job["header"] = _write_header(header, scratch)
            elif file.read(3) == _BOM:
                self._first = 3
        self._next: int | None = self._first
        self._line = (0, 1)  # an offset, and the line that begins there

    @property
    def position(self) -> int:
        return self._next or 0

    def is_ready(self) -> bool:
        return self._next is not None and self._next < self.size

    async def take(self, index: int) -> Chunk:
        assert self._next is not None
        chunk = Chunk(index=index, start=self._next, job={**self._job, "start": self._next})
        self._next = None
        return chunk

    def ended(self, chunk: Chunk) -> None:
        self._next = chunk.end

    async def restart(self, offset: int | None) -> None:
        self._next = self._first if offset is None else offset

    async def line_at(self, offset: int) -> int:
        self._line = (offset, await asyncio.to_thread(_count_lines, self._path, *self._line, offset))
        return self._line[1]

    def close(self) -> None:
        pass


def _write_header(header: bytes, scratch: Path) -> str:
    header = header.removeprefix(_BOM)
    if not header.endswith((b"\n", b"\r")):
        header += b"\n"
    path = scratch / "header"
    path.write_bytes(header)
    return str(path)


def _count_lines(path: Path, start: int, line: int, end: int) -> int:
    with path.open("rb") as file:
        file.seek(start)
        left = end - start
        if left < 0:
            return _count_lines(path, 0, 1, end)
        while left > 0 and (piece := file.read(min(left, 1 << 20))):
            line += piece.count(b"\n") or piece.count(b"\r")
            left -= len(piece)
    return line


class CompressedText:
    """A compressed text; offsets are those of its content."""

    def __init__(self, given: Input, *, chunk_bytes: int, scratch: Path, new_path: Callable[[], str]) -> None:
        self.size = given.path.stat().st_size
        self._given = given
        self._chunk_bytes = chunk_bytes
        self._size = chunk_bytes
        self._new_path = new_path
        self._file: Readable = _open(given.path, given.compression)
        self._job: dict[str, Any] = {"format": given.chunked}
        self._header = b""
        self._held = b""  # decompressed, and not yet in a chunk
        self._offset = 0  # of ``_held``
        self._line = 1
        self._lines: dict[int, int] = {}
        self._current: tuple[Chunk, bytes] | None = None
        self._at_end = False
        self._open_text()
        if given.chunked == "csv":
            self._job["header"] = _write_header(self._header, scratch)

    @property
    def position(self) -> int:
        assert isinstance(self._file, _Compressed)
        return self._file.raw.tell()

    def is_ready(self) -> bool:
        return self._current is None and not (self._at_end and not self._held)

    async def take(self, index: int) -> Chunk:
        body, self._held = self._held[: self._size], self._held[self._size :]
        body += await asyncio.to_thread(self._read, self._size - len(body))
        path = Path(self._new_path())
        await asyncio.to_thread(path.write_bytes, body)
        job = {**self._job, "input": str(path), "start": 0, "size": len(body), "file_size": len(body)}
        chunk = Chunk(index=index, start=self._offset, job=job, file=path)
        job["more"] = bool(self._held) or not self._at_end
        self._current = (chunk, body)
        self._lines[chunk.start] = self._line
        while len(self._lines) > 64:
            del self._lines[next(iter(self._lines))]
        return chunk

    def ended(self, chunk: Chunk) -> None:
        if self._current is None or self._current[0] is not chunk:
            return
        assert chunk.end is not None  # an offset in its own file so far
        body = self._current[1]
        self._current = None
        self._held = body[chunk.end :] + self._held
        self._line += body.count(b"\n", 0, chunk.end) or body.count(b"\r", 0, chunk.end)
        self._offset += chunk.end
        self._size = self._chunk_bytes if chunk.end else 2 * len(body)
        if self._size > 1 << 29:
            raise BacklineError(f"no record ends within {1 << 29} bytes from line {self._line} of {self._given.path}")
        chunk.job["end"] = chunk.end
        chunk.end = self._offset

    async def restart(self, offset: int | None) -> None:
        self._file.close()
        self._file = _open(self._given.path, self._given.compression)
        self._held, self._line, self._current, self._at_end = b"", 1, None, False
        self._size = self._chunk_bytes
        await asyncio.to_thread(self._open_text)
        if offset is not None:
            await asyncio.to_thread(self._skip, offset - self._offset)

    async def line_at(self, offset: int) -> int | None:
        return self._lines.get(offset)

    def close(self) -> None:
        self._file.close()

    def _open_text(self) -> None:
        if self._given.chunked == "csv":
            taken = _Taken(self)
            self._header = _header(taken, self._given.path)
            self._held = taken.data[len(self._header) :]
            self._offset = len(self._header)
            self._line += self._header.count(b"\n") or self._header.count(b"\r")
        else:
            self._held = self._read(_HEAD_BYTES)
            self._offset = 3 if self._held.startswith(_BOM) else 0
            self._held = self._held[self._offset :]

    def _skip(self, size: int) -> None:
        while size:
            piece, self._held = self._held or self._read(min(size, 1 << 20)), b""
            if not piece:
                raise BacklineError(f"{self._given.path} ends before the place where the last run had come to")
            self._held = piece[size:]
            piece = piece[:size]
            size -= len(piece)
            self._offset += len(piece)
            self._line += piece.count(b"\n") or piece.count(b"\r")

    def _read(self, size: int) -> bytes:
        if size <= 0 or self._at_end:
            return b""
        try:
            data = _read_full(self._file, size)
        except (EOFError, OSError) as exc:
            raise BacklineError(f"{self._given.path} cannot be decompressed: {exc}") from exc
        except Exception as exc:
            raise BacklineError(f"{self._given.path} cannot be decompressed: {type(exc).__name__}: {exc}") from exc
        self._at_end = len(data) < size
        return data


class _Taken:
    """Remembers what was read of a compressed text, of which only the first part is the header."""

    def __init__(self, text: CompressedText) -> None:
        self._text = text
        self.data = b""

    def read(self, size: int) -> bytes:
        piece = self._text._read(size)  # noqa: SLF001 - its own
        self.data += piece
        return piece

    def close(self) -> None:
        """The text's own file stays open."""


class UnitFile:
    """Parquet or Arrow: the units are known from the start, and an offset is the number of a unit."""

    def __init__(self, given: Input, units: list[list[int]]) -> None:
        self.size = sum(unit[-1] for unit in units)
        self._units = units
        self._next = 0
        self._job = {"format": given.chunked, "input": str(given.path.absolute())}

    @property
    def position(self) -> int:
        return sum(unit[-1] for unit in self._units[: self._next])

    def is_ready(self) -> bool:
        return self._next < len(self._units)

    async def take(self, index: int) -> Chunk:
        place = self._next
        self._next += 1
        return Chunk(index=index, start=place, job={**self._job, "unit": self._units[place]}, end=place + 1)

    def ended(self, chunk: Chunk) -> None:
        pass

    async def restart(self, offset: int | None) -> None:
        self._next = offset or 0

    async def line_at(self, offset: int) -> int | None:
        return None

    def close(self) -> None:
        pass
