"""Checks that what a model returned fits its target type, and makes predictions by column of it.

A message says what was returned, what was expected, and who returned it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

from ..errors import ResultInvalid
from .target_types import Predictions, Target, TargetType, match_labels

if TYPE_CHECKING:
    from pandas import DataFrame

PREDICTIONS = "Predictions"
PROBABILITY_SUM_TOLERANCE = 1e-3
_SHOWN_NAMES = 12


def check_result(frame: Any, target: Target, rows: int, *, source: str = "score") -> Predictions:
    """Return the checked predictions in what the hook ``source`` returned for ``rows`` rows.

    Columns are found by name, whatever their order; those beyond the required ones become extra model output.
    Raises ``ResultInvalid``.
    """
    import pandas as pd

    if not isinstance(frame, pd.DataFrame):
        raise ResultInvalid(
            "{} returned {}; expected a pandas DataFrame with {}".format(source, _described(frame), expected(target))
        )
    if len(frame) != rows:
        raise ResultInvalid(
            "{} returned {} rows for {} rows of input; expected one row of predictions for each row".format(
                source, len(frame), rows
            )
        )
    positions = _required_positions(frame, target, source)
    columns: Dict[str, Sequence[Any]] = {}
    names = _output_names(frame, target, positions)
    for name, position in zip(names, positions):
        column = frame.iloc[:, position]
        if target.type in _FREE_TYPES or target.type is TargetType.TEXT_GENERATION:
            columns[name] = column.tolist()
        else:
            columns[name] = _numeric(column.to_numpy(), name, target, source)
    if target.type.has_class_labels and target.strict:
        _check_probabilities(list(columns.values()), target, source)
    rest = [position for position in range(len(frame.columns)) if position not in set(positions)]
    return Predictions(target.type, columns, rows, frame.iloc[:, rest] if rest else None)


def check_values(values: Any, target: Target, rows: int, *, source: str) -> Predictions:
    """Return the checked predictions of a library's ``predict``: an array of shape (rows,), (rows, 1) or, where the
    target type has several columns, (rows, columns). Raises ``ResultInvalid``.
    """
    array = _array(values, source)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    _check_rows(array, rows, source)
    if target.type is TargetType.GEO_POINT:
        if array.ndim != 2 or array.shape[1] != 2:
            raise _wrong_shape(array, target, source)
        names = [target.latitude_column, target.longitude_column]
        columns = {name: _numeric(array[:, place], name, target, source) for place, name in enumerate(names)}
        return Predictions(target.type, columns, rows)
    if target.type is TargetType.VECTOR_DATABASE and array.ndim == 2:
        return Predictions(target.type, {str(place): array[:, place] for place in range(array.shape[1])}, rows)
    if array.ndim != 1:
        raise _wrong_shape(array, target, source)
    if target.type in (TargetType.REGRESSION, TargetType.ANOMALY):
        return Predictions(target.type, {PREDICTIONS: _numeric(array, PREDICTIONS, target, source)}, rows)
    return Predictions(target.type, {target.name or PREDICTIONS: array.tolist()}, rows)


def check_probabilities(
    values: Any, classes: Optional[Sequence[Any]], target: Target, rows: int, *, source: str
) -> Predictions:
    """Return the checked probabilities that a library gave, in the order of the target's labels.

    ``values`` has shape (rows, classes) in the order of ``classes``; where those are unknown, in the order of the
    labels (binary: negative first). One column, or a flat array, is the positive class's probability. Raises
    ``ResultInvalid``.
    """
    array = _array(values, source)
    if array.ndim == 1:
        array = array.reshape(-1, 1)
    _check_rows(array, rows, source)
    if array.ndim != 2:
        raise _wrong_shape(array, target, source)
    labels = target.labels
    if array.shape[1] == 1 and target.type is TargetType.BINARY:
        positive = _numeric(array[:, 0], labels[0], target, source)
        if target.strict and len(positive) and not ((positive >= 0) & (positive <= 1)).all():
            raise ResultInvalid(
                "{} returned one column with values outside 0..1 (or missing); "
                "expected the probability of class {!r}".format(source, labels[0])
            )
        return Predictions(target.type, {labels[0]: positive, labels[1]: 1 - positive}, rows)
    if array.shape[1] != len(labels):
        raise _wrong_shape(array, target, source)
    order = class_order(labels, classes, target.type, source)
    columns = {label: _numeric(array[:, place], label, target, source) for label, place in zip(labels, order)}
    if target.strict:
        _check_probabilities(list(columns.values()), target, source)
    return Predictions(target.type, columns, rows)


def class_order(labels: Sequence[str], classes: Optional[Sequence[Any]], kind: TargetType, source: str) -> List[int]:
    """Return for each label the column it has in a library's output; raises ``ResultInvalid`` on foreign labels."""
    if classes is None:
        return [1, 0] if kind is TargetType.BINARY else list(range(len(labels)))
    order = match_labels(labels, classes)
    if order is None:
        raise ResultInvalid(
            "the classes that {} knows, {}, are not the class labels {}".format(source, _names(classes), _names(labels))
        )
    return order


def to_frame(predictions: Predictions) -> DataFrame:
    """Return predictions as the frame that ``post_process`` takes."""
    import pandas as pd

    return pd.DataFrame(predictions.columns)


