"""JSON tables: records ``[{"a": 1}, ...]``, split form ``{"columns": [...], "data": [[...], ...]}``, and JSON lines.

Both may be wrapped as MLflow's clients do it: ``dataframe_records``, ``dataframe_split``; and there are its two others,
``instances`` and ``inputs``. Rows of theirs that have no names get their positions as names: 0, 1, 2.

A null is a missing value: NaN, as in a CSV; a column without any value is a float column of NaN, in one row as in ten
thousand. Nested values stay Python lists and dicts. An index in the split form is not used.

What does not survive a round trip: NaN and the infinities (written as null), dates (ISO 8601 text), bytes, lone
surrogates (written as escapes, refused when read), the width of integers and floats.
"""

from __future__ import annotations

import array
import contextlib
import gc
import json
import operator
import re
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, NamedTuple, NoReturn, Optional, Sequence, Set

from ..errors import DecodeError, DecompressedTooLarge, EmptyBody
from ..types import Buffer
from . import text
from ._libraries import pandas_for
from .cells import Column, are_finite, float_texts, is_finite, plain_values, slices

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..contract.target_types import Predictions

_WHAT = "the JSON"
_WHAT_LINES = "the JSON lines"
_FORMS = 'send a list of records [{"column": value, ...}, ...] or {"columns": [...], "data": [[...], ...]}'
_WRAPPERS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_NAN = float("nan")
_NUMBERS = ({float}, {int}, {bool})
_BLANKS = re.compile(r"[ \t\r\n]*")
_LARGE = 1 << 20  # characters of a document that is worth reading in pieces
_PIECE = 500  # records
_FEW_ROWS = 1000
# Target types whose answer has one object per row, however many columns there are.
_OBJECTS = frozenset({"binary", "multiclass", "geopoint"})


class _Constant(ValueError):
    """NaN, Infinity or -Infinity stood in the text."""


class Table(NamedTuple):
    """The names of the columns, and a sequence of as many values for each row: what a document says, not yet typed.

    The names are texts, or the positions 0, 1, 2 where the document has none.
    """

    names: List[Any]
    rows: List[Sequence[Any]]


def decode(data: Buffer, *, charset: str = "", max_bytes: int = 0) -> DataFrame:
    """Return the table of a JSON document, columns in the order in which they first appear.

    Raises ``EmptyBody`` when there is no row, ``DecodeError`` naming the row (``$[3]``) for what is no table, and
    ``DecompressedTooLarge`` when rows times columns is over ``max_bytes`` (8 bytes each; 0: no limit).
    """
    pandas = pandas_for("reading JSON")
    with _without_collector():
        body = text.decode_text(data, charset, _WHAT)
        if len(body) > _LARGE:
            frame = _in_pieces(pandas, body, max_bytes)
            if frame is not None:
                return frame
        return to_frame(pandas, _read(body, max_bytes))


def decode_lines(data: Buffer, *, charset: str = "", max_bytes: int = 0) -> DataFrame:
    """Return the table of JSON lines, one record a line; blank lines are skipped.

    Raises as ``decode`` does, naming lines (``line 3``).
    """
    pandas = pandas_for("reading JSON lines")
    with _without_collector():
        body = text.decode_text(data, charset, _WHAT_LINES)
        return to_frame(pandas, _read_lines(body, max_bytes))


def read(data: Buffer, *, charset: str = "", max_bytes: int = 0) -> Table:
    """Return what the document says, as ``decode`` reads it; raises as that does."""
    return _read(text.decode_text(data, charset, _WHAT), max_bytes)


def read_lines(data: Buffer, *, charset: str = "", max_bytes: int = 0) -> Table:
    """Return what the lines say, as ``decode_lines`` reads them; raises as that does."""
    return _read_lines(text.decode_text(data, charset, _WHAT_LINES), max_bytes)


