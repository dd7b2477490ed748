from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from backline_worker.codecs import csv, json
from backline_worker.score import fast_text

FLOATS = st.one_of(
    st.floats(),
    st.floats(0, 1),
    st.sampled_from([0.0, -0.0, 1.0, 1e-4, 9.999e-5, 1e15, 1e16, 1e22, 123456789012345.6, 5e-324, float("nan")]),
    st.integers(-(2**53), 2**53).map(float),
)


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(FLOATS, FLOATS, st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=30))
def test_text_is_that_of_the_codecs(rows: list[tuple[float, float, int]]) -> None:
    first, second, third = zip(*rows, strict=True)
    columns = [("1", np.array(first)), ('a "b", c', np.array(second)), ("n", np.array(third, dtype=np.int64))]
    (whole,) = csv.encode(columns, len(rows), [len(rows)])
    _, _, body = whole.partition(b"\n")
    assert fast_text.csv_rows(columns, len(rows)) == body
    assert [fast_text.json_rows(columns, len(rows))] == json.encode_lines(columns, len(rows), [len(rows)])


def test_columns_that_are_no_numbers_are_left_to_the_codecs() -> None:
    assert fast_text.csv_rows([("a", np.array([0.5])), ("b", ["x"])], 1) is None
    assert fast_text.csv_rows([("a", np.array([float("nan")]))], 1) is None
