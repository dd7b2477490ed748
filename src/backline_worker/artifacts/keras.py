"""Keras models: ``.keras`` archives and HDF5 files, with Keras 3 on any backend, or TensorFlow's own Keras."""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, List, Optional

from .base import Loader, Predictor, module_version

if TYPE_CHECKING:
    from pandas import DataFrame

_BACKEND_VARIABLE = "KERAS_BACKEND"


class KerasPredictor(Predictor):
    """A model with one input of shape (rows, columns), or with one named input for each column."""

    library = "keras"

    def __init__(self, model: Any) -> None:
        self.model = model
        self._inputs: List[str] = [str(item.name).partition(":")[0] for item in getattr(model, "inputs", None) or []]
        shape = getattr(model, "input_shape", None)
        if len(self._inputs) > 1:
            self.features = list(self._inputs)
        elif isinstance(shape, tuple) and len(shape) == 2 and shape[1] is not None:
            self.feature_count = int(shape[1])
        self.rows_independent = type(model).__name__ in ("Sequential", "Functional")

    @property
    def library_version(self) -> Optional[str]:
        """The version of Keras, or of the TensorFlow that brought it."""
        return module_version("keras") or module_version("tensorflow")

    def predict(self, data: DataFrame) -> Any:
        """Return ``predict`` of the model."""
        if self.features is None:
            return self.model.predict(data.to_numpy(), verbose=0)
        columns = {name: data[name].to_numpy().reshape(-1, 1) for name in self.features}
        return self.model.predict(columns, verbose=0)


class KerasLoader(Loader):
    """Opens what ``Model.save`` wrote."""

    name = "Keras"
    extensions = (".keras", ".h5")

    def load(self, path: str) -> Predictor:
        """Load the model without compiling it: only training needs that."""
        return KerasPredictor(_keras().models.load_model(path, compile=False))

    def wrap(self, model: Any) -> Optional[Predictor]:
        """Take a model of Keras 3 or of TensorFlow."""
        # Looked up by the class's ancestry: Keras has stood under several module names.
        for base in type(model).__mro__:
            if base.__name__ == "Model" and "keras" in base.__module__:
                return KerasPredictor(model)
        return None


def _keras() -> Any:
    """Import Keras on a backend that is there."""
    if importlib.util.find_spec("keras") is None:
        import tensorflow

        return tensorflow.keras
    if _BACKEND_VARIABLE not in os.environ and "keras" not in sys.modules and not _installed("tensorflow"):
        # Keras would ask for TensorFlow, its default, and fail although another backend is there.
        for backend in ("torch", "jax"):
            if _installed(backend):
                os.environ[_BACKEND_VARIABLE] = backend
                break
    import keras

    return keras


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None
