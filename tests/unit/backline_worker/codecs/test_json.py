from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backline_worker.codecs import encode_predictions, encode_table
from backline_worker.contract.target_types import Predictions, TargetType
from backline_worker.errors import DecodeError, DecompressedTooLarge, EmptyBody
from tests.unit.backline_worker.codecs.bodies import decode

JSON = "application/json"


def predictions(target_type: str, columns: Any, rows: int, extra: Any = None) -> Predictions:
    return Predictions(TargetType(target_type), columns, rows, extra)


def test_records_and_split_form_read_as_the_same_table() -> None:
    records = decode(b'[{"a": 1, "b": "x"}, {"a": 2.5, "b": null}]', JSON)
    split = decode(b'{"columns": ["a", "b"], "index": [7, 8], "data": [[1, "x"], [2.5, null]]}', JSON)
    pd.testing.assert_frame_equal(records, split)
    assert records["a"].tolist() == [1.0, 2.5]
    assert records["b"].tolist()[0] == "x" and math.isnan(records["b"].tolist()[1])


MLFLOW_FORMS = (
    b'{"dataframe_records": [{"a": 1, "b": 2.5}, {"a": 3, "b": 4}]}',
    b'{"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2.5], [3, 4]]}}',
    b'{"instances": [{"a": 1, "b": 2.5}, {"a": 3, "b": 4}]}',
    b'{"inputs": {"a": [1, 3], "b": [2.5, 4]}}',
)


@pytest.mark.parametrize("body", MLFLOW_FORMS)
def test_the_forms_of_mlflow_read_as_the_same_table(body: bytes) -> None:
    pd.testing.assert_frame_equal(decode(body, JSON), pd.DataFrame({"a": [1, 3], "b": [2.5, 4.0]}))


@pytest.mark.parametrize("wrapper", ["instances", "inputs"])
def test_rows_without_names_are_named_by_their_places(wrapper: str) -> None:
    frame = decode(json.dumps({wrapper: [[1, 2.5], [3, 4]]}).encode(), JSON)
    assert frame.columns.tolist() == [0, 1]
    assert frame[1].tolist() == [2.5, 4.0]
    assert decode(json.dumps({wrapper: [1, 2, 3]}).encode(), JSON)[0].tolist() == [1, 2, 3]


def test_json_lines_read_as_records() -> None:
    body = '{"a": 1, "b": "x\u2028y"}\r\n\n{"b": "z", "a": 2}'.encode()
    for content_type, filename in (("application/x-ndjson", None), ("application/jsonl", None), ("", "x.jsonl")):
        frame = decode(body, content_type, filename=filename)
        assert frame.to_dict("list") == {"a": [1, 2], "b": ["x\u2028y", "z"]}


def test_a_column_without_values_is_a_float_column_in_one_row_as_in_many() -> None:
    for rows in (1, 1000):
        frame = decode(json.dumps([{"a": None, "b": 1}] * rows).encode(), JSON)
        assert frame.dtypes.astype(str).to_dict() == {"a": "float64", "b": "int64"}
        assert frame["a"].isnull().all()


def test_missing_keys_are_missing_values_and_columns_keep_their_order() -> None:
    frame = decode(b'[{"b": 1}, {"a": "x", "b": 2}, {"c": true}]', JSON)
    assert list(frame.columns) == ["b", "a", "c"]
    assert frame.isnull().values.tolist() == [[False, True, True], [False, False, True], [True, True, False]]


def test_huge_integers_and_nested_values_are_kept() -> None:
    frame = decode(b'[{"u": 18446744073709551615, "h": 18446744073709551616, "l": [1, {"a": null}], "d": {}}]', JSON)
    assert frame["u"].tolist() == [2**64 - 1] and frame["h"].tolist() == [2**64]
    assert frame["l"].tolist() == [[1, {"a": None}]] and frame["d"].tolist() == [{}]


