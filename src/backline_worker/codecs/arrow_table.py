"""Arrow tables as pandas frames and back, shared by the Arrow and the Parquet codec.

The frame is the one that a CSV of the same data would give, as far as types go: missing values are NaN, text is text
also where it came as a dictionary, index columns that pandas made are dropped and all others are columns, the index
counts from 0. What Arrow knows better stays: the width of numbers, dates and times, categories of a pandas frame.
Decimals become float64. Nested values become Python lists and dicts.

What is refused: types whose values may overlap in memory inside nested columns, unions, run-end encoding: a few bytes
of them can stand for any amount of data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Set

from ..errors import DecodeError, DecompressedTooLarge, EmptyBody
from .cells import Column, plain_values

if TYPE_CHECKING:
    from pandas import DataFrame

_NAN = float("nan")
VIEWS = ("string_view", "binary_view")
_REFUSED = ("union", "run_end_encoded", "list_view")


def to_frame(pyarrow: Any, pandas: Any, table: Any, *, max_bytes: int, what: str) -> DataFrame:
    """Return the frame of a table that has been fully validated.

    Raises ``EmptyBody`` when there is no row, ``DecodeError`` for a column that cannot be one of a frame,
    ``DecompressedTooLarge`` when text written once and referred to often grows past ``max_bytes``.
    """
    names: List[str] = list(table.schema.names)
    if len(set(names)) != len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DecodeError(f"{what} has the column {twice!r} twice; name each column once")
    pandas_columns = _pandas_columns(table.schema)
    places = [place for place, name in enumerate(names) if name not in pandas_columns["index"]]
    if not places:
        raise DecodeError(f"{what} has no columns")
    if not table.num_rows:
        raise EmptyBody(f"{what} has columns and no rows")
    columns: Dict[str, Any] = {}
    for place in places:
        name = names[place]
        is_category = name in pandas_columns["categorical"]
        try:
            columns[name] = _values(pyarrow, pandas, table.column(place), is_category, max_bytes)
        except (DecodeError, DecompressedTooLarge) as exc:
            raise type(exc)(f"column {name!r} of {what}: {exc.message}") from exc
        except MemoryError:
            raise
        except Exception as exc:
            raise DecodeError(f"column {name!r} of {what} cannot be read: {exc}") from exc
    # The copy makes every column writable and frees it from the request's body.
    return pandas.DataFrame(columns, copy=True)


def from_columns(pyarrow: Any, columns: Sequence[Column], rows: int) -> Any:
    """Return the table of these columns; numbers keep their width, text with lone surrogates has them replaced."""
    arrays = [_array(pyarrow, values, rows) for _, values in columns]
    names = [_without_surrogates(name) for name, _ in columns]
    return pyarrow.Table.from_arrays(arrays, names=names)


def has_categories(schema: Any) -> bool:
    """Say whether a column becomes categories, which are those of the table's own dictionary."""
    return bool(_pandas_columns(schema)["categorical"])


def _pandas_columns(schema: Any) -> Dict[str, Set[str]]:
    """Return the columns that pandas' own metadata calls an unnamed index, and those that it calls categorical."""
    found: Dict[str, Set[str]] = {"index": set(), "categorical": set()}
    try:
        metadata = schema.pandas_metadata or {}
        for name in metadata.get("index_columns", ()):
            if isinstance(name, str) and name.startswith("__index_level_"):
                found["index"].add(name)
        for column in metadata.get("columns", ()):
            if column.get("pandas_type") == "categorical":
                found["categorical"].add(column.get("name"))
    except Exception:  # it is whatever the client wrote there, and only a hint
        return {"index": set(), "categorical": set()}
    return found


def _values(pyarrow: Any, pandas: Any, column: Any, is_category: bool, max_bytes: int) -> Any:
    """Return what a frame makes the column of, without an index where that loses nothing: pandas aligns them all."""
    if pyarrow.types.is_integer(column.type) or pyarrow.types.is_floating(column.type):
        return column.to_numpy()
    series = _series(pyarrow, pandas, column, is_category, max_bytes)
    return series if series.dtype == object else series.array


def _series(pyarrow: Any, pandas: Any, column: Any, is_category: bool, max_bytes: int) -> Any:
    types = pyarrow.types
    if isinstance(column.type, pyarrow.BaseExtensionType):
        column = pyarrow.chunked_array([chunk.storage for chunk in column.chunks], type=column.type.storage_type)
    kind = column.type
    _check_type(pyarrow, kind, nested=False)
    if types.is_null(kind):
        return pandas.Series(_NAN, index=range(len(column)), dtype="float64")
    if types.is_nested(kind):
        _check_text_size(pyarrow, column, max_bytes)
        values = [_NAN if value is None else value for value in column.to_pylist()]
        return pandas.Series(values, dtype=object)
    if types.is_dictionary(kind):
        if is_category:
            return column.to_pandas()
        _check_text_size(pyarrow, column, max_bytes)
        column = pyarrow.chunked_array([chunk.dictionary_decode() for chunk in column.chunks], type=kind.value_type)
        kind = column.type
    if str(kind) in VIEWS:
        _check_text_size(pyarrow, column, max_bytes)
        column = _without_views(pyarrow, column)
        kind = column.type
    if types.is_decimal(kind):
        values = [_NAN if value is None else float(value) for value in column.to_pylist()]
        return pandas.Series(values, dtype="float64")
    if types.is_date(kind):
        return column.to_pandas(date_as_object=False)
    return _missing_as_nan(pandas, column.to_pandas(), types.is_string(kind) or types.is_large_string(kind))


