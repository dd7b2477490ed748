"""Arrow and Parquet: their metadata, offsets and lengths damaged where they lie, and not just anywhere."""

from __future__ import annotations

import datetime as dt
import random
import struct
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from backline_worker import codecs
from tests.fuzz.cases import Case
from tests.fuzz.damage import damaged_bytes, damaged_integers
from tests.fuzz.targets.tables import ANSWERS, random_frame, read


def _tables() -> list[Any]:
    draw = random.Random(7)
    own = [codecs.encode_table(random_frame(draw), "application/vnd.apache.arrow.stream") for _ in range(6)]
    tables = [pa.ipc.open_stream(body).read_all() for body in own]
    tables.append(pa.Table.from_pandas(tables[-1].to_pandas(), preserve_index=True))  # with pandas' own metadata
    tables.append(pa.table({"i": [1, 2, None], "f": [1.5, 2.0, 3.0], "s": ["a", "bb", None], "b": [True, None, False]}))
    tables.append(
        pa.table(
            {
                "d": pa.array(["x", "y", None]).dictionary_encode(),
                "l": [[1], None, [2, 3]],
                "n": [{"a": 1, "b": "q"}, None, {"a": 2, "b": "r"}],
                "t": [dt.datetime(2020, 1, 1)] * 3,  # noqa: DTZ001 - a timestamp without a zone is what is meant
                "c": pa.array([1, 2, None], pa.decimal128(5, 2)),
                "o": pa.nulls(3),
                "y": [b"a", b"", None],
            }
        )
    )
    tables.append(pa.table({"x": pa.array(["q"] * 40 + ["rrrrr"] * 40, pa.large_string()), "l": [[["a"], []]] * 80}))
    tables.append(
        pa.table(
            {"m": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())), "h": pa.array([1.5, 2], pa.float16())}
        )
    )
    tables.append(pa.table({"f": pa.array([b"ab", None], pa.binary(2)), "u": pa.array([1, 2], pa.duration("ns"))}))
    return tables


class _Columnar:
    """What the formats have in common. ``regions`` are where most of the damage is done."""

    seconds = 4.0
    content_type = ""

    def __init__(self) -> None:
        self._seeds = [(body, self.regions(body)) for table in _tables() for body in self.bodies(table)]

    def bodies(self, table: Any) -> list[bytes]:
        raise NotImplementedError

    def regions(self, body: bytes) -> list[tuple[int, int]]:
        raise NotImplementedError

    def make(self, draw: random.Random) -> Case:
        body, regions = draw.choice(self._seeds)
        kind = draw.random()
        start, end = draw.choice(regions)
        if kind < 0.6:
            body = self.damaged_region(draw, body, start, end)
        elif kind < 0.75:
            body = body[:start] + damaged_bytes(draw, body[start:end]) + body[end:]
        elif kind < 0.9:
            body = damaged_bytes(draw, body)
        elif kind < 0.97:
            other, _ = draw.choice(self._seeds)
            place = draw.randrange(len(body))
            body = body[:place] + other[draw.randrange(len(other)) :]
        content_type = self.content_type if draw.random() < 0.9 else ""
        return Case(body, {"type": content_type, "answer": draw.choice(ANSWERS)})

    def damaged_region(self, draw: random.Random, body: bytes, start: int, end: int) -> bytes:
        return damaged_integers(draw, body, start, end, draw.choice((1, 2, 4, 4)))

    def check(self, case: Case) -> str:
        return read(case)


class _Arrow(_Columnar):
    def write(self, table: Any, **options: Any) -> bytes:
        sink = pa.BufferOutputStream()
        opener = pa.ipc.new_file if self.content_type.endswith("file") else pa.ipc.new_stream
        with opener(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
            writer.write_table(table, max_chunksize=2 if table.num_rows < 5 else None)
        return bytes(sink.getvalue().to_pybytes())

    def bodies(self, table: Any) -> list[bytes]:
        return [self.write(table, **options) for options in ({}, {"compression": "lz4"}, {"compression": "zstd"})]

    def regions(self, body: bytes) -> list[tuple[int, int]]:
        """Return where the messages' metadata lies: schema, rows, buffers."""
        found = []
        place = 8 if self.content_type.endswith("file") else 0
        while place + 8 <= len(body) and body[place : place + 4] == b"\xff\xff\xff\xff":
            (length,) = struct.unpack_from("<i", body, place + 4)
            if not length:
                break
            found.append((place, place + 8 + length))
            body_length = _body_length(body[place + 8 : place + 8 + length])
            place += 8 + length + body_length
        if self.content_type.endswith("file"):
            (length,) = struct.unpack_from("<i", body, len(body) - 10)
            found += [(len(body) - 10 - length, len(body) - 6)] * 2
        return found or [(0, len(body))]


def _body_length(metadata: bytes) -> int:
    """Return the length of a message's body: field 3 of its flatbuffers table."""
    (root,) = struct.unpack_from("<I", metadata, 0)
    (vtable,) = struct.unpack_from("<i", metadata, root)
    (slot,) = struct.unpack_from("<H", metadata, root - vtable + 10)
    return int(struct.unpack_from("<q", metadata, root + slot)[0]) if slot else 0


class ArrowStream(_Arrow):
    content_type = "application/vnd.apache.arrow.stream"


class ArrowFile(_Arrow):
    content_type = "application/vnd.apache.arrow.file"


class Parquet(_Columnar):
    """Thrift's varints in the footer, and the headers of the pages."""

    content_type = "application/vnd.apache.parquet"

    def bodies(self, table: Any) -> list[bytes]:
        options: list[dict[str, Any]] = [
            {},
            {"compression": "none", "use_dictionary": False},
            {"compression": "zstd", "data_page_version": "2.0"},
            {"compression": "gzip", "row_group_size": 2},
        ]
        if all(str(kind) == "string" for kind in table.schema.types):
            options.append({"use_dictionary": False, "column_encoding": "DELTA_BYTE_ARRAY"})
        written = []
        for each in options:
            sink = pa.BufferOutputStream()
            try:
                pq.write_table(table, sink, **each)
            except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
                continue
            written.append(bytes(sink.getvalue().to_pybytes()))
        return written

    def regions(self, body: bytes) -> list[tuple[int, int]]:
        (length,) = struct.unpack_from("<I", body, len(body) - 8)
        footer = (len(body) - 8 - length, len(body) - 8)
        return [footer, footer, footer, (4, min(60, footer[0])), (4, footer[0]), (len(body) - 8, len(body))]

    def damaged_region(self, draw: random.Random, body: bytes, start: int, end: int) -> bytes:
        changed = bytearray(body)
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            place = draw.randrange(start, end)
            kind = draw.randrange(5)
            if kind == 0:  # another number, of the same length as a varint
                changed[place] = changed[place] & 0x80 | draw.randrange(128)
            elif kind == 1:
                changed[place] = (changed[place] + draw.choice((-2, -1, 1, 2, 16))) & 0xFF
            elif kind == 2:  # another kind of field, or another field
                changed[place] = changed[place] & 0xF0 | draw.randrange(16)
            elif kind == 3:
                changed[place] = draw.choice((0x00, 0x7F, 0x80, 0xFF))
            else:
                varint = draw.choice(
                    (b"\xff\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80" * 11 + b"\x01")
                )
                changed[place : place + 1] = varint
                delta = len(varint) - 1
                (length,) = struct.unpack_from("<I", changed, len(changed) - 8)
                if draw.random() < 0.7 and length + delta < 1 << 32:
                    struct.pack_into("<I", changed, len(changed) - 8, length + delta)
        return bytes(changed)