def _read(body: str, max_bytes: int) -> Table:
    if not body.strip(" \t\r\n"):
        raise EmptyBody("the JSON is empty; " + _FORMS)
    document = _parse(body, "the JSON", _DECODER)
    _refuse_lone_surrogates(document, body)
    if isinstance(document, list):
        return _from_records(document, "$[{}]", max_bytes)
    if isinstance(document, dict):
        if not document.keys().isdisjoint(_WRAPPERS):
            return _from_wrapper(document, max_bytes)
        return _from_split(document, max_bytes)
    raise DecodeError(f"the JSON is {_name(document)}, not a table; {_FORMS}")


def _read_lines(body: str, max_bytes: int) -> Table:
    records: List[Any] = []
    # Only a line feed ends a line: splitlines() would cut at characters that may stand inside a JSON string.
    for number, line in enumerate(body.split("\n"), 1):
        if line.strip(" \t\r"):
            record = _parse(line, f"line {number} of the JSON lines", _DECODER)
            if not isinstance(record, dict):
                raise DecodeError(
                    f"line {number} of the JSON lines is {_name(record)}, not a record; send one object per line"
                )
            records.append(record)
    if not records:
        raise EmptyBody("there are no JSON lines; send one record per line")
    _refuse_lone_surrogates(records, body)
    return _from_records(records, "record {}", max_bytes)


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the garbage collector from walking, again and again, the millions of objects of a document being parsed."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _in_pieces(pandas: Any, body: str, max_bytes: int) -> Optional[DataFrame]:
    """Return the frame of a long list of records that all have the same keys; ``None`` for whatever else it is.

    Only some hundred records are in memory at a time: they take several times the room of the columns.
    """
    pieces: List[List[Any]] = []
    kinds: List[Set[type]] = []
    names: List[str] = []
    rows = 0
    if "\\ud" in body or "\\uD" in body:  # may be half a character
        return None
    try:
        for records in _pieces(body):
            names = names or list(records[0])
            rows += len(records)
            if max_bytes and rows * len(names) * 8 > max_bytes:
                return None
            values = list(zip(*_same_keys(records, names)))
            found = [set(map(type, column)) for column in values]
            kinds = [known | new for known, new in zip(kinds, found)] if kinds else found
            pieces.append([_packed(column, new) for column, new in zip(values, found)])
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None
    columns: Dict[str, Any] = {}
    for place, name in enumerate(names):
        if kinds[place] == {float}:
            values_of = array.array("d")
            for piece in pieces:
                values_of.extend(piece[place])
                piece[place] = None
            columns[name] = _numbers(values_of)
        else:
            joined: List[Any] = []
            for piece in pieces:
                joined.extend(piece[place])
                piece[place] = None
            columns[name] = _column(pandas, joined, kinds[place])
    return pandas.DataFrame(columns)


def _pieces(body: str) -> Iterator[List[Dict[str, Any]]]:
    """Yield the records of a list some hundred at a time; raises ``ValueError`` where it is anything else."""
    position = _BLANKS.match(body, 0).end()  # type: ignore[union-attr]
    if body[position : position + 1] != "[":
        raise ValueError("no list")
    records: List[Dict[str, Any]] = []
    read_one = _DECODER.raw_decode
    while True:
        position += 1
        if body[position] != "{":
            position = _BLANKS.match(body, position).end()  # type: ignore[union-attr]
        record, position = read_one(body, position)
        records.append(record)
        if body[position] != ",":
            position = _BLANKS.match(body, position).end()  # type: ignore[union-attr]
            if body[position] == "]":
                break
            if body[position] != ",":
                raise ValueError("no list")
        if len(records) == _PIECE:
            yield records
            records = []
    if _BLANKS.match(body, position + 1).end() != len(body):  # type: ignore[union-attr]
        raise ValueError("something follows the list")
    yield records


def _packed(values: Sequence[Any], kinds: Set[type]) -> Sequence[Any]:
    return array.array("d", values) if kinds == {float} else values


