"""Scores one file as one table: read whole, predict in slices where rows are independent, write beside the output.

The file is read as one table, so the types of its columns are those of the whole file and slicing cannot change an
answer. Folders with data hooks get the whole table in one call, as their hooks may look across rows.
"""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING, Any, Callable, Dict, List

from ..codecs import encode_predictions
from ..errors import DecodeError, EmptyBody, ReportedError
from ..types import Buffer, Part, Request

if TYPE_CHECKING:
    from ..contract.target_types import Predictions
    from ..model import Model

SLICE_ROWS = 20_000

Report = Callable[[Dict[str, Any]], None]


def score_whole(model: Model, job: Dict[str, Any], report: Report) -> Dict[str, Any]:
    """Score ``job["input"]`` into the new file ``job["output"]``; return a summary for people.

    ``job["output_type"]`` is the content type to write, ``content_type`` and ``query`` go to unstructured hooks.
    ``report`` is called with the rows done and the rows in all. Raises ``ReportedError``.
    """
    data = _map(job["input"])
    part = Part("X", job.get("content_type", ""), data, os.path.basename(job["input"]))
    if model.description["target_type"] == "unstructured":
        return _score_unstructured(model, part, job)
    report({"stage": "read", "rows": 0})
    table = model.read_table([part], "")
    rows = len(table)
    report({"stage": "predict", "rows": 0, "of": rows})
    step = SLICE_ROWS if model.description["rows_independent"] else rows
    pieces: List[Predictions] = []
    for start in range(0, rows, step):
        # A fresh index per slice, as a table of its own would have.
        pieces.append(model.predict_table(table.iloc[start : start + step].reset_index(drop=True)))
        report({"stage": "predict", "rows": min(start + step, rows), "of": rows})
    predictions = concatenate(pieces)
    write_file(job["output"], encode_predictions(predictions, job["output_type"]))
    return {"rows": rows, "columns": list(predictions.columns)}


def _score_unstructured(model: Model, part: Part, job: Dict[str, Any]) -> Dict[str, Any]:
    request = Request(
        operation="unstructured",
        parts=[part],
        headers={"content-type": part.content_type} if part.content_type else {},
        query_lists=job.get("query", {}),
    )
    answer = model.unstructured(request, lambda stage: None)
    write_file(job["output"], answer.body)
    return {"bytes": len(answer.body), "content_type": answer.content_type}


def concatenate(pieces: List[Predictions]) -> Predictions:
    """Return the predictions of the pieces as one."""
    if len(pieces) == 1:
        return pieces[0]
    import numpy
    import pandas

    first = pieces[0]
    columns = {
        name: numpy.concatenate([numpy.asarray(piece.columns[name]) for piece in pieces]) for name in first.columns
    }
    extra = None
    if first.extra is not None:
        extra = pandas.concat([piece.extra for piece in pieces], ignore_index=True)
    return type(first)(first.target_type, columns, sum(piece.rows for piece in pieces), extra)


def _map(path: str) -> Buffer:
    """Map the input read-only: it is not copied into memory whole before it is read."""
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise EmptyBody("{} is empty".format(path))
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as exc:
        raise DecodeError("{} cannot be read: {}".format(path, exc)) from exc


def write_file(path: str, body: Buffer) -> None:
    """Write a file; raises ``ReportedError``."""
    try:
        with open(path, "wb") as file:
            file.write(body)
    except OSError as exc:
        raise ReportedError("{} cannot be written: {}".format(path, exc)) from exc
