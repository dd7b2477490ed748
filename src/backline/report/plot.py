"""Plots as inline SVG, drawn with nothing but arithmetic: lines over linear or logarithmic scales.

Colours and dashes come from the page's style, so they follow light and dark and are told apart without colour, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from backline.report.html import Html, element, escape, joined

Point = tuple[float, float]

_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 26, 30, 44
_STYLES = 4
_MOST_POINTS = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """What an axis shows. ``ticks`` are places with their labels; without them round numbers are chosen."""

    label: str
    logarithmic: bool = False
    from_zero: bool = False
    ticks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line, and where there is one the band of its uncertainty: (x, low, high)."""

    name: str
    points: Sequence[Point]
    band: Sequence[tuple[float, float, float]] = field(default=())


def line_plot(title: str, lines: Sequence[Line], *, x: Axis, y: Axis) -> Html:
    """Return a figure with up to four lines. What is not finite, or not positive on a logarithmic axis, is left out."""
    shown = [_thinned(line, x, y) for line in lines[:_STYLES]]
    xs = [point[0] for line in shown for point in line.points]
    ys = [point[1] for line in shown for point in line.points]
    ys += [end for line in shown for _, low, high in line.band for end in (low, high)]
    if not xs:
        return element("figure", element("figcaption", f"{title}: nothing to draw"))
    across = _Scale(x, xs, _LEFT, _WIDTH - _RIGHT)
    up = _Scale(y, ys, _HEIGHT - _BOTTOM, _TOP)
    pieces = [*_grid(across, up), *_labels(x, y)]
    for number, line in enumerate(shown):
        if line.band:
            there = [f"{across(place):.1f},{up(high):.1f}" for place, _, high in line.band]
            back = [f"{across(place):.1f},{up(low):.1f}" for place, low, _ in reversed(line.band)]
            pieces.append(Html(f'<polygon class="band f{number}" points="{" ".join([*there, *back])}"/>'))
        path = " ".join(f"{across(a):.1f},{up(b):.1f}" for a, b in line.points)
        pieces.append(Html(f'<polyline class="line s{number}" points="{path}"/>'))
    pieces += _legend([line.name for line in shown])
    return element(
        "figure",
        element("svg", *pieces, class_="plot", viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=title),
        element("figcaption", title),
    )


def seconds_text(seconds: float) -> str:
    """Return a duration as people read it: 840 µs, 12.3 ms, 2.50 s."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


class _Scale:
    def __init__(self, axis: Axis, values: Sequence[float], start: float, end: float) -> None:
        self._axis = axis
        self._take: Callable[[float], float] = math.log10 if axis.logarithmic else float
        low, high = min(values), max(values)
        if axis.from_zero and not axis.logarithmic:
            low = min(low, 0.0)
        if axis.ticks:
            low, high = min(low, axis.ticks[0][0]), max(high, axis.ticks[-1][0])
        self._low, self._high = self._take(low), self._take(high)
        largest = max(abs(self._low), abs(self._high))
        if self._high - self._low <= 1e-9 * largest or largest < 1e-200:  # one value, or as good as one
            around = 0.5 * largest if largest > 1 else 0.5
            self._low, self._high = self._low - around, self._high + around
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        return self._start + (self._take(value) - self._low) / (self._high - self._low) * (self._end - self._start)

    def ticks(self) -> list[tuple[float, str]]:
        if self._axis.ticks:
            return list(self._axis.ticks)
        if self._axis.logarithmic:
            return [(value, f"{value:.6g}") for value in _log_ticks(self._low, self._high)]
        step = 10 ** math.floor(math.log10((self._high - self._low) / 4))
        step *= next(each for each in (1, 2, 5, 10) if (self._high - self._low) / (step * each) <= 6)
        first = math.ceil(self._low / step - 1e-9)
        last = math.floor(self._high / step + 1e-9)
        return [(number * step, f"{number * step:.6g}") for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    marks = (1, 2, 5) if high - low < 2.5 else (1,)
    every = max(1, math.ceil((high - low) / 6)) if len(marks) == 1 else 1
    return [
        mark * 10.0**power
        for power in range(math.floor(low), math.ceil(high) + 1, every)
        for mark in marks
        if low - 1e-9 <= math.log10(mark * 10.0**power) <= high + 1e-9
    ]


def _thinned(line: Line, x: Axis, y: Axis) -> Line:
    def fits(axis: Axis, value: float) -> bool:
        return math.isfinite(value) and (value > 0 or not axis.logarithmic)

    points = [point for point in line.points if fits(x, point[0]) and fits(y, point[1])]
    step = math.ceil(len(points) / _MOST_POINTS)
    if step > 1:
        points = [*points[::step], points[-1]]
    band = [each for each in line.band if fits(x, each[0]) and fits(y, each[1]) and fits(y, each[2])]
    return Line(name=line.name, points=points, band=band)


def _grid(across: _Scale, up: _Scale) -> Iterable[Html]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for value, text in across.ticks():
        place = f"{across(value):.1f}"
        yield Html(f'<line class="grid" x1="{place}" y1="{_TOP}" x2="{place}" y2="{bottom}"/>')
        yield Html(f'<text x="{place}" y="{bottom + 16}" text-anchor="middle">{escape(text)}</text>')
    for value, text in up.ticks():
        place = f"{up(value):.1f}"
        yield Html(f'<line class="grid" x1="{_LEFT}" y1="{place}" x2="{right}" y2="{place}"/>')
        yield Html(f'<text x="{_LEFT - 6}" y="{place}" dy="4" text-anchor="end">{escape(text)}</text>')


def _labels(x: Axis, y: Axis) -> Iterable[Html]:
    yield Html(
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:.0f}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>'
    )
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    yield Html(
        f'<text x="14" y="{middle:.0f}" text-anchor="middle" transform="rotate(-90 14 {middle:.0f})">'
        f"{escape(y.label)}</text>"
    )


def _legend(names: Sequence[str]) -> Iterable[Html]:
    if len(names) < 2:
        return
    width = (_WIDTH - _LEFT - _RIGHT) / len(names)
    for number, name in enumerate(names):
        left = _LEFT + number * width
        label = name if len(name) * 7 < width - 36 else name[: int(width / 7) - 6] + "…"
        yield joined(
            [
                Html(f'<line class="line s{number}" x1="{left:.0f}" y1="14" x2="{left + 24:.0f}" y2="14"/>'),
                Html(f'<text x="{left + 30:.0f}" y="18">{escape(label)}</text>'),
            ]
        )