def encode_predictions(predictions: Predictions, counts: Sequence[int]) -> List[bytes]:
    """Return ``{"predictions": [...]}`` for each member that the predictions are for, ``counts`` rows each.

    With ``extraModelOutput`` in split form where there are further columns, its index from 0. One value per row, or one
    object per row for binary, multiclass, geo point and whatever has several columns. Floats read back as the same
    floats; NaN and the infinities are null.
    """
    rows = predictions.rows
    names = list(predictions.columns)
    cells = [_cells(values, rows) for values in predictions.columns.values()]
    target_type = str(getattr(predictions.target_type, "value", predictions.target_type))
    if len(names) == 1 and target_type not in _OBJECTS:
        texts = cells[0]
    else:
        texts = list(_objects(names, cells, rows))
    extra = predictions.extra
    if extra is None or not len(extra.columns):
        if all(count == 1 for count in counts):
            return [_to_bytes('{"predictions":[' + row + "]}") for row in texts]
        return [_to_bytes('{"predictions":[' + ",".join(piece) + "]}") for piece in slices(texts, counts)]
    further = [",".join(row) for row in zip(*(_cells(extra.iloc[:, place], rows) for place in range(extra.shape[1])))]
    head = ',"extraModelOutput":{"columns":' + _dumps([str(name) for name in extra.columns]) + ',"index":['
    places = list(map(str, range(max(counts))))
    index = _cells(extra.index, rows)
    # An index that counts rows counts those of each member; one that a hook has made for its rows belongs to them.
    counted = index == list(map(str, range(rows)))
    indices = [places[:count] for count in counts] if counted else slices(index, counts)
    return [
        _to_bytes(
            '{"predictions":['
            + ",".join(piece)
            + "]"
            + head
            + ",".join(index)
            + '],"data":['
            + ",".join("[" + row + "]" for row in more)
            + "]}}"
        )
        for piece, index, more in zip(slices(texts, counts), indices, slices(further, counts))
    ]


def encode(columns: Sequence[Column], rows: int) -> bytes:
    """Return the table as records, one object per row; reads back through ``decode``."""
    cells = [_cells(values, rows) for _, values in columns]
    return _to_bytes("[" + ",".join(_objects([name for name, _ in columns], cells, rows)) + "]")


def encode_lines(columns: Sequence[Column], rows: int, counts: Sequence[int]) -> List[bytes]:
    """Return the table as JSON lines, one object per row, for each member; each reads back through ``decode_lines``."""
    cells = [_cells(values, rows) for _, values in columns]
    lines = [line + "\n" for line in _objects([name for name, _ in columns], cells, rows)]
    return [_to_bytes("".join(piece)) for piece in slices(lines, counts)]


def _objects(names: Sequence[str], cells: Sequence[Sequence[str]], rows: int) -> Any:
    """Return one object's text per row, by filling the cells of each row into one template."""
    if not names:
        return ["{}"] * rows
    keys = (_dumps(str(name)).replace("%", "%%") for name in names)
    template = "{" + ",".join(key + ":%s" for key in keys) + "}"
    return map(template.__mod__, zip(*cells))


def _cells(values: Any, rows: int) -> List[str]:
    """Return the JSON text of each value of a column."""
    plain = plain_values(values, rows)
    kinds = set(map(type, plain))
    if kinds <= {float}:
        cells = float_texts(plain)
        if not are_finite(plain):
            cells = [cell if is_finite(value) else "null" for cell, value in zip(cells, plain)]
        return cells
    if kinds <= {int}:
        return list(map(int.__repr__, plain))
    if kinds <= {str}:
        return list(map(_dumps, plain))
    return [_dumps(_without_nan(value)) for value in plain]


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if is_finite(value) else None
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return value


_dumps = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def _to_bytes(answer: str) -> bytes:
    # A lone surrogate has no UTF-8 form; its backslash escape is what JSON writes for it.
    return answer.encode("utf-8", "backslashreplace")


