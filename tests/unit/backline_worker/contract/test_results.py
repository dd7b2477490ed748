from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from backline_worker.contract.results import check_probabilities, check_result, check_values
from backline_worker.contract.target_types import Target, TargetType
from backline_worker.errors import ResultInvalid

REGRESSION = Target(TargetType.REGRESSION)
BINARY = Target(TargetType.BINARY, labels=("yes", "no"))
NUMBERED = Target(TargetType.BINARY, labels=("1", "0"))
TEXT = Target(TargetType.TEXT_GENERATION, name="answer")
GEO = Target(TargetType.GEO_POINT)
VECTORS = Target(TargetType.VECTOR_DATABASE)


def test_columns_are_matched_by_name_and_come_in_the_contracts_order() -> None:
    frame = pd.DataFrame({"no": [0.25], "reason": ["x"], "yes": [0.75]})
    predictions = check_result(frame, BINARY, 1)
    assert list(predictions.columns) == ["yes", "no"]
    assert list(predictions.columns["yes"]) == [0.75]
    assert predictions.extra is not None
    assert list(predictions.extra.columns) == ["reason"]


@pytest.mark.parametrize("names", [[0, 1], [0.0, 1.0], [False, True], ["0", "1"]], ids=str)
def test_labels_match_whatever_the_columns_are_named_with(names: list[Any]) -> None:
    frame = pd.DataFrame([[0.9, 0.1]], columns=names)
    assert list(check_result(frame, NUMBERED, 1).columns["1"]) == [0.1]


def test_regression_keeps_missing_values_and_type() -> None:
    column = np.array([1.5, np.nan], dtype=np.float32)
    predictions = check_result(pd.DataFrame({"Predictions": column}), REGRESSION, 2)
    assert predictions.columns["Predictions"].dtype == np.float32  # type: ignore[attr-defined]
    np.testing.assert_array_equal(predictions.columns["Predictions"], column)


def test_column_of_objects_that_are_numbers_is_numeric() -> None:
    frame = pd.DataFrame({"Predictions": pd.Series([1, 2.5, None], dtype=object)})
    np.testing.assert_array_equal(check_result(frame, REGRESSION, 3).columns["Predictions"], [1.0, 2.5, np.nan])


def test_text_goes_by_the_target_name_with_extra_columns() -> None:
    frame = pd.DataFrame({"answer": ["a", "b"], "score": [1, 2]})
    predictions = check_result(frame, TEXT, 2)
    assert predictions.columns == {"answer": ["a", "b"]}
    assert predictions.extra is not None


def test_geo_points_by_name_or_two_columns() -> None:
    frame = pd.DataFrame({"longitude": [2.0], "latitude": [1.0], "x": [0]})
    assert list(check_result(frame, GEO, 1).columns) == ["latitude", "longitude"]
    assert list(check_result(pd.DataFrame({"lat": [1.0], "lon": [2.0]}), GEO, 1).columns) == ["lat", "lon"]


def test_vector_database_has_free_columns() -> None:
    frame = pd.DataFrame({"chunk": ["a"], "score": [0.5]})
    assert list(check_result(frame, VECTORS, 1).columns) == ["chunk", "score"]


@pytest.mark.parametrize(
    ("result", "target", "message"),
    [
        (None, REGRESSION, "score returned None; expected a pandas DataFrame with a numeric column named"),
        (np.zeros(2), REGRESSION, r"numpy.ndarray of shape \(2,\)"),
        (pd.DataFrame({"Predictions": [1.0]}), REGRESSION, "returned 1 rows for 2 rows of input"),
        (pd.DataFrame({"prediction": [1.0, 2.0]}), REGRESSION, r"columns \['prediction'\]; expected .*'Predictions'"),
        (pd.DataFrame({"Predictions": ["a", "b"]}), REGRESSION, "for instance 'a'"),
        (pd.DataFrame({"yes": [0.5, 0.5]}), BINARY, r"columns \['yes'\]; expected .*'yes', 'no'"),
        (pd.DataFrame({"yes": [0.5, 0.5], "no": [0.5, 0.52]}), BINARY, "sum to 1.02 in 1 of 2 rows, first in row 1"),
        (pd.DataFrame({"yes": [0.5, None], "no": [0.5, 0.5]}), BINARY, r"are missing \(NaN\) in 1 of 2 rows"),
        (pd.DataFrame({"text": ["a", "b"]}), TEXT, "expected a column of text named 'answer'"),
        (pd.DataFrame({"a": [1, 2]}), GEO, "two numeric columns, 'latitude' and 'longitude'"),
        (pd.DataFrame(index=[0, 1]), VECTORS, "at least one column"),
        (pd.DataFrame([[1.0, 2.0]] * 2, columns=["Predictions"] * 2), REGRESSION, "several columns with the same name"),
    ],
    ids=[
        "none", "array", "rows", "name", "text", "one-class",
        "sum", "missing", "target-name", "geo", "empty", "repeated",
    ],
)  # fmt: skip
def test_result_that_does_not_fit_is_told_with_what_was_expected(result: Any, target: Target, message: str) -> None:
    with pytest.raises(ResultInvalid, match=message):
        check_result(result, target, 2)


def test_tolerance_of_the_sum_and_switching_it_off() -> None:
    assert check_result(pd.DataFrame({"yes": [0.5], "no": [0.5009]}), BINARY, 1).rows == 1
    loose = Target(TargetType.BINARY, labels=("yes", "no"), strict=False)
    assert check_result(pd.DataFrame({"yes": [0.5], "no": [0.9]}), loose, 1).rows == 1


def test_one_column_is_the_positive_class() -> None:
    predictions = check_probabilities(np.array([[0.2], [1.0]]), None, BINARY, 2, source="net")
    assert list(predictions.columns["yes"]) == [0.2, 1.0]
    assert list(predictions.columns["no"]) == [0.8, 0.0]
    with pytest.raises(ResultInvalid, match=r"outside 0\.\.1"):
        check_probabilities(np.array([1.2]), None, BINARY, 1, source="net")
    with pytest.raises(ResultInvalid, match="or missing"):
        check_probabilities(np.array([np.nan]), None, BINARY, 1, source="net")


def test_two_columns_without_classes_are_negative_then_positive() -> None:
    predictions = check_probabilities(np.array([[0.7, 0.3]]), None, BINARY, 1, source="net")
    assert list(predictions.columns["yes"]) == [0.3]


@pytest.mark.parametrize("shape", [(1, 3), (2, 2), (1, 2, 1)], ids=str)
def test_array_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ResultInvalid, match="array of shape"):
        check_probabilities(np.zeros(shape), None, BINARY, 1, source="net")


def test_library_values_by_target_type() -> None:
    assert list(check_values(np.array([[1], [2]]), REGRESSION, 2, source="m").columns["Predictions"]) == [1, 2]
    assert list(check_values(np.array([[1.0, 2.0]]), GEO, 1, source="m").columns) == ["latitude", "longitude"]
    assert list(check_values(np.array(["a"]), TEXT, 1, source="m").columns["answer"]) == ["a"]
    with pytest.raises(ResultInvalid, match="numeric column"):
        check_values(np.array(["a"]), REGRESSION, 1, source="m")
    with pytest.raises(ResultInvalid, match=r"array of shape \(1, 2\)"):
        check_values(np.zeros((1, 2)), REGRESSION, 1, source="m")


def test_no_rows_give_no_predictions() -> None:
    assert check_result(pd.DataFrame({"yes": [], "no": []}), BINARY, 0).rows == 0
