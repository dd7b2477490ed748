"""Draws the plots: ``python plots.py FOLDER < series.json``, run in the environment ``report``, which has matplotlib.

Each plot is ``{"file": ..., "title": ..., "x": ..., "y": ..., "lines": {label: [[x, y], ...]}}``, both scales
logarithmic; with ``"from_zero"`` that of y is not, and starts at zero; with ``"linear"`` neither is, and nothing marks
the single points. They stand on pages that are light or dark, so
they bring a light ground of their own.
"""

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter, NullFormatter

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "backline"  # the same figures make the same file

# Told apart by hue, by brightness and by their marks.
_STYLES = [("#0b5cad", "o"), ("#d1495b", "s"), ("#5a8f29", "^"), ("#8e6bbf", "D"), ("#7a7a7a", "v")]


def draw(plot: dict[str, Any], folder: Path) -> None:
    """Write one plot as SVG."""
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    figure.patch.set_facecolor("white")
    linear = plot.get("linear")
    for (label, points), (colour, mark) in zip(plot["lines"].items(), _STYLES, strict=False):
        marker = "" if linear else mark
        axes.plot(*zip(*points, strict=True), marker=marker, color=colour, label=label, linewidth=1.8, markersize=5)
    if plot.get("from_zero"):
        axes.set_ylim(bottom=0)
    elif not linear:
        axes.set_yscale("log")
    if not linear:
        axes.set_xscale("log", base=plot.get("base", 10))
        axes.set_xticks(sorted({x for points in plot["lines"].values() for x, _ in points}))
    plain = FuncFormatter(lambda value, _: f"{value:,.10g}")
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_formatter(plain)
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(plot["x"])
    axes.set_ylabel(plot["y"])
    axes.set_title(plot["title"], loc="left")
    axes.grid(which="major", color="#d8d8d8", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(folder / plot["file"], metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for each in json.load(sys.stdin):
        draw(each, target)
