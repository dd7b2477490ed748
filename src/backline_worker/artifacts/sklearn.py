"""Pickles: scikit-learn estimators, and whatever else follows their conventions or was pickled.

XGBoost's, LightGBM's and CatBoost's estimators have the same face. Objects of other libraries' own kinds are handed to
the loader that knows them.
"""

from __future__ import annotations

import mmap
import os
import pickle
import re
import sys
import warnings
from typing import TYPE_CHECKING, Any, Callable, List, Optional

from ..errors import ModelLoadError
from .base import Kind, Loader, Predictor, plain_names

if TYPE_CHECKING:
    from pandas import DataFrame

# An estimator made of these alone treats every row by itself when it predicts.
_KNOWN_LIBRARIES = frozenset({"sklearn", "xgboost", "lightgbm", "catboost"})
_KNOWN_FUNCTIONS = frozenset({"numpy", "scipy", "sklearn"})
_COMPRESSED = (
    b"\x1f\x8b",
    b"\x78\x01",
    b"\x78\x5e",
    b"\x78\x9c",
    b"\x78\xda",
    b"BZh",
    b"\xfd7zXZ",
    b"\x5d\x00",
    b"\x04\x22M\x18",
)


class EstimatorPredictor(Predictor):
    """Any object with ``predict``, by scikit-learn's conventions; or with ``transform`` alone."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.library = type(model).__module__.partition(".")[0]
        self.kind = _kind(model)
        self.classes = _list_or_none(_fitted(model, "classes_"))
        self.features = plain_names(_feature_names(model))
        self.feature_count = _feature_count(model)
        self.gives_probabilities = hasattr(model, "predict_proba")
        self.rows_independent = _treats_rows_alone(model, set())
        # An estimator fitted on an array warns about every frame that it gets: nothing the client could mend.
        self._quiet = self.features is None and self.library in _KNOWN_LIBRARIES

    def predict(self, data: DataFrame) -> Any:
        """Return ``predict`` of the estimator."""
        return self._call(self.model.predict, data)

    def predict_proba(self, data: DataFrame) -> Any:
        """Return ``predict_proba`` of the estimator, ``predict`` where it has none."""
        return self._call(self.model.predict_proba if self.gives_probabilities else self.model.predict, data)

    def transform(self, data: DataFrame) -> Any:
        """Return ``transform`` of the estimator, or ``None`` where it has none."""
        function = getattr(self.model, "transform", None)
        return None if function is None else self._call(function, data)

    def _call(self, function: Callable[[Any], Any], data: DataFrame) -> Any:
        if not self._quiet:
            return function(data)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "X has feature names, but", UserWarning)
            return function(data)


class SklearnLoader(Loader):
    """Opens pickles, by joblib where joblib wrote them."""

    name = "scikit-learn"
    extensions = (".pkl", ".pickle", ".joblib")

    def load(self, path: str) -> Predictor:
        """Unpickle the file; raises ``ModelLoadError`` with cause and cure where the pickle does not fit in here."""
        from . import wrap

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model = _unpickle(path, caught)
        # What libraries say on loading, such as that the pickle is of another version, is repeated: it ends up in the
        # description of the model.
        for item in caught:
            warnings.warn_explicit(item.message, item.category, item.filename, item.lineno)
        predictor = wrap(model)
        if predictor is None:
            raise ModelLoadError(
                "{} holds {}.{}, which has neither predict nor transform; define load_model and score in custom.py to "
                "use it".format(os.path.basename(path), type(model).__module__, type(model).__qualname__)
            )
        return predictor

    def wrap(self, model: Any) -> Optional[Predictor]:
        """Take any object that can predict or transform."""
        if callable(getattr(model, "predict", None)) or callable(getattr(model, "transform", None)):
            return EstimatorPredictor(model)
        return None


def _unpickle(path: str, caught: List[warnings.WarningMessage]) -> Any:
    try:
        if _needs_joblib(path):
            import joblib

            return joblib.load(path)
        with open(path, "rb") as file:
            return pickle.load(file)
    except MemoryError:
        raise
    except Exception as exc:
        message = _damaged(path, exc) or _explain(exc, os.path.basename(path), caught)
        raise ModelLoadError(
            "could not load model from artifact {}: {}".format(os.path.basename(path), message)
        ) from exc


def _needs_joblib(path: str) -> bool:
    """Say whether joblib wrote the file: it keeps arrays beside the pickle stream, or compresses all of it."""
    if path.lower().endswith(".joblib"):
        return True
    with open(path, "rb") as file:
        if file.read(8).startswith(_COMPRESSED):
            return True
        if not os.fstat(file.fileno()).st_size:
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(b"joblib.numpy_pickle") >= 0


def _damaged(path: str, exc: Exception) -> Optional[str]:
    """Return cause and cure of a file that is no pickle at all, or only the beginning of one."""
    with open(path, "rb") as file:
        start = file.read(64)
    if not start:
        return "the file is empty; write it again"
    if start.startswith(b"version https://git-lfs"):
        return "the file is a pointer of Git LFS, not the model itself; fetch it with git lfs pull"
    if isinstance(exc, EOFError) or "truncated" in str(exc):
        return "the file ends in the middle of the pickle, after {} bytes; copy or write it again".format(
            os.path.getsize(path)
        )
    # Protocol 2, from 2003, and later ones start so; the older two are text.
    foreign = start[:1] != b"\x80" and not start.startswith(_COMPRESSED)
    if foreign and isinstance(exc, (pickle.UnpicklingError, ValueError, KeyError, IndexError)):
        return "the file is no pickle, it starts with {!r}; name it for what it is, or write it again".format(
            start[:16]
        )
    return None


def _explain(exc: Exception, file: str, caught: List[warnings.WarningMessage]) -> str:
    """Return cause and cure of a pickle that cannot be opened."""
    text = str(exc)
    in_main = re.search(r"Can't get attribute '([^']+)' on <module '(?:[\w.]*[.])?__main__'", text)
    if in_main:
        return (
            "the pickle refers to __main__.{0}, which was defined in the script or notebook that wrote it. Move {0} "
            "into a module in the model folder, import it from there in the training script and write the pickle "
            "again; or define load_model in custom.py".format(in_main.group(1))
        )
    versions = _versions(caught)
    missing = re.search(r"Can't get attribute '([^']+)' on <module '([^']+)'", text)
    if missing:
        return "the module {!r} has no {!r}; {}".format(missing.group(2), missing.group(1), versions)
    if isinstance(exc, ModuleNotFoundError) and exc.name:
        from ..contract.hooks import missing_package

        folder_or_version = missing_package(exc.name, os.curdir)
        if exc.name.partition(".")[0] in sys.modules:
            folder_or_version = "there is no module {!r} here; {}".format(exc.name, versions)
        else:
            folder_or_version += ", or put the module into the model folder"
        return "the pickle needs {!r}: {}".format(exc.name, folder_or_version)
    return "{}: {}. The file is damaged, or {}".format(type(exc).__name__, text, versions)


def _versions(caught: List[warnings.WarningMessage]) -> str:
    """Name the versions that are loaded, and the one that wrote the pickle where it says so."""
    from .base import module_version

    names = ("numpy", "pandas", "scipy", "sklearn", "joblib", "xgboost", "lightgbm", "catboost")
    loaded = ["{} {}".format(name, module_version(name)) for name in names if name in sys.modules]
    written = {getattr(item.message, "original_sklearn_version", None) for item in caught} - {None}
    python = "Python {}.{}".format(*sys.version_info[:2])
    text = "it was written with other versions than those here ({})".format(", ".join([python, *loaded]))
    if written:
        return text + ", with scikit-learn {0}: install scikit-learn=={0}".format(min(map(str, written)))
    return text + ": install those that wrote it, or write the artifact again with these"


def _fitted(model: Any, name: str) -> Any:
    """Return an attribute that may not be there, or be a property that raises before fitting."""
    try:
        return getattr(model, name, None)
    except Exception:  # libraries raise errors of their own from these properties
        return None


def _list_or_none(values: Any) -> Optional[List[Any]]:
    # Several outputs have a list of class arrays each: no classes in the sense of the contract.
    if values is None or (isinstance(values, list) and values and hasattr(values[0], "shape")):
        return None
    return list(values) or None


def _feature_names(model: Any) -> Any:
    names = _fitted(model, "feature_names_in_")
    if names is None and type(model).__module__.startswith("catboost"):
        names = _fitted(model, "feature_names_")
    return names


def _feature_count(model: Any) -> Optional[int]:
    count = _fitted(model, "n_features_in_")
    return int(count) if count is not None else None


def _kind(model: Any) -> Optional[Kind]:
    if not hasattr(model, "predict"):
        return Kind.TRANSFORMER
    # The tag moved from an attribute to ``__sklearn_tags__`` in scikit-learn 1.6; both are asked by name, as estimators
    # of other libraries may have either.
    name = _fitted(model, "_estimator_type")
    if name is None and hasattr(model, "__sklearn_tags__"):
        try:
            name = model.__sklearn_tags__().estimator_type
        except Exception:  # tags of an estimator made for another version of scikit-learn
            name = None
    try:
        return Kind(str(name).replace("_", " "))
    except ValueError:
        return Kind.CLASSIFIER if _fitted(model, "classes_") is not None else None


def _treats_rows_alone(model: Any, seen: set) -> bool:  # type: ignore[type-arg]
    """Say whether the estimator and all that it is made of are classes of known libraries, without users' functions."""
    if id(model) in seen:
        return True
    seen.add(id(model))
    if type(model).__module__.partition(".")[0] not in _KNOWN_LIBRARIES:
        return False
    if type(model).__name__ == "FunctionTransformer":
        functions = [model.func, model.inverse_func]
        return all(
            function is None or (getattr(function, "__module__", None) or "numpy").partition(".")[0] in _KNOWN_FUNCTIONS
            for function in functions
        )
    return all(_treats_rows_alone(part, seen) for part in _parts(model))


def _parts(model: Any) -> List[Any]:
    """Return the estimators that an estimator holds, as parameters or fitted."""
    found: List[Any] = []
    try:
        values = list(model.get_params(deep=False).values())
    except Exception:  # not every object with predict has parameters
        values = []
    # What was fitted is what predicts; parameters only tell where a meta-estimator keeps it elsewhere.
    fitted = ("estimator_", "estimators_", "best_estimator_", "final_estimator_", "transformers_", "regressor_")
    values += [_fitted(model, name) for name in fitted]
    pending = values
    while pending:
        value = pending.pop()
        if isinstance(value, (list, tuple)) and len(value) <= 1000:
            pending.extend(value)
        elif hasattr(value, "get_params") and not isinstance(value, type):
            found.append(value)
    return found
