"""Answers several requests with one call of the model, each as if it had been alone.

Whatever cannot be shared is not: a body that cannot be read with the others is read alone, and when the shared call
fails, each member is tried alone, so that a bad request is told its own fault and costs the others nothing but time.
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence, Tuple, Union

from .codecs import choose_output, decode_together, encode_predictions, is_csv
from .contract.target_types import Predictions
from .model import Model
from .types import Answer, Request

Outcome = Union[Answer, Exception]
Stage = Callable[[str], None]


def answer_batch(model: Model, requests: Sequence[Request], stage: Stage) -> List[Outcome]:
    """Return the answer or the error of each request, in order.

    The requests are predictions with one part each, alike in content type and ``Accept``. ``MemoryError`` of the shared
    call is not raised either: alone, a member may fit.
    """
    outcomes: List[Any] = [None] * len(requests)
    for place, answer in _answer_together(model, requests, stage):
        outcomes[place] = answer
    for place, request in enumerate(requests):
        if outcomes[place] is None:
            outcomes[place] = _answer_alone(model, request, stage)
    return outcomes


def _answer_together(model: Model, requests: Sequence[Request], stage: Stage) -> List[Tuple[int, Answer]]:
    first = requests[0]
    parts = [request.parts[0] for request in requests]
    if not model.reads_tables or not is_csv(parts[0]):
        return []
    try:
        content_type = choose_output(first.accept, model.description["output_formats"])
        stage("decode")
        joined = decode_together([part.data for part in parts])
        if joined is None:
            return []
        stage("predict")
        predictions = model.predict_table(joined.frame)
        stage("encode")
        return list(zip(joined.members, _encoded(predictions, joined.rows, content_type)))
    except Exception:  # whose fault it is, and whether it is one of ours, trying each alone tells
        return []


def _encoded(predictions: Predictions, rows: Sequence[int], content_type: str) -> List[Answer]:
    answers = []
    start = 0
    for count in rows:
        end = start + count
        extra = None if predictions.extra is None else predictions.extra.iloc[start:end].reset_index(drop=True)
        # Sliced as they are: as Python values, Arrow and Parquet answers would lose the model's own number types.
        columns = {name: values[start:end] for name, values in predictions.columns.items()}
        part = Predictions(predictions.target_type, columns, count, extra)
        answers.append(Answer(content_type, encode_predictions(part, content_type)))
        start = end
    return answers


def _answer_alone(model: Model, request: Request, stage: Stage) -> Outcome:
    try:
        stage("decode")
        return model.predict(request, stage)
    except Exception as exc:  # each member's own error is its own answer
        return exc
