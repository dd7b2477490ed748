"""A batch whose shared call fails is answered one by one, whoever is at fault."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from backline_worker import batch, model
from backline_worker.codecs import SUPPORTED_OUTPUT, decode_together
from backline_worker.errors import HookFailed
from backline_worker.types import Answer, ModelSpec, Part, Request


class Model:
    reads_tables = True
    description = {"output_formats": ["application/json"]}  # noqa: RUF012

    def __init__(self, error: Exception) -> None:
        self._error = error

    def read_tables(self, parts: Any) -> Any:
        return decode_together(parts, max_bytes=1 << 20)

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


@pytest.mark.parametrize("accept", SUPPORTED_OUTPUT)
def test_an_answer_from_a_batch_is_to_the_byte_the_answer_given_alone(
    accept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Number types and extra columns too: a float32 stays one in Arrow and Parquet."""
    (tmp_path / "custom.py").write_text(
        "def score(data, model):\n"
        "    probability = (data['x'] * 0.01).astype('float32')\n"
        "    return data[['k']].assign(yes=probability, no=1 - probability, n=data['x'].astype('int8'))\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = ModelSpec(
        code_dir=str(tmp_path), target_type="binary", positive_class_label="yes", negative_class_label="no"
    )
    loaded = model.Model.load(spec)
    for name in [name for name in sys.modules if name == "custom" or name.startswith("datarobot_drum")]:
        del sys.modules[name]  # loading changes the process, as it should in a worker; here it is put back
    bodies = [b"x,k\n%d.5,c%d\n" % (number, number) for number in range(4)] + [b"x,k\n7.5,a\n8.5,b\n"]
    requests = [Request("predict", [Part("X", "text/csv", body)], accept=accept) for body in bodies]
    together = batch.answer_batch(loaded, requests, lambda stage: None)
    alone = [loaded.predict(request, lambda stage: None) for request in requests]
    assert together == alone


def test_one_bad_member_costs_the_others_few_calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "custom.py").write_text(
        "calls = []\n"
        "def score(data, model):\n"
        "    calls.append(len(data))\n"
        "    data['x'] *= 2\n"
        "    if (data['x'] == 26).any():\n"
        "        raise ValueError('no 13')\n"
        "    return data[['x']].rename(columns={'x': 'Predictions'})\n"
    )
    monkeypatch.setattr(sys, "path", list(sys.path))
    loaded = model.Model.load(ModelSpec(code_dir=str(tmp_path), target_type="regression"))
    calls = sys.modules["custom"].calls
    for name in [name for name in sys.modules if name == "custom" or name.startswith("datarobot_drum")]:
        del sys.modules[name]
    requests = [Request("predict", [Part("X", "text/csv", b"x,k\n%d,a\n" % number)]) for number in range(32)]
    outcomes = batch.answer_batch(loaded, requests, lambda stage: None)
    for number, outcome in enumerate(outcomes):
        if number == 13:
            assert isinstance(outcome, HookFailed)
        else:
            assert isinstance(outcome, Answer)
            assert outcome.body == b'{"predictions":[%d]}' % (2 * number)
    assert len(calls) <= 1 + 2 * 5