def _without_views(pyarrow: Any, column: Any) -> Any:
    plain = pyarrow.large_string() if str(column.type) == "string_view" else pyarrow.large_binary()
    try:
        return column.cast(plain)
    except pyarrow.ArrowNotImplementedError:  # before pyarrow 18
        chunks = [pyarrow.array(chunk.to_pylist(), type=plain) for chunk in column.chunks]
        return pyarrow.chunked_array(chunks, type=plain)


def _missing_as_nan(pandas: Any, series: Any, is_text: bool) -> Any:
    """Return the series with NaN for None, as text the way that this pandas holds text."""
    if series.dtype == object:
        missing = series.isnull()
        if missing.any():
            values = series.to_numpy(copy=True)
            values[missing.to_numpy()] = _NAN
            series = pandas.Series(values, dtype=object)
    if is_text and series.isnull().all():
        return pandas.Series([_NAN] * len(series), dtype="float64")
    if is_text and series.dtype != pandas.Series(["a"]).dtype:
        return pandas.Series(series.tolist())
    return series


def _check_type(pyarrow: Any, kind: Any, *, nested: bool) -> None:
    types = pyarrow.types
    name = str(kind)
    if any(word in name.partition("<")[0] for word in _REFUSED):
        raise DecodeError(f"values of type {name[:80]} are not read here; send them plain")
    if nested and (name in VIEWS or isinstance(kind, pyarrow.BaseExtensionType)):
        raise DecodeError(f"values of type {name[:80]} inside others are not read here; send them plain")
    if types.is_dictionary(kind):
        _check_type(pyarrow, kind.value_type, nested=nested)
        if types.is_nested(kind.value_type) or types.is_dictionary(kind.value_type):
            raise DecodeError(f"a dictionary of {str(kind.value_type)[:80]} is not read here; send them plain")
    elif types.is_map(kind):
        _check_type(pyarrow, kind.key_type, nested=True)
        _check_type(pyarrow, kind.item_type, nested=True)
    elif types.is_struct(kind):
        fields = [kind[place] for place in range(_field_count(kind))]
        if len({field.name for field in fields}) != len(fields):
            raise DecodeError("a struct has the same field twice")
        for field in fields:
            _check_type(pyarrow, field.type, nested=True)
    elif types.is_nested(kind):
        _check_type(pyarrow, kind.value_type, nested=True)


def _field_count(kind: Any) -> int:
    return int(kind.num_fields if hasattr(kind, "num_fields") else kind.num_children)


def _check_text_size(pyarrow: Any, column: Any, max_bytes: int) -> None:
    """Refuse text that is written once and referred to so often that writing it out is too much."""
    total = 0
    for chunk in column.chunks:
        total += _text_size(pyarrow, chunk)
        if total > max_bytes:
            raise DecompressedTooLarge(f"its text takes more than the limit of {max_bytes} bytes")


def _text_size(pyarrow: Any, array: Any) -> int:
    """Return the bytes of all text that is referred to, as often as it is, in views and dictionaries at any depth."""
    import numpy

    types = pyarrow.types
    kind = array.type
    if types.is_map(kind):
        return _text_size(pyarrow, array.keys) + _text_size(pyarrow, array.items)
    if types.is_struct(kind):
        return sum(_text_size(pyarrow, field) for field in array.flatten())
    if types.is_nested(kind):
        return _text_size(pyarrow, array.flatten())
    if str(kind) in VIEWS:
        # Views are 16 bytes each and start with their length.
        _, buffer = array.buffers()[:2]
        views = numpy.frombuffer(buffer, dtype="<i4").reshape(-1, 4)[array.offset : array.offset + len(array), 0]
        present = numpy.asarray(array.is_valid().to_pylist(), dtype=bool) if array.null_count else True
        return int(numpy.where(present, views, 0).astype("int64").sum())
    if types.is_dictionary(kind):
        return _dictionary_size(pyarrow, array)
    return 0


def _dictionary_size(pyarrow: Any, array: Any) -> int:
    from pyarrow import compute

    types = pyarrow.types
    kind = array.type.value_type
    if any(
        is_text(kind) for is_text in (types.is_string, types.is_binary, types.is_large_string, types.is_large_binary)
    ):
        lengths = compute.binary_length(array.dictionary).cast("int64")
        return compute.sum(lengths.take(array.indices)).as_py() or 0
    if str(kind) in VIEWS:
        raise DecodeError(f"a dictionary of {kind} is not read here; send them plain")
    return (int(kind.bit_width) // 8 + 1) * len(array)


def _array(pyarrow: Any, values: Any, rows: int) -> Any:
    """Return the values as one Arrow array; values that Arrow has no common type for become text."""
    dtype = getattr(values, "dtype", None)
    kind = getattr(dtype, "kind", "O")
    # Sparse columns and pandas' nullable ones have no buffer of that type, so they go through plain values.
    if dtype is not None and kind in "biufmM" and type(dtype).__module__.partition(".")[0] == "numpy":
        if kind == "f" and dtype.itemsize > 8:
            values = values.astype("float64")
        try:
            return pyarrow.array(getattr(values, "to_numpy", lambda: values)())
        except (pyarrow.ArrowException, TypeError, ValueError):
            pass
    plain = [None if value != value else value for value in plain_values(values, rows)]
    if dtype is not None and kind in "iu" and set(map(type, plain)) <= {int}:
        return pyarrow.array(plain, type=getattr(dtype, "subtype", dtype).name)
    try:
        return pyarrow.array(plain)
    except UnicodeEncodeError:
        return pyarrow.array([_without_surrogates(value) for value in plain])
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
        return pyarrow.array([None if value is None else _without_surrogates(str(value)) for value in plain])


def _without_surrogates(value: Any) -> Any:
    return value.encode("utf-8", "replace").decode("utf-8") if isinstance(value, str) else value
