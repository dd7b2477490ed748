from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backline_worker.contract.target_types import TargetType, match_labels, parse_target_type


@pytest.mark.parametrize("text", ["textgeneration", "text-generation", "TextGeneration", " text_generation "])
def test_any_spelling_of_a_target_type_is_understood(text: str) -> None:
    assert parse_target_type(text) is TargetType.TEXT_GENERATION


def test_unknown_target_type_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'regresion'; known are regression, binary"):
        parse_target_type("regresion")


@pytest.mark.parametrize(
    ("labels", "classes", "expected"),
    [
        (["yes", "no"], ["no", "yes"], [1, 0]),
        (["1", "0"], [0, 1], [1, 0]),
        (["1", "0"], np.array([0.0, 1.0]), [1, 0]),
        (["1", "0"], np.array([False, True]), [1, 0]),
        (["True", "False"], np.array([False, True]), [1, 0]),
        (["True", "False"], [0, 1], [1, 0]),
        (["1.0", "0.0"], [0, 1], [1, 0]),
        (["yes", "no"], [b"no", b"yes"], [1, 0]),
        (["a", "c"], ["c", "b", "a"], [2, 0]),
        (["1", "1.0"], ["1.0", "1"], [1, 0]),
        (["yes", "no"], ["Yes", "No"], None),
        (["1", "0"], [1], None),
        (["nan", "x"], ["x", "nan"], [1, 0]),
    ],
    ids=str,
)
def test_labels_find_their_classes_as_text_then_by_value(labels: list[str], classes: Any, expected: Any) -> None:
    assert match_labels(labels, classes) == expected
