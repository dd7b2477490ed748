"""Scores one chunk: read, type, predict, encode into a file; and finds the rows at fault where that fails."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Optional, Tuple

from .. import column_types
from ..column_types import Types
from ..errors import (
    DecodeError,
    HookFailed,
    ReportedError,
    ResultInvalid,
    SchemaMismatch,
    UserHTTPError,
)
from . import columnar, text_pieces
from .columns import Classes, Reader, Rows
from .encode import Encoder
from .whole import concatenate, write_file

if TYPE_CHECKING:
    from ..contract.target_types import Predictions
    from ..model import Model

SLICE_ROWS = 50_000
# What rows can be the cause of.
_OF_ROWS = (DecodeError, SchemaMismatch, HookFailed, UserHTTPError, ResultInvalid)
_ALL_BAD = 32

_readers: Dict[str, Reader] = {}
"""Of the one file that is being scored."""


def score_chunk(model: Model, job: Dict[str, Any], report: Callable[[Dict[str, Any]], None]) -> Dict[str, Any]:
    """Score ``job`` and return what the server must know to put it together with the others.

    ``job``: ``format``, ``input`` and where in it (``start``, ``size`` and ``file_size``, or ``unit``); ``known``, the
    letters of the columns so far, or of the whole file (``final``); ``exact``, whether its own are to be complete;
    ``predict``; ``output`` and
    ``output_type``; ``rejects``, whether bad rows are written to ``output`` + ``.rejects`` and left out.

    The answer has ``own``, the letters that the chunk adds, ``classes``, the types that it was predicted with, ``rows``
    and what ``Encoder`` says of the output. ``stale``: its parts had different types, so nothing was written; try
    again with what is known now.
    """
    work = _Chunk(model, job)
    if job["format"] in ("csv", "json lines"):
        pieces = text_pieces.pieces(job, _readers, report)
    else:
        pieces = columnar.pieces(job, _readers)
    for piece in pieces:
        work.add(piece)
    return work.finish()


class _Chunk:
    def __init__(self, model: Model, job: Dict[str, Any]) -> None:
        self._model = model
        self._job = job
        self._known: Types = job["known"]
        self._own: Types = {}
        self._classes: Optional[Classes] = None
        self._stale = False
        self._predictions: List[Predictions] = []
        self._rejects: List[Dict[str, Any]] = []
        self._rows = 0  # read so far, those that are rejected too

    def add(self, rows: Rows) -> None:
        """Score the rows of a piece."""
        bad: List[Tuple[int, ReportedError]] = []
        try:
            predictions = self._score(rows)
        except _OF_ROWS as exc:
            bad = self._find_bad(rows, exc)
            if not self._job.get("rejects"):
                raise self._naming(rows, *bad[0]) from exc
            left = rows.without([place for place, _ in bad])
            predictions = self._score(left)
        self._note_rejects(rows, bad, 0 if predictions is None else predictions.rows)
        if predictions is not None:
            self._predictions.append(predictions)

    def finish(self) -> Dict[str, Any]:
        """Write the output and return the answer."""
        answer: Dict[str, Any] = {
            "own": self._own,
            "classes": self._classes or {},
            "rows": self._rows - len(self._rejects),
            "rejected": len(self._rejects),
            "stale": self._stale,
        }
        if self._stale or not self._job["predict"]:
            return answer
        if self._rejects:
            text = "".join(json.dumps(reject, ensure_ascii=False) + "\n" for reject in self._rejects)
            write_file(self._job["output"] + ".rejects", text.encode("utf-8", "backslashreplace"))
        if self._predictions:
            encoder = Encoder(self._job["output_type"], gzip=self._job["gzip"], as_floats=self._job["as_floats"])
            answer.update(encoder.write(concatenate(self._predictions), self._job["output"]))
        return answer

    def _score(self, rows: Rows) -> Optional[Predictions]:
        """Return the predictions of a piece, noting its types; ``None``: it has no rows, or nothing is predicted."""
        known = column_types.add(self._known, self._own, csv=rows.csv) if self._own else self._known
        own: Types = {}
        if self._job["final"]:
            frame, classes = rows.reader.read_final(rows, known)
        else:
            frame, own, classes = rows.reader.read(rows, known, exact=self._job["exact"])
        if frame is None:
            return None
        if not self._job["predict"]:
            if _becomes_text(known, own):
                # A word among numbers is the fault of its row if the model refuses it, and no reason to read all
                # numbers as text.
                self._predict(frame)
            self._own = column_types.add(self._own, own, csv=rows.csv)
            self._classes = classes
            self._rows += len(frame)
            return None
        predictions = None
        if self._classes in (None, classes) and not self._stale:
            predictions = self._predict(frame)
        else:
            self._stale = True
        self._own = column_types.add(self._own, own, csv=rows.csv)
        self._classes = classes
        return predictions

    def _predict(self, frame: Any) -> Predictions:
        rows = len(frame)
        if rows <= SLICE_ROWS:
            return self._model.predict_table(frame)
        slices = range(0, rows, SLICE_ROWS)
        return concatenate(
            [self._model.predict_table(frame.iloc[at : at + SLICE_ROWS].reset_index(drop=True)) for at in slices]
        )

    def _note_rejects(self, rows: Rows, bad: List[Tuple[int, ReportedError]], good: int) -> None:
        blank = getattr(rows, "is_blank", None)
        blanks = 0
        at = 0
        for place, error in sorted(bad, key=lambda item: item[0]):
            while blank is not None and at < place:
                blanks += blank(at)
                at += 1
            lines, record = rows.place_of(place)
            message = _relative(error, rows)
            self._rejects.append(
                {"row": self._rows + place - blanks, "line": lines, "reason": message, "record": record}
            )
        if self._job["predict"]:
            self._rows += good + len(bad)

    # --- rows at fault

    def _find_bad(self, rows: Rows, error: ReportedError) -> List[Tuple[int, ReportedError]]:
        """Return the places of the records at fault and what each is at fault with, by halving.

        One is enough unless rejects are wanted. Raises the error itself where no single record is at fault.
        """
        if {"missing", "unknown"} & set(error.details) and isinstance(error, SchemaMismatch):
            raise error  # columns, not rows
        bad: Dict[int, ReportedError] = {}
        every = bool(self._job.get("rejects"))
        if isinstance(error, DecodeError):
            bad = {place: DecodeError(reason) for place, reason in rows.faults().items()}
            if bad and not every:
                return [min(bad.items(), key=lambda item: item[0])]
        places = [place for place in range(rows.count()) if place not in bad]
        left = rows.without(list(bad)) if bad else rows
        successes = 0

        def search(start: int, end: int) -> None:
            nonlocal successes
            try:
                self._try(left.part(start, end))
            except _OF_ROWS as exc:
                if end - start == 1:
                    bad[places[start]] = exc
                    if not successes and len(bad) >= min(_ALL_BAD, len(places)) and len(places) > 1:
                        raise _Hopeless from exc
                    return
                middle = (start + end) // 2
                search(start, middle)
                if every or not bad:
                    search(middle, end)
            else:
                successes += 1

        try:
            if places:
                search(0, len(places))
        except _Hopeless:
            raise error from None  # it refuses row after row
        if not bad:
            raise error
        return sorted(bad.items(), key=lambda item: item[0])

    def _try(self, rows: Rows) -> None:
        own: Types = {}
        if self._job["final"]:
            frame, _ = rows.reader.read_final(rows, self._known)
        else:
            frame, own, _ = rows.reader.read(rows, self._known, exact=False)
        if frame is not None and (self._job["predict"] or _becomes_text(self._known, own)):
            self._predict(frame)

    def _naming(self, rows: Rows, place: int, error: ReportedError) -> ReportedError:
        """Return the error with the place of its record in the chunk, for the server to name it in the whole file."""
        message = _relative(error, rows)
        lines, record = rows.place_of(place)
        details = {**error.details, "row": self._rows + place, "line": lines, "record": record[:500]}
        named = type(error)(message, details=details, traceback=error.traceback)
        named.__cause__ = error.__cause__
        return named


def _becomes_text(known: Types, own: Types) -> bool:
    return any(
        column_types.is_text(letters) and not column_types.is_text(known.get(name, "")) for name, letters in own.items()
    )


class _Hopeless(Exception):
    """Every row is refused."""


def _relative(error: ReportedError, rows: Rows) -> str:
    """Return the message without the line that the record has in a table of its own."""
    line = getattr(rows.reader, "header_lines", 0) + 1
    for text in ("line {} of the CSV has ", "line {} of the CSV ", "line {} of the JSON lines "):
        start = text.format(line)
        if error.message.startswith(start):
            return error.message[len(start) :]
    return error.message
