"""From predictions or a table to an answer's body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, List, Sequence

from ..errors import NotAcceptable
from . import arrow, csv, json, mtx, parquet
from ._libraries import available
from .cells import Column
from .formats import (
    ARROW_STREAM,
    CSV,
    JSON,
    JSON_LINES,
    MATRIX_MARKET,
    PARQUET,
    SUPPORTED_OUTPUT,
    canonical_type,
    split_content_type,
)

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..contract.target_types import Predictions

_BINARY = (ARROW_STREAM, PARQUET)  # written by pyarrow


def available_output() -> List[str]:
    """Return what can be answered in this environment, the default first: without pyarrow, JSON and CSV."""
    has_pyarrow = available("pyarrow")
    return [name for name in SUPPORTED_OUTPUT if has_pyarrow or name not in _BINARY]


def encode_predictions(p: Predictions, content_type: str) -> bytes:
    """Return the body that carries the predictions: ``rows`` rows, the contract's columns, then the extra ones.

    Raises ``NotAcceptable`` for a content type that is not written here, or whose package is missing.
    """
    return encode_members(p, [p.rows], content_type)[0]


def encode_members(p: Predictions, counts: Sequence[int], content_type: str) -> List[bytes]:
    """Return a body for each member of a batch, whose rows are the next ``counts`` ones of the predictions.

    Each is to the byte what ``encode_predictions`` gives for these rows alone. Raises as that does.
    """
    bare = canonical_type(split_content_type(content_type)[0])
    if bare == JSON:
        return json.encode_predictions(p, counts)
    columns: List[Column] = [(str(name), values) for name, values in p.columns.items()]
    if p.extra is not None:
        columns += _columns(p.extra)
    return _encode(columns, p.rows, counts, bare)


def encode_table(frame: DataFrame, content_type: str) -> bytes:
    """Return the body that carries a table, as the transform operation answers.

    Raises ``NotAcceptable`` for a content type that is not written here, or whose package is missing.
    """
    bare = canonical_type(split_content_type(content_type)[0])
    if bare == MATRIX_MARKET:
        return mtx.encode(frame)
    columns = _columns(frame)
    if bare == JSON:
        return json.encode(columns, len(frame))
    return _encode(columns, len(frame), [len(frame)], bare)[0]


def _columns(frame: DataFrame) -> List[Column]:
    return [(str(name), frame.iloc[:, place]) for place, name in enumerate(frame.columns)]


def _encode(columns: Sequence[Column], rows: int, counts: Sequence[int], content_type: str) -> List[bytes]:
    if content_type == CSV:
        return csv.encode(columns, rows, counts)
    if content_type == JSON_LINES:
        return json.encode_lines(columns, rows, counts)
    if content_type not in _BINARY:
        raise NotAcceptable(
            "{} cannot be written; on offer are {}".format(content_type, ", ".join(SUPPORTED_OUTPUT)),
            details={"offered": list(SUPPORTED_OUTPUT)},
        )
    write = arrow.encode_stream if content_type == ARROW_STREAM else parquet.encode
    bodies = []
    start = 0
    for count in counts:
        # Sliced as they are: as Python values they would lose the model's own number types.
        piece = slice(start, start + count)
        bodies.append(write([(name, _rows(values)[piece]) for name, values in columns], count))
        start += count
    return bodies


def _rows(values: Any) -> Any:
    """Return what cuts a column by place: a series cuts by the labels of some indices."""
    return getattr(values, "iloc", values)
