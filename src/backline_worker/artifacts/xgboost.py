"""XGBoost's native models. Its scikit-learn estimators, and pickles of them, go by scikit-learn's conventions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Optional

from .base import Kind, Loader, Predictor, is_instance_of, plain_names

if TYPE_CHECKING:
    from pandas import DataFrame

_PROBABILITY = "binary:logistic"
_SOFT_MAX = "multi:softmax"
_SOFT_PROBABILITY = "multi:softprob"


class BoosterPredictor(Predictor):
    """A ``Booster``: what its numbers are is told by its objective."""

    library = "xgboost"

    def __init__(self, booster: Any) -> None:
        self.model = booster
        learner = json.loads(booster.save_config())["learner"]
        self.objective: str = learner["objective"]["name"]
        self.features = plain_names(booster.feature_names)
        self.feature_count = int(booster.num_features())
        self.gives_probabilities = self.objective in (_PROBABILITY, _SOFT_PROBABILITY, _SOFT_MAX)
        self._probabilities = booster
        if self.objective.startswith(("binary:", "multi:")):
            self.kind = Kind.CLASSIFIER
            self.class_count = max(int(learner["learner_model_param"]["num_class"]), 2)
        elif self.objective.startswith(("reg:", "count:")):
            self.kind = Kind.REGRESSOR
        if self.objective == _SOFT_MAX:
            # The same trees, asked for the probabilities that the class is chosen by.
            self._probabilities = booster.copy()
            self._probabilities.set_param({"objective": _SOFT_PROBABILITY})

    def predict(self, data: DataFrame) -> Any:
        """Return ``Booster.predict``."""
        return self._predict(self.model, data)

    def predict_proba(self, data: DataFrame) -> Any:
        """Return ``Booster.predict`` where that is probabilities; for a binary objective both classes' columns."""
        import numpy as np

        values = self._predict(self._probabilities, data)
        return np.column_stack((1 - values, values)) if self.objective == _PROBABILITY else values

    def _predict(self, booster: Any, data: DataFrame) -> Any:
        import xgboost

        categorical = any(type(dtype).__name__ == "CategoricalDtype" for dtype in data.dtypes)
        if self.features is None and booster.feature_names is None:
            # Fitted on an array: the library refuses names that it was not fitted with.
            return booster.predict(xgboost.DMatrix(data.to_numpy()))
        if self.features is None:
            data = data.set_axis(booster.feature_names, axis=1)
        return booster.predict(xgboost.DMatrix(data, enable_categorical=categorical))


class XGBoostLoader(Loader):
    """Opens what ``save_model`` wrote."""

    name = "XGBoost"
    extensions = (".ubj", ".bst", ".xgb")

    def load(self, path: str) -> Predictor:
        """Load the file into a ``Booster``."""
        import xgboost

        with open(path, "rb") as file:
            content = bytearray(file.read())
        # From memory the format is told by the content; from a path by the extension, and it knows but .ubj and .json.
        return BoosterPredictor(xgboost.Booster(model_file=content))

    def wrap(self, model: Any) -> Optional[Predictor]:
        """Take a ``Booster``."""
        return BoosterPredictor(model) if is_instance_of(model, "xgboost", "Booster") else None
