"""LightGBM's own models, in its text format. Its scikit-learn estimators go by scikit-learn's conventions."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Optional

from .base import Kind, Loader, Predictor, is_instance_of, plain_names
from .sklearn import EstimatorPredictor

if TYPE_CHECKING:
    from pandas import DataFrame

_BINARY = frozenset({"binary", "cross_entropy", "xentropy"})
_MULTICLASS = frozenset({"multiclass", "softmax", "multiclassova", "multiclass_ova", "ova", "ovr"})
_RANKING = frozenset({"lambdarank", "rank_xendcg"})


def column_key(name: str) -> str:
    """Return a column's name as LightGBM keeps it: without white space."""
    return re.sub(r"\s", "_", name)


class BoosterPredictor(Predictor):
    """A ``Booster``: what its numbers are is told by its objective."""

    library = "lightgbm"

    def __init__(self, booster: Any) -> None:
        self.model = booster
        self.features = plain_names(booster.feature_name())
        self.feature_count = int(booster.num_feature())
        header = booster.model_to_string(num_iteration=1)
        found = re.search(r"^objective=(\S+)", header, re.MULTILINE)
        self.objective = found.group(1) if found else None
        self.gives_probabilities = self.objective in _BINARY or self.objective in _MULTICLASS
        if self.gives_probabilities:
            self.kind = Kind.CLASSIFIER
            classes = re.search(r"^num_class=(\d+)", header, re.MULTILINE)
            self.class_count = max(int(classes.group(1)) if classes else 1, 2)
        elif self.objective is not None and self.objective not in _RANKING:
            self.kind = Kind.REGRESSOR

    def column_key(self, name: str) -> str:
        """Compare columns as the library names them."""
        return column_key(name)

    def predict(self, data: DataFrame) -> Any:
        """Return ``Booster.predict``."""
        return self.model.predict(data)

    def predict_proba(self, data: DataFrame) -> Any:
        """Return ``Booster.predict`` where that is probabilities; for a binary objective both classes' columns."""
        import numpy as np

        values = self.model.predict(data)
        return np.column_stack((1 - values, values)) if self.objective in _BINARY else values


class LightGBMEstimatorPredictor(EstimatorPredictor):
    """One of LightGBM's scikit-learn estimators; only the spelling of its columns is its own."""

    def column_key(self, name: str) -> str:
        """Compare columns as the library names them."""
        return column_key(name)


class LightGBMLoader(Loader):
    """Opens what ``Booster.save_model`` wrote."""

    name = "LightGBM"
    extensions = (".lgb", ".lgbm")

    def load(self, path: str) -> Predictor:
        """Load the file into a ``Booster``."""
        import lightgbm

        return BoosterPredictor(lightgbm.Booster(model_file=path))

    def wrap(self, model: Any) -> Optional[Predictor]:
        """Take a ``Booster`` or an estimator of LightGBM."""
        if is_instance_of(model, "lightgbm", "Booster"):
            return BoosterPredictor(model)
        return LightGBMEstimatorPredictor(model) if is_instance_of(model, "lightgbm", "LGBMModel") else None
