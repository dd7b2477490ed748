"""A batch whose shared call fails is answered one by one, whoever is at fault."""

from __future__ import annotations

from typing import Any

import pytest

from backline_worker import batch
from backline_worker.errors import HookFailed
from backline_worker.types import Answer, Part, Request


class Model:
    reads_tables = True
    description = {"output_formats": ["application/json"]}  # noqa: RUF012

    def __init__(self, error: Exception) -> None:
        self._error = error

    def predict_table(self, frame: Any) -> Any:
        raise self._error

    def predict(self, request: Request, stage: Any) -> Answer:
        return Answer("application/json", request.parts[0].data)


@pytest.mark.parametrize("error", [HookFailed("no"), MemoryError(), ValueError("a fault of ours")], ids=repr)
def test_members_of_a_failed_batch_are_answered_alone(error: Exception) -> None:
    bodies = [b"a,b\n1,x\n", b"a,b\n2,y\n"]
    requests = [Request("predict", [Part("X", "text/csv", body)]) for body in bodies]
    outcomes = batch.answer_batch(Model(error), requests, lambda stage: None)  # type: ignore[arg-type]
    assert [outcome.body if isinstance(outcome, Answer) else outcome for outcome in outcomes] == bodies
