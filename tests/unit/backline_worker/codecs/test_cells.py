"""Many floats at a time are written as Python writes each."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from backline_worker.codecs import cells


@pytest.fixture(scope="module", autouse=True, params=["orjson", "pyarrow"])
def always_by(request: pytest.FixtureRequest) -> Iterator[None]:
    pytest.importorskip(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_MANY", 1)
        patch.setattr(cells, "available", lambda name: name == request.param)
        yield


@given(st.lists(st.floats() | st.floats(0, 1) | st.floats(-1e12, 1e12) | st.floats(5e-5, 2e-4), min_size=1))
@example(
    [0.0, -0.0, 1.0, -3.0, 1e-4, 9.999999999999999e-05, 1e10, 9999999999.5, 1e16, 5e-324, float("nan"), -float("inf")]
)
def test_floats_are_written_as_python_writes_them(values: list[float]) -> None:
    assert cells.float_texts(values) == [repr(value) for value in values]


def test_a_million_floats_are_written_as_python_writes_them() -> None:
    random = np.random.default_rng(3)
    values = np.concatenate(
        [
            random.random(400_000),
            random.random(200_000) ** 9,
            10.0 ** random.uniform(-6, 18, 200_000),
            random.integers(0, 2**64, 100_000, dtype=np.uint64).view(np.float64),
            random.random(100_000).astype(np.float32).astype(np.float64),
        ]
    ).tolist()
    assert cells.float_texts(values) == list(map(repr, values))


@given(st.lists(st.floats(), min_size=1))
def test_what_json_cannot_carry_is_found(values: list[float]) -> None:
    assert cells.are_finite(values) == all(value - value == 0 for value in values)
