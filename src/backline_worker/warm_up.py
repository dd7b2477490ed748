"""The first prediction of a worker, made before it says that it is ready."""

from __future__ import annotations

import mimetypes
import os
import warnings
from typing import TYPE_CHECKING, Any, Dict, Optional

from .artifacts.base import Predictor
from .contract.target_types import TargetType
from .errors import ModelLoadError, OutOfMemory, ReportedError
from .types import Answer, Part, Request

if TYPE_CHECKING:
    from .model import Model

_TEXT = ("text/", "application/json")


def from_example(model: Model, path: str, max_bytes: int) -> Optional[Dict[str, Any]]:
    """Predict on the rows of a file; raises ``ModelLoadError`` when that fails."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as exc:
        raise ModelLoadError("the example {} cannot be read: {}".format(path, exc.strerror)) from exc
    try:
        return _predict_example(model, path, data, max_bytes)
    except ReportedError as exc:
        message = "the model loads, and predicting on the example {} fails: {}".format(
            os.path.basename(path), exc.message
        )
        raise ModelLoadError(message, traceback=exc.traceback) from exc


def _predict_example(model: Model, path: str, data: bytes, max_bytes: int) -> Optional[Dict[str, Any]]:
    content_type = mimetypes.guess_type(path)[0] or ""
    kind = model.target.type
    chats = kind.is_llm and model.description["chat"] and content_type == "application/json"
    if kind is TargetType.UNSTRUCTURED or chats:
        part = Part("X", content_type, data, os.path.basename(path))
        request = Request(operation="chat" if chats else "unstructured", parts=[part])
        answer: Answer = (model.chat if chats else model.unstructured)(request, lambda stage: None)
        del answer
        if not content_type.startswith(_TEXT):
            return None
        return _repeatable("example", content_type, data.decode("utf-8", "replace"), max_bytes)
    # The file's own name says what it is; guessing a type would only get in the way of the codecs.
    part = Part("X", "", data, os.path.basename(path))
    if kind is TargetType.TRANSFORM:
        model.transform(Request(operation="transform", parts=[part], accept="*/*"), lambda stage: None)
        table = model.read_table([part], "")
    else:
        table = model.read_table([part], "")
        if not len(table):
            raise ModelLoadError("the example {} has no rows".format(path))
        model.predict_table(table)
    return _first_row("example", table, max_bytes)


def synthetic(model: Model, predictor: Predictor, max_bytes: int) -> Optional[Dict[str, Any]]:
    """Predict on one row of zeros in the artifact's columns; ``None`` where that does not work."""
    names = predictor.features
    if names is None and predictor.feature_count is not None and predictor.feature_count <= 1000:
        names = ["x{}".format(place) for place in range(predictor.feature_count)]
    if not names or model.target.type is TargetType.TRANSFORM:
        return None
    try:
        import pandas as pd

        table = pd.DataFrame({name: [0] for name in names})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.predict_table(table)
    except OutOfMemory:
        raise
    except (ReportedError, ImportError):
        return None
    return _first_row("synthetic", table, max_bytes)


def _first_row(source: str, table: Any, max_bytes: int) -> Optional[Dict[str, Any]]:
    if not hasattr(table, "to_csv"):
        return None
    return _repeatable(source, "text/csv", table.head(1).to_csv(index=False), max_bytes)


def _repeatable(source: str, content_type: str, body: str, max_bytes: int) -> Optional[Dict[str, Any]]:
    if len(body.encode("utf-8", "replace")) > max_bytes:
        return None
    return {"source": source, "content_type": content_type, "body": body}
