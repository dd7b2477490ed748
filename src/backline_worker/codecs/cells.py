"""Columns on their way out: numpy, pandas and Python values as the few plain types that formats know."""

from __future__ import annotations

import datetime
import decimal
import itertools
import math
import sys
from typing import Any, Callable, List, Optional, Sequence, Tuple, cast

from ._libraries import available

Column = Tuple[str, Any]
"""A name and its values: a numpy array, a pandas series or a list, one value per row."""

_MANY = 1000
_FIRST_WITHOUT_EXPONENT, _FIRST_WITH_EXPONENT = 1e-4, 1e10  # for Python and for Arrow
_PLAIN = frozenset({float, int, str, bool, type(None)})


def plain_values(values: Any, rows: int) -> List[Any]:
    """Return one Python value per row: float, int, bool, str, None, or what has no plain form as it is.

    float16 and float32 are widened exactly; what pandas calls missing is None, save NaN among floats.
    """
    dtype = getattr(values, "dtype", None)
    kind = getattr(dtype, "kind", "O")
    if kind == "f" and getattr(dtype, "itemsize", 8) > 8:
        values = values.astype("float64")  # long double: its scalars are no Python floats
    plain = values.tolist() if hasattr(values, "tolist") else list(values)
    if len(plain) != rows:
        raise ValueError(f"a column of {len(plain)} values where there are {rows} rows")
    if set(map(type, plain)) <= _PLAIN:
        return list(plain)
    return [plain_value(value) for value in plain]


def float_texts(values: List[float]) -> List[str]:
    """Return ``repr`` of each float: the shortest text that reads back as the same one.

    Long lists are written by orjson or pyarrow, several times as fast, where the model's environment has one of them.
    """
    write = _writer_of_many() if len(values) >= _MANY else None
    if write is None:
        return list(map(float.__repr__, values))
    import numpy

    numbers = numpy.array(values)
    texts = write(numbers)
    for place in numpy.flatnonzero(~written_alike(numbers)).tolist():
        texts[place] = repr(values[place])
    return texts


def written_alike(numbers: Any) -> Any:
    """Say of each float of an array whether orjson and Arrow write it as Python does.

    They find the same digits, and write them in the same way where no exponent is used, save that Arrow leaves out the
    fraction of whole numbers.
    """
    import numpy

    sizes = numpy.abs(numbers)
    with numpy.errstate(invalid="ignore"):
        return (sizes >= _FIRST_WITHOUT_EXPONENT) & (sizes < _FIRST_WITH_EXPONENT) & (numbers != numpy.floor(numbers))


def _writer_of_many() -> Optional[Callable[[Any], List[str]]]:
    if available("orjson"):
        return _write_by_orjson
    return _write_by_arrow if "pyarrow" in sys.modules else None


def _write_by_orjson(numbers: Any) -> List[str]:
    import orjson

    return cast("List[str]", orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(","))


def _write_by_arrow(numbers: Any) -> List[str]:
    import pyarrow
    from pyarrow import compute

    return cast("List[str]", compute.cast(pyarrow.array(numbers), pyarrow.string()).to_pylist())


def slices(values: List[str], counts: Sequence[int]) -> List[List[str]]:
    """Return the values cut into pieces of so many each."""
    if len(counts) == 1:
        return [values]
    ends = list(itertools.accumulate(counts))
    return [values[end - count : end] for count, end in zip(counts, ends)]


def plain_value(value: Any) -> Any:
    """Return one value in its plain form; containers are taken apart, times become ISO 8601 text."""
    if type(value) in _PLAIN:
        return value
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if isinstance(value, (bool, int, float, str)):
        # numpy's float64 and str_ are subclasses; so are enums: the exact type keeps their own repr out.
        for exact in (bool, int, float, str):
            if isinstance(value, exact):
                return exact(value)
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return _time_text(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        inner = value.tolist()
        return str(value) if type(inner) is type(value) else plain_value(inner)
    return str(value)


def _time_text(value: Any) -> Optional[str]:
    try:
        text = value.isoformat()
    except ValueError:
        return None  # pandas' NaT
    except NotImplementedError:  # pandas', for years before 1 and after 9999
        text = "{}{}".format(value.to_numpy(), "" if value.tzinfo is None else "+00:00")
    return None if text == "NaT" else text


def is_finite(value: float) -> bool:
    """Say whether JSON can carry the float."""
    return math.isfinite(value)


def are_finite(values: List[float]) -> bool:
    """Say whether JSON can carry all of the floats."""
    if len(values) < _MANY:
        return all(map(math.isfinite, values))
    import numpy

    return bool(numpy.isfinite(values).all())
