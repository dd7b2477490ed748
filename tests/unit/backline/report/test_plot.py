from __future__ import annotations

import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.report.plot import Axis, Line, line_plot, seconds_text

NUMBERS = st.floats(allow_nan=True, allow_infinity=True, width=32)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=30), st.booleans(), st.booleans())
def test_any_points_make_a_plot_within_its_frame(points: list[tuple[float, float]], log_x: bool, log_y: bool) -> None:
    figure = line_plot(
        "title <&>",
        [Line(name="a<b", points=points), Line(name="b", points=points, band=[(x, y, y) for x, y in points])],
        x=Axis(label="x", logarithmic=log_x),
        y=Axis(label="y", logarithmic=log_y, from_zero=True),
    )
    for shape in ET.fromstring(figure).iter("polyline"):
        for pair in (shape.get("points") or "").split():
            x, y = map(float, pair.split(","))
            assert 72 <= x <= 734
            assert 30 <= y <= 276


def test_what_cannot_be_drawn_is_left_out() -> None:
    figure = line_plot(
        "t",
        [Line(name="a", points=[(1, 1), (2, math.nan), (3, 0), (4, 10)])],
        x=Axis(label="x"),
        y=Axis(label="y", logarithmic=True),
    )
    shapes = list(ET.fromstring(figure).iter("polyline"))
    assert len((shapes[0].get("points") or "").split()) == 2


def test_thousands_of_points_become_some_hundred_and_keep_the_last() -> None:
    points = [(float(x), float(x)) for x in range(10_000)]
    figure = line_plot("t", [Line(name="a", points=points)], x=Axis(label="x"), y=Axis(label="y"))
    drawn = (next(ET.fromstring(figure).iter("polyline")).get("points") or "").split()
    assert len(drawn) <= 402
    assert drawn[-1] == "734.0,30.0"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00084, "840 µs"), (0.0123, "12.3 ms"), (2.5, "2.5 s"), (0.5, "500 ms")]
)
def test_durations_are_written_in_their_unit(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