def expected(target: Target) -> str:
    """Say in words which columns the target type asks for."""
    if target.type.has_class_labels:
        return "one column of probabilities for each class label: {}".format(_names(target.labels))
    if target.type is TargetType.TEXT_GENERATION:
        if target.name is None:
            return "one column of text, named like the target"
        return "a column of text named {!r} (the target name)".format(target.name)
    if target.type is TargetType.GEO_POINT:
        return "two numeric columns, {!r} and {!r}".format(target.latitude_column, target.longitude_column)
    if target.type in _FREE_TYPES:
        return "at least one column"
    return "a numeric column named {!r}".format(PREDICTIONS)


_FREE_TYPES = frozenset(
    {TargetType.VECTOR_DATABASE, TargetType.AGENTIC_WORKFLOW, TargetType.UNSTRUCTURED, TargetType.TRANSFORM}
)


def _required_positions(frame: DataFrame, target: Target, source: str) -> List[int]:
    """Return the positions of the columns that the target type asks for, in the contract's order."""
    names = list(frame.columns)
    positions: Optional[List[int]]
    if target.type.has_class_labels:
        positions = match_labels(target.labels, names)
    elif target.type is TargetType.GEO_POINT:
        positions = match_labels([target.latitude_column, target.longitude_column], names)
        if positions is None and len(names) == 2:
            positions = [0, 1]
    elif target.type in _FREE_TYPES:
        positions = list(range(len(names))) or None
        if target.type is TargetType.AGENTIC_WORKFLOW and target.name in names:
            positions = [names.index(target.name)]
    elif target.type is TargetType.TEXT_GENERATION and target.name is None:
        positions = [0] if len(names) == 1 else None
    else:
        wanted = target.name if target.type is TargetType.TEXT_GENERATION else PREDICTIONS
        positions = [names.index(wanted)] if wanted in names else None
    if positions is None:
        raise ResultInvalid("{} returned the columns {}; expected {}".format(source, _names(names), expected(target)))
    if len(set(map(str, names))) != len(names):
        repeated = sorted({str(name) for name in names if list(map(str, names)).count(str(name)) > 1})
        raise ResultInvalid("{} returned several columns with the same name: {}".format(source, _names(repeated)))
    return positions


def _output_names(frame: DataFrame, target: Target, positions: Sequence[int]) -> List[str]:
    if target.type.has_class_labels:
        return list(target.labels)
    return [str(frame.columns[position]) for position in positions]


def _numeric(values: Any, name: str, target: Target, source: str) -> Any:
    import numpy as np

    if values.dtype.kind in "iuf":
        return values
    try:
        if values.dtype.kind == "b":
            return values.astype(np.int64)
        # An object column of numbers is common after row-wise work; text is not taken for numbers. None is missing.
        items = values.tolist()
        if any(isinstance(item, (str, bytes)) for item in items):
            raise ValueError
        return np.array([np.nan if item is None else item for item in items], dtype=np.float64)
    except (ValueError, TypeError):
        sample = next((item for item in values.tolist() if not isinstance(item, (int, float))), None)
        raise ResultInvalid(
            "{} returned {} in column {!r} (for instance {!r}); expected {}".format(
                source, values.dtype, name, sample, expected(target)
            )
        ) from None


def _check_probabilities(columns: Sequence[Any], target: Target, source: str) -> None:
    """Raise unless every row's probabilities are present and sum to one."""
    import numpy as np

    total = np.zeros(len(columns[0]), dtype=np.float64)
    for column in columns:
        total += column
    # A comparison with NaN is false, so this one pass finds missing values too.
    wrong = np.flatnonzero(~(np.abs(total - 1.0) <= PROBABILITY_SUM_TOLERANCE))
    if not len(wrong):
        return
    row = int(wrong[0])
    shown = ", ".join("{}={!r}".format(label, float(column[row])) for label, column in zip(target.labels, columns))
    problem = "are missing (NaN)" if np.isnan(total[row]) else "sum to {:.6g}".format(total[row])
    raise ResultInvalid(
        "{} returned probabilities that {} in {} of {} rows, first in row {}: {}; "
        "expected each row to sum to 1 within {:g}".format(
            source, problem, len(wrong), len(total), row, shown, PROBABILITY_SUM_TOLERANCE
        )
    )


def _array(values: Any, source: str) -> Any:
    import numpy as np

    try:
        return np.asarray(values)
    except ValueError as exc:
        raise ResultInvalid("{} returned {}; expected an array".format(source, _described(values))) from exc


def _check_rows(array: Any, rows: int, source: str) -> None:
    if array.ndim == 0 or array.shape[0] != rows:
        raise ResultInvalid(
            "{} returned an array of shape {} for {} rows of input; expected a row of predictions for each row".format(
                source, array.shape, rows
            )
        )


def _wrong_shape(array: Any, target: Target, source: str) -> ResultInvalid:
    return ResultInvalid("{} returned an array of shape {}; expected {}".format(source, array.shape, expected(target)))


def _described(value: Any) -> str:
    if value is None:
        return "None"
    shape = getattr(value, "shape", None)
    kind = "{}.{}".format(type(value).__module__, type(value).__name__).replace("builtins.", "")
    return "{} of shape {}".format(kind, shape) if shape is not None else kind


def _names(names: Sequence[Any]) -> str:
    shown = [repr(name.item() if hasattr(name, "item") else name) for name in list(names)[:_SHOWN_NAMES]]
    more = len(names) - len(shown)
    return "[{}{}]".format(", ".join(shown), ", and {} more".format(more) if more > 0 else "")
