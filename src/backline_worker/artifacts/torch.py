"""PyTorch modules: TorchScript archives, and whole modules saved with ``torch.save``."""

from __future__ import annotations

import os
import zipfile
from typing import TYPE_CHECKING, Any, Optional

from ..errors import ModelLoadError, SchemaMismatch
from .base import Loader, Predictor, is_instance_of

if TYPE_CHECKING:
    from pandas import DataFrame


class TorchPredictor(Predictor):
    """A module in evaluation mode. It gets one tensor, (rows, numeric columns), of its own floating type and device.

    What a module of the user's own does across rows cannot be told, so only modules made of PyTorch's own layers count
    as treating rows alone.
    """

    library = "torch"

    def __init__(self, module: Any) -> None:
        import torch

        module.eval()
        self.model = module
        weight = next((item for item in module.parameters() if item.is_floating_point()), None)
        self._dtype = torch.float32 if weight is None else weight.dtype
        self._device = "cpu" if weight is None else weight.device
        layers = list(module.modules())
        self.rows_independent = all(type(layer).__module__.startswith("torch.nn.modules.") for layer in layers)
        if self.rows_independent and type(module).__name__ == "Sequential" and len(module):
            self.feature_count = getattr(module[0], "in_features", None)

    def predict(self, data: DataFrame) -> Any:
        """Return the module's output as an array."""
        import torch

        rows = _numeric_rows(data)
        with torch.no_grad():
            output = self.model(torch.from_numpy(rows).to(device=self._device, dtype=self._dtype))
        if not isinstance(output, torch.Tensor):
            raise TypeError(
                "the module returned {}; expected one tensor, so define score in custom.py".format(
                    type(output).__name__
                )
            )
        output = output.detach().cpu()
        return (output.float() if output.dtype is torch.bfloat16 else output).numpy()


class TorchLoader(Loader):
    """Opens TorchScript archives and pickled modules."""

    name = "PyTorch"
    extensions = (".pth", ".pt")

    def load(self, path: str) -> Predictor:
        """Load the module; raises ``ModelLoadError`` where the file holds weights only, or a class cannot be found."""
        import torch

        file = os.path.basename(path)
        place = None if torch.cuda.is_available() else "cpu"
        if _is_script(path):
            return TorchPredictor(torch.jit.load(path, map_location=place))
        try:
            try:
                found = torch.load(path, map_location=place, weights_only=False)
            except TypeError:  # before PyTorch 1.13 there was no such argument
                found = torch.load(path, map_location=place)
        except AttributeError as exc:
            raise ModelLoadError(
                "could not load model from artifact {}: {}. The module's class is not where it was when it was saved: "
                "put it into a module in the model folder and save again, save with torch.jit.script, or define "
                "load_model in custom.py".format(file, exc)
            ) from exc
        if isinstance(found, dict):
            raise ModelLoadError(
                "could not load model from artifact {}: it holds weights (a state_dict) without the module. Save the "
                "module itself with torch.save(model, path) or torch.jit.script(model).save(path), or define "
                "load_model in custom.py, which builds the module and loads the weights".format(file)
            )
        predictor = self.wrap(found)
        if predictor is None:
            raise ModelLoadError(
                "could not load model from artifact {}: it holds {}, not a module".format(file, type(found).__name__)
            )
        return predictor

    def wrap(self, model: Any) -> Optional[Predictor]:
        """Take an ``nn.Module``."""
        return TorchPredictor(model) if is_instance_of(model, "torch", "nn", "Module") else None


def _is_script(path: str) -> bool:
    """Say whether the file is a TorchScript archive: it carries code, which a pickled module does not."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _numeric_rows(data: DataFrame) -> Any:
    import numpy as np

    if not hasattr(data, "select_dtypes"):
        return np.asarray(data)
    numbers = data.select_dtypes(include=["number", "bool"])
    if not len(numbers.columns):
        raise SchemaMismatch("the module takes numbers, and no column of the data is numeric")
    return np.ascontiguousarray(numbers.to_numpy(dtype=np.float64 if _has_doubles(numbers) else np.float32))


def _has_doubles(numbers: DataFrame) -> bool:
    """Say whether a conversion to single precision is better left to the module's own type."""
    return any(getattr(dtype, "itemsize", 8) > 4 for dtype in numbers.dtypes)
