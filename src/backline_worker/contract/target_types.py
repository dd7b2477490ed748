"""What a model predicts: the target types of the contract, the class labels, and predictions by column."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from pandas import DataFrame


class TargetType(str, enum.Enum):
    """The kind of answer a model gives; the values are the contract's spelling."""

    REGRESSION = "regression"
    BINARY = "binary"
    MULTICLASS = "multiclass"
    ANOMALY = "anomaly"
    TEXT_GENERATION = "textgeneration"
    UNSTRUCTURED = "unstructured"
    TRANSFORM = "transform"
    GEO_POINT = "geopoint"
    VECTOR_DATABASE = "vectordatabase"
    AGENTIC_WORKFLOW = "agenticworkflow"

    @property
    def has_class_labels(self) -> bool:
        """Whether predictions are probabilities of class labels."""
        return self in (TargetType.BINARY, TargetType.MULTICLASS)

    @property
    def is_llm(self) -> bool:
        """Whether the model is one that a models list names."""
        return self in (TargetType.TEXT_GENERATION, TargetType.AGENTIC_WORKFLOW)


def parse_target_type(text: str) -> TargetType:
    """Return the target type for any spelling: ``text-generation``, ``TextGeneration``, ``text_generation``.

    Raises ``ValueError`` naming the known ones.
    """
    value = text.strip().lower().replace("-", "").replace("_", "").replace(" ", "")
    try:
        return TargetType(value)
    except ValueError:
        known = ", ".join(member.value for member in TargetType)
        raise ValueError("unknown target type {!r}; known are {}".format(text, known)) from None


@dataclass(frozen=True)
class Target:
    """What predictions have to look like.

    ``labels`` are in the contract's order, the positive one first for binary; empty for other target types.
    ``strict`` switches the checks of probabilities (their sum, missing values) on.
    """

    type: TargetType
    name: Optional[str] = None
    labels: Tuple[str, ...] = ()
    latitude_column: str = "latitude"
    longitude_column: str = "longitude"
    strict: bool = True


@dataclass(frozen=True)
class Predictions:
    """Checked predictions of ``rows`` rows, by column, in the contract's order (binary: positive label first).

    ``columns`` maps a name to a numpy array or a list of length ``rows``, scalars of the model's own type.
    ``extra`` is extra model output: the columns beyond those that the target type asks for.
    """

    target_type: TargetType
    columns: Dict[str, Sequence[Any]]
    rows: int
    extra: Optional[DataFrame] = None


def match_labels(labels: Sequence[str], classes: Sequence[Any]) -> Optional[List[int]]:
    """Return for each label the position of its class, or ``None`` when they are not the same set.

    Classes are what a library or a hook has: 1, 1.0, True, numpy scalars, bytes or text. They are compared as text
    first. Only where that does not pair all of them, numbers are compared by value and truth values as 1 and 0, so
    that the label ``"1"`` finds the class ``1.0`` or ``True``.
    """
    if len(labels) > len(classes):
        return None
    for spelling in (label_text, _label_value):
        positions: Dict[str, int] = {}
        for position, value in enumerate(classes):
            positions.setdefault(spelling(value), position)
        found = [positions.get(spelling(label)) for label in labels]
        matched = [position for position in found if position is not None]
        if len(matched) == len(labels) and len(set(matched)) == len(labels):
            return matched
    return None


def label_text(value: Any) -> str:
    """Return a class as text, bytes decoded."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _label_value(value: Any) -> str:
    text = label_text(value).strip()
    if text.lower() in ("true", "false"):
        return repr(float(text.lower() == "true"))
    try:
        number = float(text)
    except ValueError:
        return text
    return text if math.isnan(number) else repr(number)
