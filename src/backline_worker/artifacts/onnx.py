"""ONNX models, run by onnxruntime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Optional

from ..errors import ModelLoadError
from .base import Kind, Loader, Predictor, is_instance_of

if TYPE_CHECKING:
    from pandas import DataFrame

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(float16)": "float16",
    "tensor(int64)": "int64",
    "tensor(int32)": "int32",
    "tensor(int16)": "int16",
    "tensor(int8)": "int8",
    "tensor(uint8)": "uint8",
    "tensor(bool)": "bool",
    "tensor(string)": "object",
}


class OnnxPredictor(Predictor):
    """A session with one input, (rows, columns), or one input for each column.

    A classifier has an output of labels and one of probabilities: an array, or a list of dicts by class (ZipMap).
    """

    library = "onnxruntime"

    def __init__(self, session: Any) -> None:
        self.model = session
        self._inputs = session.get_inputs()
        unknown = [item for item in self._inputs if item.type not in _DTYPES]
        if unknown or not self._inputs:
            raise ModelLoadError(
                "the ONNX model's input {} is not a tensor of numbers or text; define score in custom.py".format(
                    ", ".join("{} ({})".format(item.name, item.type) for item in unknown) or "list is empty, which"
                )
            )
        if len(self._inputs) > 1:
            self.features = [item.name for item in self._inputs]
            self.feature_count = len(self._inputs)
        else:
            shape = self._inputs[0].shape
            if len(shape) == 2 and isinstance(shape[1], int):
                self.feature_count = shape[1]
        # An exporter that was given an example fixes the number of rows to the example's.
        fixed = {item.shape[0] for item in self._inputs if item.shape and isinstance(item.shape[0], int)}
        self._one_by_one = fixed == {1}
        self._find_outputs(session.get_outputs())

    def _find_outputs(self, outputs: List[Any]) -> None:
        mapped = [item.name for item in outputs if item.type.startswith("seq(map")]
        named = [item.name for item in outputs if "prob" in item.name.lower()]
        floats = [item.name for item in outputs if item.type in ("tensor(float)", "tensor(double)")]
        labels = [item.name for item in outputs if item.type in ("tensor(int64)", "tensor(string)")]
        self._label = outputs[0].name
        candidates = mapped or named or floats
        self._probability = candidates[0] if candidates else outputs[0].name
        if not labels or not candidates:
            return
        self.kind = Kind.CLASSIFIER
        self._label = labels[0]
        if mapped:
            self.classes = self._mapped_classes()
            return
        shape = next(item.shape for item in outputs if item.name == self._probability)
        if len(shape) == 2 and isinstance(shape[1], int):
            self.class_count = max(shape[1], 2)

    def _mapped_classes(self) -> Optional[List[Any]]:
        """Return the classes, which only an answer shows: that to a row of zeros, or of empty text."""
        import numpy as np

        feed = {}
        for item in self._inputs:
            shape = [size if isinstance(size, int) else 1 for size in item.shape]
            filler = "" if _DTYPES[item.type] == "object" else 0
            feed[item.name] = np.full(shape, filler, dtype=_DTYPES[item.type])
        try:
            answer = self.model.run([self._probability], feed)[0]
        except Exception:  # then the classes are learned from the first request
            return None
        return list(answer[0]) if answer else None

    def predict(self, data: DataFrame) -> Any:
        """Return the labels of a classifier, the first output of any other model."""
        return self._run(self._label, data)

    def predict_proba(self, data: DataFrame) -> Any:
        """Return the probabilities, (rows, classes)."""
        import numpy as np

        values = self._run(self._probability, data)
        if isinstance(values, list) and values and isinstance(values[0], dict):
            classes = self.classes if self.classes is not None else list(values[0])
            self.classes = classes
            return np.array([[row[name] for name in classes] for row in values])
        return values

    def _run(self, output: str, data: DataFrame) -> Any:
        import numpy as np

        if not self._one_by_one or len(data) == 1:
            return self.model.run([output], self._feed(data))[0]
        answers = [self.model.run([output], self._feed(data.iloc[row : row + 1]))[0] for row in range(len(data))]
        if answers and isinstance(answers[0], list):
            return [row for answer in answers for row in answer]
        return np.concatenate(answers)

    def _feed(self, data: DataFrame) -> Dict[str, Any]:
        if self.features is None:
            item = self._inputs[0]
            rows = data.to_numpy(dtype=_DTYPES[item.type])
            return {item.name: rows[:, 0] if len(item.shape) == 1 else rows}
        feed = {}
        for item in self._inputs:
            column = data[item.name].to_numpy(dtype=_DTYPES[item.type])
            feed[item.name] = column if len(item.shape) == 1 else column.reshape(-1, 1)
        return feed


class OnnxLoader(Loader):
    """Opens ONNX files."""

    name = "ONNX"
    extensions = (".onnx",)

    def load(self, path: str) -> Predictor:
        """Make a session of the file, on whatever this build of onnxruntime runs on."""
        import onnxruntime

        return OnnxPredictor(onnxruntime.InferenceSession(path, providers=onnxruntime.get_available_providers()))

    def wrap(self, model: Any) -> Optional[Predictor]:
        """Take an ``InferenceSession``."""
        return OnnxPredictor(model) if is_instance_of(model, "onnxruntime", "InferenceSession") else None
