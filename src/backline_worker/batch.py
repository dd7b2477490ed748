"""Answers several requests with few calls of the model, each as if it had been alone.

Whatever cannot be shared is not: bodies that cannot be read with others are read alone. When a shared call fails, its
rows are tried in halves, down to the members that are at fault: they are told their own fault, and cost the others
nothing but time.
"""

from __future__ import annotations

from typing import Any, Callable, List, Sequence, Union

from .codecs import choose_output, encode_members
from .errors import NotAcceptable, OutOfMemory
from .model import Model
from .types import Answer, Request

Outcome = Union[Answer, Exception]
Stage = Callable[[str], None]


def answer_batch(model: Model, requests: Sequence[Request], stage: Stage) -> List[Outcome]:
    """Return the answer or the error of each request, in order.

    The requests are predictions with one part each, alike in content type and ``Accept``. ``MemoryError`` of a shared
    call is not raised either: alone, a member may fit.
    """
    outcomes: List[Any] = [None] * len(requests)
    try:
        content_type = choose_output(requests[0].accept, model.description["output_formats"])
    except NotAcceptable:
        content_type = ""
    if model.reads_tables and content_type:
        _answer_together(model, requests, range(len(requests)), content_type, outcomes, stage)
    for place, request in enumerate(requests):
        if outcomes[place] is None:
            outcomes[place] = _answer_alone(model, request, stage)
    return outcomes


def _answer_together(
    model: Model,
    requests: Sequence[Request],
    places: Sequence[int],
    content_type: str,
    outcomes: List[Any],
    stage: Stage,
) -> None:
    """Put the answers of those requests into ``outcomes`` that can be answered together."""
    stage("decode")
    try:
        tables = model.read_tables([requests[place].parts[0] for place in places])
    except Exception:  # whose fault it is, and whether it is one of ours, trying each alone tells
        return
    for table in tables:
        members = [places[member] for member in table.members]
        try:
            stage("predict")
            predictions = model.predict_table(table.frame)
            stage("encode")
            bodies = encode_members(predictions, table.rows, content_type)
        except (MemoryError, OutOfMemory):
            continue
        except Exception:
            # Read anew, as a hook may have changed the table before it failed.
            half = len(members) // 2
            for part in (members[:half], members[half:]):
                if len(part) > 1:
                    _answer_together(model, requests, part, content_type, outcomes, stage)
        else:
            for place, body in zip(members, bodies):
                outcomes[place] = Answer(content_type, body)


def _answer_alone(model: Model, request: Request, stage: Stage) -> Outcome:
    try:
        stage("decode")
        return model.predict(request, stage)
    except Exception as exc:  # each member's own error is its own answer
        return exc
