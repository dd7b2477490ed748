"""Artifacts: the files of trained models, and the loaders that open them.

Built-in loaders and those of other distributions come through the same door: a name and ``module:attribute``, resolved
and checked by `Registry.register`. Importing this package registers nothing and imports no library.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from typing import Any, Dict, List, Optional, Tuple

from ..errors import ModelLoadError
from .base import Kind, Loader, Predictor

__all__ = ["ENTRY_POINT_GROUP", "Kind", "Loader", "Predictor", "Registry", "find", "load", "registry", "wrap"]

ENTRY_POINT_GROUP = "backline.artifacts"

# The order is the order in which objects are offered to ``wrap``: the one that takes anything comes last.
_BUILT_IN = (
    ("xgboost", __name__ + ".xgboost:XGBoostLoader"),
    ("lightgbm", __name__ + ".lightgbm:LightGBMLoader"),
    ("catboost", __name__ + ".catboost:CatBoostLoader"),
    ("torch", __name__ + ".torch:TorchLoader"),
    ("keras", __name__ + ".keras:KerasLoader"),
    ("onnx", __name__ + ".onnx:OnnxLoader"),
    ("scikit-learn", __name__ + ".sklearn:SklearnLoader"),
)

_SCORING_CODE = "run it on the JVM, or export the model to ONNX"
_UNSUPPORTED = {
    ".pmml": ("PMML", "convert it, for instance with sklearn-pmml-model or to ONNX"),
    ".rds": ("R", "write the model as ONNX or PMML-free Python, or keep it where R runs"),
    ".jar": ("Scoring Code", _SCORING_CODE),
    ".java": ("H2O POJO", _SCORING_CODE),
    ".zip": ("H2O MOJO", "load it in custom.py, for instance with h2o-genmodel or daimojo"),
    ".mojo": ("Driverless AI MOJO", "load it in custom.py with daimojo"),
    ".jlso": ("Julia", "load it in custom.py with juliacall"),
}


class Registry:
    """The loaders, by name. A later one of the same name replaces the earlier, so a built-in can be replaced."""

    def __init__(self) -> None:
        self._loaders: Dict[str, Loader] = {}
        self.warnings: List[str] = []

    def register(self, name: str, target: str, *, origin: str = "Backline") -> None:
        """Resolve ``module:attribute`` and add the loader; raises ``ModelLoadError`` with its origin if it is none."""
        module, _, attribute = target.partition(":")
        try:
            found: Any = importlib.import_module(module)
            for part in attribute.split("."):
                found = getattr(found, part)
            loader = found() if isinstance(found, type) else found
        except Exception as exc:
            raise ModelLoadError(
                "the artifact loader {!r} of {} ({}) cannot be imported: {}: {}; mend or uninstall it".format(
                    name, origin, target, type(exc).__name__, exc
                )
            ) from exc
        extensions = getattr(loader, "extensions", None)
        if not callable(getattr(loader, "load", None)) or not isinstance(extensions, (tuple, list)):
            raise ModelLoadError(
                "the artifact loader {!r} of {} ({}) has to have extensions, a tuple, and load(path)".format(
                    name, origin, target
                )
            )
        self._loaders[name] = loader

    @property
    def loaders(self) -> List[Tuple[str, Loader]]:
        """Names and loaders; those of other distributions before the built-in ones."""
        built_in = [name for name, _ in _BUILT_IN]
        return sorted(self._loaders.items(), key=lambda item: built_in.index(item[0]) if item[0] in built_in else -1)

    def by_extension(self) -> Dict[str, Tuple[str, Loader]]:
        """Return which loader opens which lower-case extension."""
        found: Dict[str, Tuple[str, Loader]] = {}
        for name, loader in self.loaders:
            for extension in loader.extensions:
                found.setdefault(extension.lower(), (name, loader))
        return found


@functools.lru_cache(maxsize=1)
def registry() -> Registry:
    """Return the loaders of this process: the built-in ones and those of the model's environment."""
    made = Registry()
    for name, target in _BUILT_IN:
        made.register(name, target)
    for name, target, origin in _entry_points():
        made.register(name, target, origin=origin)
    return made


def _entry_points() -> List[Tuple[str, str, str]]:
    from importlib import metadata

    found: Any = metadata.entry_points()
    if hasattr(found, "select"):
        selected = found.select(group=ENTRY_POINT_GROUP)
    else:  # Python 3.8 and 3.9 give a dict of lists
        selected = found.get(ENTRY_POINT_GROUP, ())
    points = []
    for point in selected:
        distribution = getattr(point, "dist", None)
        origin = distribution.metadata["Name"] if distribution is not None else "another distribution"
        if (point.name, point.value, origin) not in points:
            points.append((point.name, point.value, origin))
    return points


def find(code_dir: str) -> Tuple[List[str], List[str]]:
    """Return the names of the artifacts in the folder itself: those that can be opened here, and those that cannot."""
    known = registry().by_extension()
    supported, unsupported = [], []
    for name in sorted(os.listdir(code_dir)):
        extension = os.path.splitext(name)[1].lower()
        if name.startswith(".") or not os.path.isfile(os.path.join(code_dir, name)):
            continue
        if extension in known:
            supported.append(name)
        elif extension in _UNSUPPORTED:
            unsupported.append(name)
    return supported, unsupported


def load(path: str) -> Predictor:
    """Open an artifact; raises ``ModelLoadError`` naming the file, the problem and the mend."""
    file = os.path.basename(path)
    _, loader = registry().by_extension()[os.path.splitext(path)[1].lower()]
    try:
        return loader.load(path)
    except (ModelLoadError, MemoryError):
        raise
    except ModuleNotFoundError as exc:
        from ..contract.hooks import missing_package

        raise ModelLoadError(
            "could not load model from artifact {}: {}".format(
                file, missing_package(exc.name or str(exc), os.path.dirname(path))
            )
        ) from exc
    except Exception as exc:
        text = str(exc).strip() or type(exc).__name__
        raise ModelLoadError(
            "could not load model from artifact {}: {}: {}. Is the file complete, and written for the version of {} "
            "that is installed in {}?".format(file, type(exc).__name__, text, loader.name, sys.executable)
        ) from exc


def wrap(model: Any) -> Optional[Predictor]:
    """Return a predictor for an object that a hook or a pickle gave, or ``None`` if no loader knows its kind."""
    for _, loader in registry().loaders:
        offer = getattr(loader, "wrap", None)
        predictor: Optional[Predictor] = offer(model) if offer is not None else None
        if predictor is not None:
            return predictor
    return None


def unsupported_message(names: List[str]) -> str:
    """Say of recognised artifacts that they cannot be opened here, and what can be done instead."""
    sentences = []
    for name in names:
        library, mend = _UNSUPPORTED[os.path.splitext(name)[1].lower()]
        sentences.append("{} looks like a {} artifact, which Backline does not open: {}".format(name, library, mend))
    return "; ".join(sentences)


def extensions() -> List[str]:
    """Return every extension that can be opened here."""
    return sorted(registry().by_extension())
