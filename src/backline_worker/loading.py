"""From a model folder to what it holds: metadata, hooks, the model, what it predicts; user code runs here first."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Optional, Sequence

from . import artifacts
from .artifacts.base import Predictor, module_version
from .contract import shim
from .contract.hooks import Hooks, find_custom, import_custom
from .contract.metadata import MetadataError, ModelMetadata, parse_metadata
from .contract.resolve_target import resolve_target
from .contract.runtime_params import parse_definitions, resolve
from .contract.target_types import Target, TargetType
from .errors import ModelLoadError
from .types import ModelSpec

DATA_HOOKS = ("read_input_data", "transform", "score", "post_process")
PREDICTING_HOOKS = ("score", "score_unstructured", "chat")

_LIBRARY_NAMES = {"sklearn": "scikit-learn"}
_MAX_WARNINGS = 20


@dataclass(frozen=True)
class LoadedFolder:
    """What loading gave. ``model`` is what hooks get; ``predictor`` predicts with it where no hook does."""

    metadata: ModelMetadata
    hooks: Hooks
    model: Any
    predictor: Optional[Predictor]
    artifact: Optional[str]
    target: Target
    notes: Sequence[str]
    generates: bool = False


def load_folder(spec: ModelSpec) -> LoadedFolder:
    """Load the model folder. Raises ``ModelLoadError``.

    Afterwards ``sys.path`` starts with the folder, runtime parameters are in the environment, and ``custom`` and the
    import shim are importable.
    """
    if not spec.code_dir:
        return _no_folder(spec)
    code_dir = os.path.abspath(spec.code_dir)
    if not os.path.isdir(code_dir):
        raise ModelLoadError("there is no model folder {}".format(code_dir))
    with _collected_warnings() as notes:
        metadata = _metadata(spec)
        _export_runtime_parameters(spec, metadata, notes)
        if code_dir in sys.path:
            sys.path.remove(code_dir)
        sys.path.insert(0, code_dir)
        shim.install()
        path = find_custom(code_dir)
        hooks = Hooks(None if path is None else import_custom(path, code_dir), code_dir)
        found = _load(code_dir, hooks, notes, has_custom=path is not None, generates=spec.generates)
        target = resolve_target(spec, metadata, hooks, found.predictor)
    generates = spec.generates and found.predictor is None and target.type is TargetType.TEXT_GENERATION
    generates = generates and not any(name in hooks for name in PREDICTING_HOOKS)
    return LoadedFolder(metadata, hooks, found.model, found.predictor, found.artifact, target, notes, generates)


def _no_folder(spec: ModelSpec) -> LoadedFolder:
    """Return what stands for the folder where the model is nothing but an LLM backend."""
    metadata, hooks = _metadata(spec), Hooks(None, "")
    target = resolve_target(spec, metadata, hooks, None)
    return LoadedFolder(metadata, hooks, None, None, None, target, [], generates=True)


def describe(folder: LoadedFolder) -> Dict[str, Any]:
    """Return what the server and its clients may know of the model, as JSON."""
    from .codecs import SUPPORTED_INPUT, available_output

    predictor, hooks, target = folder.predictor, folder.hooks, folder.target
    packages = {name: module_version(name) for name in ("pandas", "numpy", "scipy", "pyarrow")}
    data_hooks = any(name in hooks for name in DATA_HOOKS)
    return {
        "artifact": folder.artifact,
        "library": None if predictor is None else _LIBRARY_NAMES.get(predictor.library, predictor.library),
        "library_version": None if predictor is None else predictor.library_version,
        "hooks": hooks.names,
        "target_type": target.type.value,
        "target_name": target.name,
        "class_labels": list(target.labels),
        "features": None if predictor is None or predictor.features is None else list(predictor.features),
        "python": "{}.{}.{}".format(*sys.version_info[:3]),
        "packages": {name: version for name, version in packages.items() if version is not None},
        "chat": "chat" in hooks,
        "generates": folder.generates,
        "rows_independent": predictor is not None and predictor.rows_independent and not data_hooks,
        "input_formats": list(SUPPORTED_INPUT),
        "output_formats": available_output(),
        "warnings": list(folder.notes),
    }


class _Found:
    """The model, what predicts with it, and the name of the file that it came from."""

    def __init__(self, model: Any, predictor: Optional[Predictor], artifact: Optional[str]) -> None:
        self.model = model
        self.predictor = predictor
        self.artifact = artifact


def _load(code_dir: str, hooks: Hooks, notes: List[str], *, has_custom: bool, generates: bool) -> _Found:
    """Run ``init`` and ``load_model``, or open the one artifact."""
    if "init" in hooks:
        hooks.load("init", code_dir=code_dir)
    supported, unsupported = artifacts.find(code_dir)
    if "load_model" in hooks:
        model = hooks.load("load_model", code_dir)
        # Which of several files it read is its own affair.
        return _Found(model, artifacts.wrap(model), supported[0] if len(supported) == 1 else None)
    if len(supported) > 1:
        raise ModelLoadError(
            "found {} artifacts in {}: {}; keep one, or define load_model(code_dir) in custom.py to choose".format(
                len(supported), code_dir, ", ".join(supported)
            )
        )
    answered_by_hook = any(name in hooks for name in (*PREDICTING_HOOKS, "transform"))
    if supported:
        predictor = artifacts.load(os.path.join(code_dir, supported[0]))
        notes.extend("{} is not used".format(name) for name in unsupported)
        return _Found(predictor.model, predictor, supported[0])
    if not answered_by_hook and not (generates and not unsupported):
        raise ModelLoadError(_nothing_found(code_dir, hooks, unsupported, has_custom=has_custom))
    return _Found(None, None, None)


def _nothing_found(code_dir: str, hooks: Hooks, unsupported: List[str], *, has_custom: bool) -> str:
    if unsupported:
        return artifacts.unsupported_message(unsupported) + "; or define load_model and score in custom.py"
    names = sorted(name for name in os.listdir(code_dir) if not name.startswith(".") and name != "__pycache__")
    there = ", ".join(names[:20]) + (" and {} more".format(len(names) - 20) if len(names) > 20 else "")
    if has_custom:
        defined = "custom.py defines {}".format(", ".join(hooks.names) if hooks.names else "no hook")
    else:
        defined = "there is no custom.py"
    return (
        "found no model in {}: no artifact ({}), and {}. The folder holds: {}. Put an artifact there, or define "
        "load_model or one of {} in custom.py".format(
            code_dir, " ".join(artifacts.extensions()), defined, there or "nothing", ", ".join(PREDICTING_HOOKS)
        )
    )


def _metadata(spec: ModelSpec) -> ModelMetadata:
    try:
        metadata, _ = parse_metadata(spec.metadata)  # its warnings are the server's to tell: it knows the lines
    except MetadataError as exc:
        raise ModelLoadError("model-metadata.yaml: {}".format(exc)) from exc
    return metadata


def _export_runtime_parameters(spec: ModelSpec, metadata: ModelMetadata, notes: List[str]) -> None:
    try:
        definitions = parse_definitions(metadata.runtime_parameter_definitions)
        parameters = resolve(definitions, spec.runtime_parameter_values, os.environ)
        parameters.export(os.environ)
    except ValueError as exc:
        raise ModelLoadError(str(exc)) from exc
    notes.extend(parameters.warnings)


@contextlib.contextmanager
def _collected_warnings() -> Iterator[List[str]]:
    """Collect what is warned about while the model loads; it is shown as well, as without us.

    Deprecations are left out: they are for whoever develops the library.
    """
    notes: List[str] = []
    show = warnings.showwarning

    def collect(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
        if not issubclass(category, (DeprecationWarning, PendingDeprecationWarning, FutureWarning)):
            text = "{}: {}".format(category.__name__, message)
            if text not in notes and len(notes) < _MAX_WARNINGS:
                notes.append(text)
        show(message, category, filename, lineno, file, line)

    warnings.showwarning = collect
    try:
        yield notes
    finally:
        warnings.showwarning = show
