"""Chunks of Parquet and Arrow files: row groups and record batches.

Files are read, not mapped: pages of a mapping would count as this process's memory.
"""

from __future__ import annotations

import json
import mmap
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from ..codecs import arrow_ipc, arrow_table, parquet_footer
from ..codecs._libraries import pandas_for, pyarrow_for
from ..codecs.cells import plain_value
from ..column_types import Types
from ..errors import DecodeError, RequestError
from .columns import Reader, Rows

if TYPE_CHECKING:
    from pandas import DataFrame

_PIECE_ROWS = 65_536
_NO_LIMIT = 1 << 62  # the file may be larger than memory: its chunks are not
_WHAT = "the file"


class ArrowReader(Reader):
    """Knows the schema."""

    def __init__(self, schema: Any) -> None:
        super().__init__()
        self.schema = schema

    def probe(self, types: Mapping[str, str]) -> DataFrame:
        return _to_frame(_witnesses(self.schema, types))


class ArrowRows(Rows):
    """An Arrow table."""

    def __init__(self, reader: ArrowReader, table: Any) -> None:
        super().__init__(reader)
        self.table = table

    def read(self, witnesses: Mapping[str, str]) -> Optional[DataFrame]:
        if not self.table.num_rows:
            return None
        if not witnesses:
            return _to_frame(self.table)
        import pyarrow

        first = _witnesses(self.table.schema, witnesses)
        frame = _to_frame(pyarrow.concat_tables([first, self.table]))
        return frame.iloc[first.num_rows :].reset_index(drop=True)

    def letters(self, frame: DataFrame, known: Mapping[str, str], *, exact: bool) -> Types:
        found: Types = {}
        for name, column in zip(self.table.schema.names, self.table.columns):
            missing = column.null_count
            found[name] = ("v" if missing < len(column) else "") + ("m" if missing else "")
        return found

    def count(self) -> int:
        return int(self.table.num_rows)

    def part(self, start: int, end: int) -> Rows:
        return ArrowRows(self.reader, self.table.slice(start, end - start))  # type: ignore[arg-type]

    def without(self, places: Sequence[int]) -> Rows:
        import numpy

        keep = numpy.ones(self.table.num_rows, dtype=bool)
        keep[list(places)] = False
        return ArrowRows(self.reader, self.table.filter(keep))  # type: ignore[arg-type]

    def place_of(self, place: int) -> Tuple[Optional[int], str]:
        record = self.table.slice(place, 1).to_pylist()[0]
        return None, json.dumps({str(name): plain_value(value) for name, value in record.items()}, ensure_ascii=False)


def pieces(job: Dict[str, Any], readers: Dict[str, Reader]) -> Iterator[Rows]:
    """Yield the rows of a job's unit, a bounded number at a time."""
    pyarrow = pyarrow_for("reading " + job["format"])
    try:
        for table in _tables(pyarrow, job):
            table.validate(full=True)
            reader = readers.get("arrow")
            if reader is None:
                reader = readers["arrow"] = ArrowReader(table.schema)
            for start in range(0, table.num_rows, _PIECE_ROWS):
                yield ArrowRows(reader, table.slice(start, _PIECE_ROWS))  # type: ignore[arg-type]
    except (RequestError, MemoryError):
        raise
    except (OSError, pyarrow.ArrowException, ValueError) as exc:
        raise DecodeError("{} cannot be read: {}".format(job["input"], exc)) from exc


def _tables(pyarrow: Any, job: Dict[str, Any]) -> Iterator[Any]:
    with pyarrow.OSFile(job["input"]) as source:
        unit = job["unit"]
        if job["format"] == "parquet":
            from pyarrow import parquet

            file = parquet.ParquetFile(source)
            for batch in file.iter_batches(batch_size=_PIECE_ROWS, row_groups=[unit[0]], use_threads=False):
                yield pyarrow.Table.from_batches([batch])
        elif job["format"] == "arrow file":
            reader = pyarrow.ipc.open_file(source)
            for place in range(unit[0], unit[0] + unit[1]):
                yield pyarrow.Table.from_batches([reader.get_batch(place)])
        else:
            schema = pyarrow.ipc.open_stream(source).schema
            source.seek(unit[0])
            data = source.read(unit[1] - unit[0])
            stream = pyarrow.BufferReader(schema.serialize().to_pybytes() + data)
            for batch in pyarrow.ipc.open_stream(stream):
                yield pyarrow.Table.from_batches([batch])


