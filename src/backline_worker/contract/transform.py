"""What a transform returns, checked and written out."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any, List, Sequence, Tuple

from ..errors import ResultInvalid
from ..types import Answer
from .schema import Rule, is_sparse, violations

if TYPE_CHECKING:
    from pandas import DataFrame

_MATRIX_MARKET = "text/mtx"


def answer_transform(result: Any, source: Any, rules: Sequence[Rule], accept: str) -> Answer:
    """Return the answer for X, or for the pair (X, y).

    ``source`` is the table that was transformed. Raises ``ResultInvalid`` for what is no table or breaks the output
    requirements, and ``NotAcceptable``.
    """
    from ..codecs import available_output, choose_output, encode_table

    x, y = result if isinstance(result, tuple) and len(result) == 2 else (result, None)
    frame = _frame(x)
    source_is_sparse = hasattr(source, "dtypes") and is_sparse(source)
    problems = violations(rules, frame, source_is_sparse=source_is_sparse)
    if problems:
        raise ResultInvalid("what transform returned breaks the model's type schema:\n" + "\n".join(problems))
    offered = available_output()
    # A sparse matrix goes out sparse unless the client asks for something else.
    offered = [_MATRIX_MARKET, *offered] if is_sparse(frame) else [*offered, _MATRIX_MARKET]
    content_type = choose_output(accept, offered)
    body = encode_table(frame, content_type)
    if y is None and content_type != _MATRIX_MARKET:
        return Answer(content_type, body)
    parts: List[Tuple[str, str, bytes]] = [("X", content_type, body)]
    if content_type == _MATRIX_MARKET:
        parts.append(("X.colnames", "text/csv", "\n".join(map(str, frame.columns)).encode()))
    if y is not None:
        other = content_type if content_type != _MATRIX_MARKET else "text/csv"
        parts.append(("y", other, encode_table(_frame(y), other)))
    return _multipart(parts)


def _frame(value: Any) -> DataFrame:
    """Return a frame of a frame, a series, an array or a scipy sparse matrix."""
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        return value
    if isinstance(value, pd.Series):
        return value.to_frame("y" if value.name is None else value.name)
    if hasattr(value, "tocsr") and hasattr(value, "shape"):
        return pd.DataFrame.sparse.from_spmatrix(value, columns=[str(place) for place in range(value.shape[1])])
    if getattr(value, "ndim", 0) in (1, 2):
        columns = [str(place) for place in range(value.shape[1])] if value.ndim == 2 else ["y"]
        return pd.DataFrame(value, columns=columns)
    raise ResultInvalid(
        "transform returned {}; expected a DataFrame, a sparse matrix, or a pair of X and y".format(
            type(value).__name__
        )
    )


def _multipart(parts: Sequence[Tuple[str, str, bytes]]) -> Answer:
    boundary = uuid.uuid4().hex
    pieces = []
    for name, content_type, body in parts:
        head = '--{}\r\nContent-Disposition: form-data; name="{}"\r\nContent-Type: {}\r\n\r\n'
        pieces.append(head.format(boundary, name, content_type).encode() + body + b"\r\n")
    pieces.append("--{}--\r\n".format(boundary).encode())
    return Answer("multipart/form-data; boundary={}".format(boundary), b"".join(pieces))