def test_of_repeated_keys_the_last_one_counts() -> None:
    assert decode(b'[{"a": 1, "a": 2}]', JSON)["a"].tolist() == [2]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": 1}', "one object and not in split form"),
        (b'{"data": [{"a": 1}]}', "not in split form"),
        (b'{"columns": ["a"], "data": [[1]], "x": 1}', r"\$\.x is not part"),
        (b'[{"a": 1}, 2]', r"\$\[1\] is a number, not a record"),
        (b'[{"a": 1}, null]', r"\$\[1\] is a null"),
        (b"[[1, 2]]", r"\$\[0\] is a list"),
        (b"3", "is a number, not a table"),
        (b'{"instances": [[1]], "inputs": [[1]]}', "exactly one of"),
        (b'{"instances": [[1]], "params": {"a": 1}}', "exactly one of"),
        (b'{"instances": [[1], [1, 2]]}', r"\$\.instances\[1\] is not a row"),
        (b'{"instances": [[1], 2]}', r"\$\.instances\[1\]"),
        (b'{"instances": [[]]}', r"\$\.instances\[0\]"),
        (b'{"instances": 3}', r"\$\.instances is a number"),
        (b'{"dataframe_records": [[1]]}', r"\$\.dataframe_records\[0\] is a list"),
        (b'{"dataframe_split": [[1]]}', r"\$\.dataframe_split is a list"),
        (b'{"inputs": {"a": [1], "b": [1, 2]}}', "one length"),
        (b'{"inputs": {"a": 1}}', "one length"),
        (b'{"inputs": {}}', "one length"),
        (b'"x"', "is a string"),
        (b"[{}]", "no columns"),
        (b'{"columns": ["a", "b"], "data": [[1, 2], [1]]}', r"\$\.data\[1\] has 1 values where \$\.columns has 2"),
        (b'{"columns": ["a"], "data": [{"a": 1}]}', r"\$\.data\[0\] is an object"),
        (b'{"columns": ["a", "a"], "data": [[1, 2]]}', "'a' twice"),
        (b'{"columns": [null], "data": [[1]]}', r"\$\.columns\[0\]"),
        (b'{"columns": [], "data": []}', "empty"),
        (b'{"columns": ["a"], "index": [1, 2], "data": [[1]]}', r"\$\.index"),
        (b'[{"a": NaN}]', "bare NaN.*null"),
        (b'[{"a": -Infinity}]', "bare -Infinity"),
        (b'[{"a": 1},]', "malformed: .* line 1 column"),
        (b'[{"a": 1}\n', "line 2 column 1"),
        (b"[" * 200_000, "nested too deeply"),
        (b'[{"a":' * 100_000, "nested too deeply"),
        (b'[{"a": ' + b"1" * 5000 + b"}]", "number that cannot be read"),
        (b'[{"a": "\xff"}]', r"0xff at offset 8"),
        (b'[{"a": "\\ud800"}]', "half a character"),
        (b'[{"\\udfff": 1}]', "half a character"),
        (b'[{"a": "x\ny"}]', "malformed"),
    ],
)
def test_what_is_no_table_is_refused_by_path(body: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        decode(body, JSON)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"  ",
        b"\xef\xbb\xbf",
        b"[]",
        b'{"columns": ["a"], "data": []}',
        b'{"instances": []}',
        b'{"inputs": {"a": []}}',
        b'{"dataframe_records": []}',
    ],
)
def test_a_body_without_rows_is_empty(body: bytes) -> None:
    with pytest.raises(EmptyBody):
        decode(body, JSON)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"a": 1}\n[1]\n', "line 2 .* is a list"),
        (b'{"a": 1}\n{"a": \n', "line 2 .* malformed"),
        (b'{"a": NaN}', "line 1"),
    ],
)
def test_a_bad_json_line_is_refused_by_its_number(body: bytes, words: str) -> None:
    with pytest.raises(DecodeError, match=words):
        decode(body, "application/x-ndjson")


def test_surrogate_pairs_and_byte_order_marks_are_read() -> None:
    assert decode(b'\xef\xbb\xbf[{"a": "\\ud83d\\ude00"}]', JSON)["a"].tolist() == ["\U0001f600"]


def test_records_that_share_no_column_cannot_grow_into_rows_times_rows() -> None:
    body = json.dumps([{f"c{row}": 1} for row in range(5000)]).encode()
    with pytest.raises(DecompressedTooLarge, match="5000 rows"):
        decode(body, JSON, max_bytes=8 << 20)


def test_one_value_per_row_for_a_regression() -> None:
    answer = encode_predictions(predictions("regression", {"Predictions": np.array([1.5, np.nan, np.inf])}, 3), JSON)
    assert answer == b'{"predictions":[1.5,null,null]}'


def test_one_object_per_row_for_classes_in_the_order_of_the_columns() -> None:
    columns = {"yes": np.array([0.25, 1.0]), 'a "%s"': np.array([0.75, 0.0])}
    answer = encode_predictions(predictions("binary", columns, 2), JSON)
    assert answer == b'{"predictions":[{"yes":0.25,"a \\"%s\\"":0.75},{"yes":1.0,"a \\"%s\\"":0.0}]}'


def test_float32_is_widened_exactly() -> None:
    value = np.float32(0.1)
    answer = encode_predictions(predictions("anomaly", {"Predictions": np.array([value])}, 1), JSON)
    assert json.loads(answer)["predictions"] == [float(value)]


