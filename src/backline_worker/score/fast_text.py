"""CSV and JSON lines of columns of numbers, written by pyarrow where that writes what Python writes.

Where the two differ (``cells.written_alike``), Python writes and its texts are put in place.
"""

from __future__ import annotations

import json
import math
from typing import Any, List, Optional, Sequence

from ..codecs._libraries import available
from ..codecs.cells import Column, written_alike

_FEW = 0.05


def csv_rows(columns: Sequence[Column], rows: int) -> Optional[bytes]:
    """Return the lines of a CSV without its header; ``None`` where this is not for columns of such types."""
    if len(columns) < 2:
        return None  # an empty cell alone is written in another way
    cells = _cells(columns, missing="")
    if cells is None:
        return None
    pieces: List[Any] = []
    for cell in cells:
        pieces += [cell, ","]
    pieces[-1] = "\n"
    return _joined(pieces)


def json_rows(columns: Sequence[Column], rows: int) -> Optional[bytes]:
    """Return JSON lines, or ``None``."""
    names = [json.dumps(name, ensure_ascii=False) for name, _ in columns]
    cells = _cells(columns, missing="null")
    if cells is None:
        return None
    try:
        pieces: List[Any] = []
        for place, (name, cell) in enumerate(zip(names, cells)):
            pieces += [("," if place else "{") + name + ":", cell]
        return _joined([*pieces, "}\n"])
    except UnicodeEncodeError:
        return None


def _cells(columns: Sequence[Column], missing: str) -> Optional[List[Any]]:
    if not columns or not available("pyarrow"):
        return None
    import numpy

    arrays = []
    for _, values in columns:
        if not isinstance(values, numpy.ndarray) or values.dtype not in (numpy.float64, numpy.int64):
            return None
        arrays.append(values)
    if any(not len(values) for values in arrays):
        return None
    found = [_numbers(values, missing) for values in arrays]
    return None if any(cells is None for cells in found) else found


def _numbers(values: Any, missing: str) -> Any:
    import numpy
    import pyarrow
    from pyarrow import compute

    cells = compute.cast(pyarrow.array(values), pyarrow.string())
    if values.dtype == numpy.int64:
        return cells
    alike = written_alike(values)
    if alike.all():
        return cells
    others = numpy.flatnonzero(~alike)
    if len(others) > 1000 and len(others) > _FEW * len(values):
        return None  # then it is no gain
    texts = [repr(value) if math.isfinite(value) else _no_number(value, missing) for value in values[others].tolist()]
    return compute.replace_with_mask(cells, pyarrow.array(~alike), pyarrow.array(texts, type=pyarrow.string()))


def _no_number(value: float, missing: str) -> str:
    return missing if value != value or missing else repr(value)


def _joined(pieces: List[Any]) -> bytes:
    """Return the texts of each row, joined, one row after another."""
    import numpy
    import pyarrow
    from pyarrow import compute

    lines = compute.binary_join_element_wise(
        *[pyarrow.scalar(piece) if isinstance(piece, str) else piece for piece in pieces], ""
    )
    if lines.offset:
        lines = pyarrow.concat_arrays([lines])
    _, offsets, data = lines.buffers()
    ends = numpy.frombuffer(offsets, dtype=numpy.int32)[: len(lines) + 1]
    return bytes(memoryview(data)[int(ends[0]) : int(ends[-1])])
