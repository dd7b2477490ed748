"""Writes the predictions of a chunk in the pieces that the output file is put together from.

==========  =============================================================================
CSV         rows without the header, which is told once as ``head``
JSON lines  rows
JSON        what stands between the brackets of ``predictions``; then, of ``extra_size`` bytes,
            what stands between those of ``data`` of the extra output
others      an Arrow stream, of which ``assemble`` makes Arrow or Parquet
==========  =============================================================================
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from typing import TYPE_CHECKING, Any, Dict, List, Sequence, Tuple, cast

from ..codecs import encode_predictions
from ..codecs.cells import Column
from ..codecs.formats import ARROW_STREAM, CSV, JSON, JSON_LINES
from . import fast_text
from .whole import write_file

if TYPE_CHECKING:
    from ..contract.target_types import Predictions


class Encoder:
    """For one content type; with ``gzip``, a piece is a member of a gzip file."""

    def __init__(self, content_type: str, *, gzip: bool, as_floats: Sequence[str] = ()) -> None:
        self._type = content_type
        self._gzip = gzip
        self._as_floats = as_floats

    def write(self, predictions: Predictions, path: str) -> Dict[str, Any]:
        """Write the piece to ``path``; return its ``size``, and what else the file needs."""
        predictions = _widened(predictions, self._as_floats)
        columns = _columns(predictions)
        answer: Dict[str, Any] = {"columns": [[name, _kind(values)] for name, values in columns]}
        if self._type == CSV:
            head = _head(predictions)
            answer["head"] = head
            body = fast_text.csv_rows(columns, predictions.rows)
            if body is None:
                body = encode_predictions(predictions, CSV)[len(head.encode("utf-8", "replace")) :]
        elif self._type == JSON_LINES:
            body = fast_text.json_rows(columns, predictions.rows)
            if body is None:
                body = encode_predictions(predictions, JSON_LINES)
        elif self._type == JSON:
            body, answer["extra_size"], answer["head"] = _json(predictions)
        else:
            body = encode_predictions(predictions, ARROW_STREAM)
        if self._gzip:
            packer = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
            body = packer.compress(body) + packer.flush()
        write_file(path, body)
        answer["size"] = len(body)
        return answer


def _widened(predictions: Predictions, names: Sequence[str]) -> Predictions:
    """Return the predictions with whole numbers in these columns as floats, as other chunks have others there."""
    extra = predictions.extra
    wider = {
        name: array.astype("float64")
        for name, array in ((name, cast("Any", values)) for name, values in predictions.columns.items())
        if str(name) in names and _kind(array) == "int64"
    }
    if wider:
        predictions = dataclasses.replace(predictions, columns={**predictions.columns, **wider})
    if extra is not None:
        kinds = {name: "float64" for name in extra.columns if str(name) in names and _kind(extra[name]) == "int64"}
        if kinds:
            predictions = dataclasses.replace(predictions, extra=extra.astype(kinds))
    return predictions


def _columns(predictions: Predictions) -> List[Column]:
    columns: List[Column] = [(str(name), values) for name, values in predictions.columns.items()]
    extra = predictions.extra
    if extra is not None:
        columns += [(str(name), extra.iloc[:, place]) for place, name in enumerate(extra.columns)]
    return columns


def _kind(values: Any) -> str:
    return str(getattr(values, "dtype", "object"))


def _head(predictions: Predictions) -> str:
    return encode_predictions(_first(predictions, 0), CSV).decode()


def _first(predictions: Predictions, rows: int) -> Predictions:
    return dataclasses.replace(
        predictions,
        columns={name: values[:rows] for name, values in predictions.columns.items()},
        rows=rows,
        extra=None if predictions.extra is None else predictions.extra.iloc[:rows],
    )


def _json(predictions: Predictions) -> Tuple[bytes, int, str]:
    alone = encode_predictions(dataclasses.replace(predictions, extra=None), JSON)
    start, end = b'{"predictions":[', b"]}"
    rows = alone[len(start) : -len(end)]
    extra = predictions.extra
    if extra is None or not len(extra.columns):
        return rows, 0, ""
    names = encode_predictions(_first(predictions, 0), JSON)
    before, after = b'{"predictions":[],"extraModelOutput":{"columns":', b',"index":[],"data":[]}}'
    columns = names[len(before) : -len(after)]
    numbered = dataclasses.replace(predictions, extra=extra.reset_index(drop=True))
    index = ",".join(map(str, range(predictions.rows))).encode()
    parts = (start, rows, b'],"extraModelOutput":{"columns":', columns, b',"index":[', index, b'],"data":[')
    data = encode_predictions(numbered, JSON)[sum(map(len, parts)) : -len(b"]}}")]
    return rows + data, len(data), json.loads(json.dumps(columns.decode("utf-8")))
