"""What a loader of artifacts and the predictor that it makes have to offer.

A library has one file here, with one `Loader`. Loaders of other distributions are found through the entry-point group
``backline.artifacts`` of the model's environment: an entry point names a class or an object with the same attributes.
"""

from __future__ import annotations

import enum
import sys
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from pandas import DataFrame


class Kind(str, enum.Enum):
    """What a model is by itself, where the library knows."""

    CLASSIFIER = "classifier"
    REGRESSOR = "regressor"
    OUTLIER_DETECTOR = "outlier detector"
    TRANSFORMER = "transformer"


class Predictor:
    """A loaded model behind one face. Frames come with the model's own columns, in fitted order.

    ``model`` is the library's object; hooks get it. ``classes`` are the library's own class values, or ``None`` where
    it knows its classes by their numbers only, ``class_count`` of them if it says so. ``features`` are the column names
    that the model was fitted on, or ``None``; ``feature_count`` their number, which may be known where the names are
    not. ``rows_independent`` says that a row's prediction cannot depend on other rows.
    """

    library = ""
    model: Any = None
    kind: Optional[Kind] = None
    classes: Optional[Sequence[Any]] = None
    class_count: Optional[int] = None
    features: Optional[List[str]] = None
    feature_count: Optional[int] = None
    rows_independent = True
    gives_probabilities = True
    """Whether `predict_proba` has an answer; where it has none, `predict` is taken to give probabilities."""

    @property
    def library_version(self) -> Optional[str]:
        """The version of the library that is loaded."""
        return module_version(self.library)

    def column_key(self, name: str) -> str:
        """Return a column's name in the spelling of ``features``, for libraries that spell names their own way."""
        return name

    def predict(self, data: DataFrame) -> Any:
        """Return the library's own predictions, (rows,) or (rows, outputs)."""
        raise NotImplementedError

    def predict_proba(self, data: DataFrame) -> Any:
        """Return probabilities, (rows, classes), or (rows,) of the positive class; `predict`, where that gives them."""
        return self.predict(data)

    def transform(self, data: DataFrame) -> Any:
        """Return the transformed data, a frame or a matrix; ``None`` if the model transforms nothing."""
        return None


class Loader:
    """Opens the artifacts of one library. Nothing heavy is imported before ``load`` or ``wrap`` needs it."""

    name = ""
    extensions: Tuple[str, ...] = ()

    def load(self, path: str) -> Predictor:
        """Open the file; raises ``ImportError``, ``ModelLoadError`` or whatever the library raises."""
        raise NotImplementedError

    def wrap(self, model: Any) -> Optional[Predictor]:
        """Return a predictor for an object that a hook or a pickle gave, or ``None`` if it is not of this library."""
        return None


def module_version(name: str) -> Optional[str]:
    """Return the version of an imported module."""
    version = getattr(sys.modules.get(name), "__version__", None)
    return None if version is None else str(version)


def is_instance_of(model: Any, module: str, *path: str) -> bool:
    """Say whether ``model`` is an instance of a class, without importing the class's module if nobody has."""
    owner: Any = sys.modules.get(module)
    for name in path:
        owner = getattr(owner, name, None)
    return isinstance(owner, type) and isinstance(model, owner)


def plain_names(names: Optional[Sequence[Any]]) -> Optional[List[str]]:
    """Return feature names as text; ``None`` where the library made them up for an array (0, 1, ...; Column_0, ...)."""
    if names is None or not len(names):
        return None
    texts = [str(name) for name in names]
    for pattern in ("{}", "Column_{}", "f{}"):
        if all(text == pattern.format(place) for place, text in enumerate(texts)):
            return None
    return texts
