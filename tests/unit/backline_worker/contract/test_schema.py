from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from backline_worker.contract.schema import column_types, parse_rules, violations

FRAME = pd.DataFrame(
    {
        "number": [1.5, None],
        "word": ["red", "green"],
        "when": pd.to_datetime(["2024-01-01", "2024-01-02"]),
        "flag": [True, False],
    }
)
SPARSE = pd.DataFrame({"s": pd.arrays.SparseArray([0, 1]), "d": [1, 2]})


def check(frame: pd.DataFrame, *rules: tuple[str, str, Any], output: bool = False, **named: Any) -> list[str]:
    raw = [{"field": field, "condition": condition, "value": value} for field, condition, value in rules]
    return violations(parse_rules(raw, "rules", output=output), frame, **named)


@pytest.mark.parametrize(
    "rule",
    [
        ("data_types", "IN", ["NUM", "TXT", "DATE", "CAT"]),
        ("data_types", "NOT_IN", ["IMG", "GEO"]),
        ("number_of_columns", "EQUALS", 4),
        ("number_of_columns", "IN", [3, 4]),
        ("number_of_columns", "NOT_EQUALS", 5),
        ("number_of_columns", "GREATER_THAN", 3),
        ("number_of_columns", "NOT_GREATER_THAN", 4),
        ("number_of_columns", "LESS_THAN", 5),
        ("number_of_columns", "NOT_LESS_THAN", 4),
        ("contains_missing", "EQUALS", "SUPPORTED"),
        ("sparse", "EQUALS", "FORBIDDEN"),
    ],
    ids=str,
)
def test_rules_that_are_kept(rule: tuple[str, str, Any]) -> None:
    assert check(FRAME, rule) == []


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (("data_types", "EQUALS", "NUM"), "wrong are word (CAT or TXT), when (DATE)"),
        (("data_types", "NOT_IN", ["DATE"]), "wrong are when (DATE)"),
        (("data_types", "NOT_EQUALS", "NUM"), "wrong are number (NUM)"),
        (("number_of_columns", "EQUALS", 3), "there are 4: number, word, when, flag"),
        (("number_of_columns", "NOT_IN", [4]), "there are 4"),
        (("number_of_columns", "GREATER_THAN", 4), "there are 4"),
        (("number_of_columns", "LESS_THAN", 4), "there are 4"),
        (("number_of_columns", "NOT_GREATER_THAN", 3), "there are 4"),
        (("number_of_columns", "NOT_LESS_THAN", 5), "there are 4"),
        (("contains_missing", "EQUALS", "FORBIDDEN"), "values are missing in number"),
        (("sparse", "EQUALS", "REQUIRED"), "the data is dense"),
    ],
    ids=str,
)
def test_broken_rule_is_told_with_its_columns(rule: tuple[str, str, Any], told: str) -> None:
    (problem,) = check(FRAME, rule)
    assert told in problem
    assert "rules[0]" in problem


def test_all_broken_rules_are_told_at_once() -> None:
    rules = [("data_types", "EQUALS", "NUM"), ("contains_missing", "EQUALS", "FORBIDDEN")]
    assert len(check(FRAME, *rules, ("sparse", "EQUALS", "SUPPORTED"))) == 2


def test_sparse_columns() -> None:
    assert "sparse are s" in check(SPARSE, ("sparse", "EQUALS", "FORBIDDEN"))[0]
    assert check(SPARSE, ("sparse", "EQUALS", "REQUIRED")) == []
    assert check(SPARSE, ("data_types", "EQUALS", "NUM")) == []


def test_output_rules_know_identity_and_dynamic() -> None:
    assert check(SPARSE, ("sparse", "EQUALS", "IDENTITY"), output=True, source_is_sparse=True) == []
    assert check(SPARSE, ("sparse", "EQUALS", "IDENTITY"), output=True, source_is_sparse=False)
    assert check(SPARSE, ("sparse", "EQUALS", "DYNAMIC"), output=True) == []
    assert check(FRAME, ("contains_missing", "EQUALS", "NEVER"), output=True)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["iVBORw0KGgoAAAA"], {"IMG"}),
        (["POINT (1 2)"], {"CAT", "TXT", "GEO"}),
        (["2024-05-01", "2024-05-02T10:00"], {"CAT", "TXT", "DATE"}),
        (['{"a": 1}'], {"CAT", "TXT", "COUNT_DICT"}),
        (["a long text about something"], {"CAT", "TXT"}),
        ([1, 2], {"NUM"}),
        ([True], {"NUM", "CAT"}),
        (pd.Categorical(["a"]), {"CAT"}),
        (pd.to_timedelta(["1 day"]), {"DATE_DURATION"}),
    ],
    ids=str,
)
def test_types_that_a_column_may_be(values: Any, expected: set[str]) -> None:
    assert column_types(pd.Series(values)) == expected


def test_column_without_any_value_may_be_anything() -> None:
    assert "IMG" in column_types(pd.Series([np.nan, np.nan]))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("data_types", "EQUALS", "NUMBER"), r"\.value: expected one of NUM"),
        (("sparse", "IN", "FORBIDDEN"), r"\.condition: expected one of EQUALS"),
        (("sparse", "EQUALS", "NEVER"), r"\.value: expected one of FORBIDDEN"),
        (("number_of_columns", "LESS_THAN", [1, 2]), "compares with one number"),
        (("number_of_columns", "EQUALS", "two"), "expected a number of columns"),
        (("data_types", "IN", []), "empty list"),
    ],
    ids=str,
)
def test_rule_that_makes_no_sense_is_refused(rule: tuple[str, str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(FRAME, rule)