def test_extra_columns_come_in_split_form() -> None:
    extra = pd.DataFrame({"why": ["ü", None], "n": [1, 2], "when": pd.to_datetime(["2020-01-01", None])})
    answer = json.loads(encode_predictions(predictions("regression", {"Predictions": [1, 2]}, 2, extra), JSON))
    assert answer == {
        "predictions": [1, 2],
        "extraModelOutput": {
            "columns": ["why", "n", "when"],
            "index": [0, 1],
            "data": [["ü", 1, "2020-01-01T00:00:00"], [None, 2, None]],
        },
    }


def test_extra_columns_of_one_name_are_both_there() -> None:
    extra = pd.DataFrame([[1, 2]], columns=["x", "x"])
    answer = json.loads(encode_predictions(predictions("regression", {"Predictions": [1]}, 1, extra), JSON))
    assert answer["extraModelOutput"]["data"] == [[1, 2]]


def test_text_is_utf8_and_lone_surrogates_are_escaped() -> None:
    texts = ["grün", "a\ud800b", '"\\\n', "\udcff"]
    answer = encode_predictions(predictions("textgeneration", {"text": texts}, 4), JSON)
    assert "grün".encode() in answer
    assert json.loads(answer)["predictions"] == texts


def test_values_of_any_kind_do_not_stop_the_answer() -> None:
    values = [
        np.int64(3),
        np.float32(0.5),
        np.bool_(True),
        np.array([1, np.nan]),
        b"\xff",
        object,
        pd.NA,
        pd.NaT,
        {1: 2},
    ]
    answer = json.loads(encode_predictions(predictions("vectordatabase", {"x": values}, len(values)), JSON))
    assert answer["predictions"][:4] == [3, 0.5, True, [1.0, None]]
    assert answer["predictions"][6:] == [None, None, {"1": 2}]


def test_years_that_python_has_no_dates_for_are_written_too() -> None:
    far = np.array(["-144169-01-01T00:00:00", "20000-01-01T00:00:00"], dtype="datetime64[s]")
    column = pd.Series(far)
    if str(column.dtype) != "datetime64[s]":
        pytest.skip("pandas before 2 keeps times in nanoseconds only")
    for values, zone in ((column, ""), (column.dt.tz_localize("UTC"), "+00:00")):
        answer = json.loads(encode_predictions(predictions("vectordatabase", {"x": values}, 2), JSON))
        assert answer["predictions"] == [f"{text}{zone}" for text in far.astype(str)]


@given(st.lists(st.floats(), max_size=30), st.sampled_from(["float64", "float32"]))
def test_floats_read_back_as_the_same_floats(values: Any, dtype: str) -> None:
    with np.errstate(over="ignore"):
        column = np.array(values, dtype="float64").astype(dtype)
    answer = json.loads(encode_predictions(predictions("regression", {"Predictions": column}, len(values)), JSON))
    assert answer["predictions"] == [value if math.isfinite(value) else None for value in column.tolist()]


@given(
    st.lists(
        st.dictionaries(
            st.text(max_size=3), st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text()), max_size=3
        ),
        max_size=4,
    )
)
def test_any_records_are_a_table_or_refused(records: Any) -> None:
    body = json.dumps(records).encode()
    if "NaN" in body.decode() or "Infinity" in body.decode():
        return
    try:
        frame = decode(body, JSON)
    except (DecodeError, EmptyBody):
        return
    assert len(frame) == len(records)
    for row, record in enumerate(records):
        for name, value in record.items():
            got = frame[name].tolist()[row]
            # Integers that share a column with floats or missing values become floats, as in a CSV.
            assert got == value or (value is None and got != got) or got == pytest.approx(value)


def test_what_is_written_as_lines_is_read_back() -> None:
    frame = pd.DataFrame({"p": [0.1, 1e-300, float("nan")], "text": ["a\nb", "é", None], "n": [1, 2, 3]})
    body = encode_table(frame, "application/x-ndjson")
    assert body.count(b"\n") == 3
    pd.testing.assert_frame_equal(decode(body, "application/x-ndjson"), frame, check_exact=True)


@given(
    st.lists(
        st.one_of(st.none(), st.booleans(), st.floats(allow_nan=False, allow_infinity=False), st.integers()),
        min_size=1,
        max_size=4,
    )
)
@example([2**63, -1])
@example([2**63])
@example([1, 2**64])
def test_a_column_is_typed_as_pandas_types_its_values(values: Any) -> None:
    expected = pd.DataFrame({"a": pd.Series([math.nan if value is None else value for value in values])})
    got = decode(json.dumps([{"a": value} for value in values]).encode(), JSON)
    pd.testing.assert_frame_equal(got, expected, check_exact=True)
