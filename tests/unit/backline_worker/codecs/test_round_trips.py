"""One table through every format: what comes back is the same, and the same from each of them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline_worker.codecs import encode_predictions, encode_table
from backline_worker.contract.target_types import Predictions, TargetType
from tests.unit.backline_worker.codecs.bodies import decode

CSV, JSON = "text/csv", "application/json"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
ALL = (CSV, JSON, ARROW, PARQUET)

# Strings that CSV would take for numbers, truth values or missing values do not survive it, and are kept out here.
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=6).map("w".__add__)
HOSTILE = st.sampled_from(
    ['w"', "w,", "w\n", "w\r", "w\r\n", "w\t ", '"w"', ",w", "\nw", "w\\", "w%s{}", "w\u2028", "w😀", "w'", "=w"]
)


def _maybe(values: Any) -> Any:
    return st.one_of(values, st.none())


@st.composite
def frames(draw: Any) -> pd.DataFrame:
    """Return a frame of the types that all four formats can carry."""
    rows = draw(st.integers(1, 5))
    columns = {}
    for name in draw(st.lists(st.one_of(WORDS, HOSTILE), min_size=1, max_size=4, unique=True)):
        dtype = draw(st.sampled_from(["float64", "int64", "uint64", "bool", "text"]))
        values = {
            "float64": _maybe(st.floats(allow_infinity=False, allow_nan=False)),
            "int64": st.integers(-(2**63), 2**63 - 1),
            "uint64": st.integers(2**63, 2**64 - 1),
            "bool": st.booleans(),
            "text": _maybe(st.one_of(WORDS, HOSTILE)),
        }[dtype]
        items = draw(st.lists(values, min_size=rows, max_size=rows))
        columns[name] = pd.Series(items) if dtype == "text" else pd.Series(items, dtype=dtype)
    return pd.DataFrame(columns)


def canonical(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame as it is read: a column without values is a float column, and missing is NaN."""
    columns = {}
    for name in frame.columns:
        series = frame[name]
        if series.isnull().all():
            series = pd.Series(math.nan, index=series.index, dtype="float64")
        elif series.dtype == object:
            series = pd.Series([math.nan if value is None else value for value in series], dtype=object)
        columns[name] = series
    return pd.DataFrame(columns)


@pytest.mark.parametrize("content_type", [JSON, ARROW, PARQUET])
@given(frame=frames())
def test_tables_come_back_exactly(content_type: str, frame: pd.DataFrame) -> None:
    expected = canonical(frame)
    got = decode(encode_table(frame, content_type), content_type)
    if content_type == JSON:
        # JSON does not tell 1.0 from 1 in another way than by the point, which is kept: types survive.
        assert {name: str(dtype) for name, dtype in got.dtypes.items()} == {
            name: str(dtype) for name, dtype in expected.dtypes.items()
        }
    pd.testing.assert_frame_equal(got, expected)


@given(frame=frames())
def test_tables_come_back_from_csv_up_to_the_last_bit(frame: pd.DataFrame) -> None:
    got = decode(encode_table(frame, CSV), CSV)
    pd.testing.assert_frame_equal(got, canonical(frame), check_exact=False, rtol=1e-15, atol=0)


@given(frame=frames())
def test_the_format_makes_no_difference(frame: pd.DataFrame) -> None:
    first, *others = (decode(encode_table(frame, content_type), content_type) for content_type in ALL)
    for other in others:
        pd.testing.assert_frame_equal(first, other, check_exact=False, rtol=1e-15, atol=0)


@given(frame=frames(), content_type=st.sampled_from(ALL))
def test_one_row_has_the_values_it_has_among_others(frame: pd.DataFrame, content_type: str) -> None:
    whole = decode(encode_table(frame, content_type), content_type)
    for row in range(len(frame)):
        alone = decode(encode_table(frame.iloc[row : row + 1].reset_index(drop=True), content_type), content_type)
        for name in frame.columns:
            one, same = alone[name].tolist()[0], whole[name].tolist()[row]
            assert one == same or (one != one and same != same)


@pytest.mark.parametrize("content_type", ALL)
@given(values=st.lists(st.floats(), min_size=1, max_size=8), dtype=st.sampled_from(["float64", "float32"]))
def test_predicted_numbers_come_back_exactly(content_type: str, values: Any, dtype: str) -> None:
    with np.errstate(over="ignore"):
        column = np.array(values).astype(dtype)
    predictions = Predictions(TargetType.BINARY, {"a": column, "b": column}, len(values))
    body = encode_predictions(predictions, content_type)
    if content_type == JSON:
        body = body[len('{"predictions":') : -1]
        column = np.where(np.isfinite(column), column, np.nan)
    if content_type == CSV:
        got = [float(line.split(",")[0] or "nan") for line in body.decode().splitlines()[1:]]
    else:
        got = decode(body, content_type)["a"].tolist()
    np.testing.assert_array_equal(np.array(got, dtype="float64"), column.astype("float64"))


@pytest.mark.parametrize("content_type", ALL)
@given(texts=st.lists(st.text(), min_size=1, max_size=5))
def test_any_text_is_answered(content_type: str, texts: Any) -> None:
    predictions = Predictions(
        TargetType.TEXT_GENERATION, {'te"x,t': texts}, len(texts), pd.DataFrame({"n": range(len(texts))})
    )
    assert encode_predictions(predictions, content_type)


@pytest.mark.parametrize("content_type", [JSON, ARROW, PARQUET])
@given(texts=st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_generated_text_comes_back(content_type: str, texts: Any) -> None:
    predictions = Predictions(TargetType.TEXT_GENERATION, {"text": texts}, len(texts))
    if content_type == JSON:
        assert json.loads(encode_predictions(predictions, JSON))["predictions"] == texts
    else:
        assert decode(encode_predictions(predictions, content_type), content_type)["text"].tolist() == texts
