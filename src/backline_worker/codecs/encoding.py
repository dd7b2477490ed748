"""From predictions or a table to an answer's body."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, Sequence

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


def available_output() -> List[str]:
    """Return what can be answered in this environment, the default first: without pyarrow, JSON and CSV."""
    needs_pyarrow = (ARROW_STREAM, PARQUET)
    has_pyarrow = available("pyarrow")
    return [name for name in SUPPORTED_OUTPUT if has_pyarrow or name not in needs_pyarrow]


def encode_predictions(p: Predictions, content_type: str) -> bytes:
    """Return the body that carries the predictions: ``rows`` rows, the contract's columns, then the extra ones.

    Raises ``NotAcceptable`` for a content type that is not written here, or whose package is missing.
    """
    bare = canonical_type(split_content_type(content_type)[0])
    if bare == JSON:
        return json.encode_predictions(p)
    columns: List[Column] = [(str(name), values) for name, values in p.columns.items()]
    if p.extra is not None:
        columns += _columns(p.extra)
    return _encode(columns, p.rows, bare)


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
    return _encode(columns, len(frame), bare)


def _columns(frame: DataFrame) -> List[Column]:
    return [(str(name), frame.iloc[:, place]) for place, name in enumerate(frame.columns)]


def _encode(columns: Sequence[Column], rows: int, content_type: str) -> bytes:
    if content_type == CSV:
        return csv.encode(columns, rows)
    if content_type == JSON_LINES:
        return json.encode_lines(columns, rows)
    if content_type == ARROW_STREAM:
        return arrow.encode_stream(columns, rows)
    if content_type == PARQUET:
        return parquet.encode(columns, rows)
    raise NotAcceptable(
        "{} cannot be written; on offer are {}".format(content_type, ", ".join(SUPPORTED_OUTPUT)),
        details={"offered": list(SUPPORTED_OUTPUT)},
    )