def _refuse_constant(constant: str) -> NoReturn:
    raise _Constant(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _parse(body: str, what: str, decoder: json.JSONDecoder) -> Any:
    try:
        return decoder.decode(body)
    except _Constant as exc:
        raise DecodeError(f"{what} has a bare {exc}, which JSON does not know; send null for a missing value") from exc
    except json.JSONDecodeError as exc:
        raise DecodeError(
            f"{what} is malformed: {exc.msg} at line {exc.lineno} column {exc.colno}",
            details={"line": exc.lineno, "column": exc.colno},
        ) from exc
    except RecursionError as exc:
        raise DecodeError(f"{what} is nested too deeply; {_FORMS}") from exc
    except ValueError as exc:  # an integer of more digits than Python converts
        raise DecodeError(f"{what} has a number that cannot be read: {exc}") from exc


def _refuse_lone_surrogates(document: Any, body: str) -> None:
    """Refuse half a surrogate pair: it is no character, and string columns of newer pandas cannot hold it."""
    if "\\ud" not in body and "\\uD" not in body:
        return
    try:
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as exc:
        raise DecodeError(
            f"the JSON has the escape \\u{ord(exc.object[exc.start]):04x} alone, which is half a character; such "
            "characters need both halves of their surrogate pair"
        ) from exc
    except RecursionError as exc:
        raise DecodeError(f"the JSON is nested too deeply; {_FORMS}") from exc


def _from_wrapper(document: Dict[str, Any], max_bytes: int) -> Table:
    """Return the table of a document in one of MLflow's forms (its scoring protocol, "Accepted input formats")."""
    if len(document) > 1:
        found = ", ".join(sorted(str(key)[:40] for key in document))
        raise DecodeError(f"the JSON has {found}; send exactly one of {', '.join(_WRAPPERS)}, and nothing beside it")
    ((wrapper, content),) = document.items()
    if wrapper == "dataframe_split" and isinstance(content, dict):
        return _from_split(content, max_bytes)
    if wrapper == "inputs" and isinstance(content, dict):
        return _from_columns(content, max_bytes)
    if wrapper == "dataframe_split" or not isinstance(content, list):
        raise DecodeError(f"$.{wrapper} is {_name(content)}, which it cannot be; {_FORMS}")
    if wrapper == "dataframe_records" or (content and isinstance(content[0], dict)):
        return _from_records(content, "$." + wrapper + "[{}]", max_bytes)
    return _from_positions(content, wrapper, max_bytes)


def _from_columns(columns: Dict[str, Any], max_bytes: int) -> Table:
    rows = {len(values) if isinstance(values, list) else -1 for values in columns.values()}
    if len(rows) != 1 or -1 in rows:
        raise DecodeError("$.inputs is an object whose values are not lists of one length, one for each column")
    if rows == {0}:
        raise EmptyBody("the JSON has no rows: the lists of $.inputs are empty")
    _check_size(rows.pop(), len(columns), max_bytes)
    return Table(list(columns), list(zip(*columns.values())))


def _from_positions(rows: List[Any], wrapper: str, max_bytes: int) -> Table:
    if not rows:
        raise EmptyBody(f"the JSON has no rows: $.{wrapper} is empty")
    if not any(isinstance(row, (list, dict)) for row in rows):
        rows = [[row] for row in rows]
    width = len(rows[0]) if isinstance(rows[0], list) else 0
    for place, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != width or not width:
            raise DecodeError(
                f"$.{wrapper}[{place}] is not a row as the others are; send lists of one length, or records",
                details={"row": place},
            )
    _check_size(len(rows), width, max_bytes)
    return Table(list(range(width)), rows)


def _from_records(records: List[Any], place: str, max_bytes: int) -> Table:
    if not records:
        raise EmptyBody("the JSON has no rows; " + _FORMS)
    if set(map(type, records)) != {dict}:
        for row, record in enumerate(records):
            if not isinstance(record, dict):
                raise DecodeError(
                    f"{place.format(row)} is {_name(record)}, not a record; {_FORMS}",
                    details={"row": row},
                )
    names: Dict[str, None] = dict.fromkeys(records[0])
    try:
        if names:
            _check_size(len(records), len(names), max_bytes)
            return Table(list(names), _same_keys(records, list(names)))
    except KeyError:
        pass
    for record in records:
        if record.keys() != names.keys():
            names.update(dict.fromkeys(record))
            _check_size(len(records), len(names), max_bytes)
    if not names:
        raise DecodeError("the JSON's records have no columns; " + _FORMS)
    _check_size(len(records), len(names), max_bytes)
    return Table(list(names), [[record.get(name) for name in names] for record in records])


def _same_keys(records: List[Dict[str, Any]], names: List[str]) -> List[Sequence[Any]]:
    """Return the values of each record in the order of the names; raises ``KeyError`` where a key is missing or new."""
    if len(records) == 1:
        return [tuple(records[0].values())]
    if sum(map(len, records)) != len(records) * len(names):
        raise KeyError("some records have more keys than others")
    if len(names) == 1:
        return [(record[names[0]],) for record in records]
    return list(map(operator.itemgetter(*names), records))


def _from_split(document: Dict[str, Any], max_bytes: int) -> Table:
    names = document.get("columns")
    data = document.get("data")
    if not isinstance(names, list) or not isinstance(data, list):
        raise DecodeError(f"the JSON is one object and not in split form, so it is no table; {_FORMS}")
    unknown = sorted(set(document) - {"columns", "data", "index"})
    if unknown:
        raise DecodeError(f"$.{unknown[0][:80]} is not part of the split form; {_FORMS}")
    for place, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, (str, int, float)):
            raise DecodeError(f"$.columns[{place}] is {_name(name)}, not a column's name")
    names = [str(name) for name in names]
    if len(set(names)) != len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DecodeError(f"$.columns has {twice!r} twice; name each column once")
    if not names:
        raise DecodeError("$.columns is empty; " + _FORMS)
    if not data:
        raise EmptyBody("the JSON has no rows: $.data is empty")
    for row, values in enumerate(data):
        if not isinstance(values, list):
            raise DecodeError(f"$.data[{row}] is {_name(values)}, not a list", details={"row": row})
        if len(values) != len(names):
            raise DecodeError(
                f"$.data[{row}] has {len(values)} values where $.columns has {len(names)}",
                details={"row": row},
            )
    index = document.get("index")
    if index is not None and not (isinstance(index, list) and len(index) == len(data)):
        raise DecodeError(f"$.index is not a list of {len(data)} values, one for each row of $.data")
    _check_size(len(data), len(names), max_bytes)
    return Table(names, data)