def inspect(path: str, name: str) -> Dict[str, Any]:
    """Return ``units``, which can be read each by itself, the last item of each being its rows; or ``whole``: why not.

    Raises ``DecodeError`` for a file that is damaged.
    """
    pyarrow = pyarrow_for("reading " + name)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        view = memoryview(mapped)
        try:
            if name == "parquet":
                parquet_footer.check(view, _NO_LIMIT)
            elif name == "arrow file":
                arrow_ipc.check_file(view, _NO_LIMIT)
            else:
                arrow_ipc.check_stream(view, _NO_LIMIT)
        finally:
            view.release()
    try:
        schema, units = _units(pyarrow, path, name)
    except (OSError, pyarrow.ArrowException, ValueError) as exc:
        raise DecodeError("{} cannot be read: {}".format(path, exc)) from exc
    if _has_categories(pyarrow, schema, name):
        return {"whole": "its categories hold for the whole file"}
    return {"units": units, "rows": sum(unit[-1] for unit in units)}


def _units(pyarrow: Any, path: str, name: str) -> Tuple[Any, List[List[int]]]:
    if name == "parquet":
        from pyarrow import parquet

        with pyarrow.OSFile(path) as source:
            file = parquet.ParquetFile(source)
            groups = range(file.metadata.num_row_groups)
            return file.schema_arrow, [[place, file.metadata.row_group(place).num_rows] for place in groups]
    # Mapped for once: only the framing of batches is looked at.
    with pyarrow.memory_map(path) as source:
        if name == "arrow file":
            reader = pyarrow.ipc.open_file(source)
            rows = [reader.get_batch(place).num_rows for place in range(reader.num_record_batches)]
            return reader.schema, _grouped([[place, 1, count] for place, count in enumerate(rows)])
        stream = pyarrow.ipc.open_stream(source)
        units = []
        start = source.tell()
        for batch in stream:
            units.append([start, source.tell(), batch.num_rows])
            start = source.tell()
        return stream.schema, units


def _grouped(units: List[List[int]]) -> List[List[int]]:
    """Return the units with small neighbours put together."""
    grouped: List[List[int]] = []
    for first, count, rows in units:
        if grouped and grouped[-1][2] + rows <= _PIECE_ROWS:
            grouped[-1][1] += count
            grouped[-1][2] += rows
        else:
            grouped.append([first, count, rows])
    return grouped


def _has_categories(pyarrow: Any, schema: Any, name: str) -> bool:
    if name == "arrow stream" and any(pyarrow.types.is_dictionary(field.type) for field in schema):
        return True  # dictionaries come once, before the first batch that refers to them
    try:
        columns = (schema.pandas_metadata or {}).get("columns", ())
        return any(column.get("pandas_type") == "categorical" for column in columns)
    except Exception:  # whatever stands there
        return True


def _to_frame(table: Any) -> DataFrame:
    pandas = pandas_for("reading Arrow")
    pyarrow = pyarrow_for("reading Arrow")
    return arrow_table.to_frame(pyarrow, pandas, table, max_bytes=_NO_LIMIT, what=_WHAT)


def _witnesses(schema: Any, types: Mapping[str, str]) -> Any:
    import pyarrow

    rows = max(len(letters) for letters in types.values())
    arrays = []
    for field in schema:
        letters = types[field.name]
        value = _value(pyarrow.types, field.type)
        padded = letters + letters[-1:] * (rows - len(letters))
        arrays.append(pyarrow.array([value if letter == "v" else None for letter in padded], type=field.type))
    # Nulls may stand in columns that say they have none: these are rows of ours, and never kept.
    schema = pyarrow.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)
    return pyarrow.Table.from_arrays(arrays, schema=schema)


def _value(types: Any, kind: Any) -> Any:
    """Return a value of the types for which it matters whether there is one."""
    if types.is_boolean(kind):
        return True
    if types.is_integer(kind):
        return 0
    if types.is_floating(kind):
        return 0.5 if str(kind) != "halffloat" else None
    return "x" if types.is_string(kind) or types.is_large_string(kind) else None
