"""A sample of rows as the tests of a model need it: cut, reordered, emptied and misused, and written as it came."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import itertools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from backline.errors import ConfigError
from backline_worker.codecs.formats import CSV, JSON, JSON_LINES

_MOST_BYTES = 64 << 20  # of a JSON document, which has to be read whole
_TYPES = {".csv": CSV, ".json": JSON, ".jsonl": JSON_LINES, ".ndjson": JSON_LINES}
Row = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Rows, and how they are written. A cell of CSV is a text."""

    content_type: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    complete: bool
    """Whether these are all rows of the file."""

    def body(self, rows: Sequence[Row] | None = None, columns: Sequence[str] | None = None) -> bytes:
        """Return rows, all of them where none are given, as the body of a request."""
        rows = self.rows if rows is None else rows
        columns = self.columns if columns is None else columns
        if self.content_type == CSV:
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(columns)
            # A lone empty cell would be an empty line, which is no row.
            writer.writerows([row.get(name, "") for name in columns] for row in rows)
            return text.getvalue().encode("utf-8", "surrogateescape")
        records = [{name: row[name] for name in columns if name in row} for row in rows]
        if self.content_type == JSON:
            return json.dumps(records, ensure_ascii=False).encode("utf-8", "surrogatepass")
        return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()

    def changed(self, name: str, change: Callable[[Any], Any]) -> list[Row]:
        """Return the rows with every value of a column changed."""
        return [{**row, name: change(row.get(name))} for row in self.rows]

    @property
    def empty(self) -> Any:
        """What stands where a value is missing."""
        return "" if self.content_type == CSV else None

    def is_numeric(self, name: str) -> bool:
        """Whether every value of a column that is there is a number."""
        values = [row.get(name) for row in self.rows]
        given = [value for value in values if value not in ("", None)]
        return bool(given) and all(_is_number(value) for value in given)


def read_sample(path: Path, most_rows: int, content_type: str = "") -> Sample:
    """Read the first rows of a file of CSV, JSON records or JSON lines, also compressed with gzip.

    Raises ``ConfigError`` for a file that is none of these.
    """
    if not path.is_file():
        raise ConfigError(f"--input {path}: there is no such file")
    name = path.with_suffix("") if path.suffix == ".gz" else path
    kind = content_type.partition(";")[0].strip().lower() or _TYPES.get(name.suffix.lower(), "")
    readers = {CSV: _read_csv, JSON: _read_json, JSON_LINES: _read_lines}
    if kind not in readers:
        raise ConfigError(
            f"--input {path}: rows are cut and changed here, which needs CSV, JSON records or JSON lines (.csv, .json, "
            ".jsonl, also with .gz); write the sample as one of these, or say which it is with --content-type"
        )
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            rows, columns, complete = readers[kind](file, most_rows)
    except (ValueError, csv.Error, OSError, EOFError) as exc:
        raise ConfigError(f"--input {path}: {exc}") from exc
    if not rows:
        raise ConfigError(f"--input {path}: there are no rows in it")
    return Sample(content_type=kind, columns=tuple(columns), rows=tuple(rows), complete=complete)


def _read_csv(file: Any, most: int) -> tuple[list[Row], list[str], bool]:
    # What is not UTF-8 is carried through as it is, for the model to judge.
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    try:
        reader = csv.reader(text, strict=True)
        columns = next(reader, [])
        if len(set(columns)) < len(columns):
            raise ValueError("two columns have the same name, so that they cannot be told apart")
        rows = []
        for cells in itertools.islice((cells for cells in reader if cells), most + 1):
            if len(cells) != len(columns):
                raise ValueError(f"line {reader.line_num} has {len(cells)} fields where the header has {len(columns)}")
            rows.append(dict(zip(columns, cells, strict=True)))
        return rows[:most], columns, len(rows) <= most
    finally:
        text.detach()  # the file is the caller's to close


def _read_json(file: Any, most: int) -> tuple[list[Row], list[str], bool]:
    content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise ValueError(f"a JSON document of more than {_MOST_BYTES >> 20} MiB; give the sample as JSON lines")
    records = json.loads(content)
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ValueError("is no list of JSON objects, one a row")
    return records[:most], _columns(records[:most]), len(records) <= most


def _read_lines(file: Any, most: int) -> tuple[list[Row], list[str], bool]:
    records = []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        record = json.loads(line)
        if not isinstance(record, dict):
            raise ValueError(f"line {number} is no JSON object")  # noqa: TRY004  (of the file, not of an argument)
        records.append(record)
        if len(records) > most:
            break
    return records[:most], _columns(records[:most]), len(records) <= most


def _columns(records: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, int | float):
        return True
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True