def _check_size(rows: int, columns: int, max_bytes: int) -> None:
    # Records that share no key make a table of rows times rows out of a small body.
    if max_bytes and rows * columns * 8 > max_bytes:
        raise DecompressedTooLarge(
            f"the JSON is a table of {rows} rows and {columns} columns, more than the limit of {max_bytes} bytes"
        )


def to_frame(pandas: Any, table: Table) -> DataFrame:
    """Return the frame of a table, each column typed by its own values and missing values as NaN."""
    columns: Dict[str, Any] = {}
    texts: List[str] = []
    for name, values in zip(table.names, zip(*table.rows)):
        kinds = set(map(type, values))
        if kinds == {str} and len(values) <= _FEW_ROWS:
            texts.append(name)
            columns[name] = values
        else:
            columns[name] = _column(pandas, values, kinds)
    if texts:
        # For few rows pandas takes most of its time for each column of text, so they are made at one go.
        rows = len(table.rows)
        together = pandas.Series([value for name in texts for value in columns[name]]).array
        for place, name in enumerate(texts):
            columns[name] = together[place * rows : (place + 1) * rows]
    return pandas.DataFrame(columns)


def _column(pandas: Any, values: Sequence[Any], kinds: Set[type]) -> Any:
    if kinds in _NUMBERS:
        numbers = _numbers(values)
        if int not in kinds or numbers.dtype == "int64":  # else some are too large, and pandas knows what they become
            return numbers
    if type(None) in kinds:
        values = [_NAN if value is None else value for value in values]
        kinds = kinds - {type(None)}
        if not kinds:
            return _numbers(values)
    if kinds & {list, dict}:
        return pandas.Series(list(values), dtype=object)
    return pandas.Series(list(values))


def _numbers(values: Sequence[Any]) -> Any:
    import numpy

    return numpy.array(values)


def _name(value: Any) -> str:
    if value is None:
        return "a null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names[type(value)]
