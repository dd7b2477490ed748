"""Examples for the documentation: rows and predictions of the model that is served, as far as they are known."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any, Final

from backline_worker.codecs.formats import CSV

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FALLBACK_CSV: Final = "age,income\n39,51000\n"
_MAX_EXAMPLE_COLUMNS: Final = 50


class ModelExample:
    """One row of the model's and the answer to it: its own where ``info`` has it, else made up.

    ``info`` is the loaded model's description with what its warm-up brought under ``warm_up``; it may be empty.
    """

    def __init__(self, info: Mapping[str, Any]) -> None:
        self.target_type = str(info.get("target_type") or "")
        self.target_name = str(info.get("target_name") or "")
        self.labels = [str(label) for label in info.get("class_labels") or ()]
        self.library = " ".join(str(info[key]) for key in ("library", "library_version") if info.get(key))
        warm_up = info.get("warm_up") or {}
        self.warm_up_type = str(warm_up.get("content_type") or "")
        self.warm_up_body = str(warm_up.get("body") or "")
        features = [str(name) for name in info.get("features") or ()]
        if self.warm_up_type.startswith(CSV):
            self.csv = self.warm_up_body
        elif 0 < len(features) <= _MAX_EXAMPLE_COLUMNS:
            self.csv = _csv_line(features) + _csv_line(["0"] * len(features))
        else:
            self.csv = _FALLBACK_CSV

    @property
    def records(self) -> list[dict[str, Any]]:
        """The example rows as JSON records, numbers as numbers."""
        return [
            {name: _number(cell) for name, cell in row.items() if name is not None}
            for row in csv.DictReader(io.StringIO(self.csv))
        ]

    @property
    def predictions(self) -> list[Any]:
        """The answer's shape for one row; the values are made up."""
        match self.target_type:
            case "binary" | "multiclass":
                labels = self.labels or (["yes", "no"] if self.target_type == "binary" else ["a", "b", "c"])
                # Shares that add up to one exactly, whatever the number of labels.
                return [{label: 0.75 if i == 0 else 0.25 / (len(labels) - 1) for i, label in enumerate(labels)}]
            case "textgeneration":
                return ["Twelve days from the order."]
            case "vectordatabase":
                return ["A passage that is near to the question."]
            case "geopoint":
                return [{"latitude": 52.52, "longitude": 13.4}]
            case _:
                return [12.5]

    @property
    def predictions_csv(self) -> str:
        """The answer as CSV."""
        [first] = self.predictions
        row = first if isinstance(first, dict) else {self._column: first}
        return _csv_line(list(row)) + _csv_line([str(value) for value in row.values()])

    @property
    def _column(self) -> str:
        return self.target_name or "completion" if self.target_type == "textgeneration" else "Predictions"


def _csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _number(cell: object) -> object:
    """Return a cell as JSON has it: numbers as numbers, an empty one as null."""
    if cell == "" or not isinstance(cell, str):
        return None
    try:
        value = json.loads(cell)
    except ValueError:
        return cell
    # NaN and Infinity are read by Python's parser, and are no JSON.
    return value if type(value) in (int, float) and value - value == 0 else cell
