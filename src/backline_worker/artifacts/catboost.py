"""CatBoost models: its binary files, and its estimators from pickles."""

from __future__ import annotations

from typing import Any, Optional

from .base import Kind, Loader, Predictor, is_instance_of, plain_names
from .sklearn import EstimatorPredictor

_CLASSIFICATION = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll", "Focal")
_RANKING = ("YetiRank", "PairLogit", "Query", "LambdaMart", "StochasticRank")


class CatBoostPredictor(EstimatorPredictor):
    """A ``CatBoost`` object; names and classes are those that the model carries."""

    library = "catboost"

    def __init__(self, model: Any) -> None:
        super().__init__(model)
        self.library = "catboost"
        names = model.feature_names_
        self.features = plain_names(names)
        self.feature_count = len(names) if names is not None else None
        self.gives_probabilities = hasattr(model, "predict_proba")
        if self.kind is None and is_instance_of(model, "catboost", "CatBoostRegressor"):
            self.kind = Kind.REGRESSOR
        if self.gives_probabilities:
            self.kind = Kind.CLASSIFIER
        else:
            self.classes = None


class CatBoostLoader(Loader):
    """Opens what ``save_model`` wrote in CatBoost's own format."""

    name = "CatBoost"
    extensions = (".cbm",)

    def load(self, path: str) -> Predictor:
        """Load the file into the estimator that goes with its loss function."""
        import catboost

        model = catboost.CatBoost().load_model(path)
        loss = str(model.get_all_params().get("loss_function", ""))
        if loss.startswith(_CLASSIFICATION):
            model = catboost.CatBoostClassifier().load_model(path)
        elif loss and not loss.startswith(_RANKING):
            model = catboost.CatBoostRegressor().load_model(path)
        return CatBoostPredictor(model)

    def wrap(self, model: Any) -> Optional[Predictor]:
        """Take a ``CatBoost`` object."""
        return CatBoostPredictor(model) if is_instance_of(model, "catboost", "CatBoost") else None
