"""Settles what the model predicts: what was configured, else what the artifact or the hooks give away."""

from __future__ import annotations

import importlib.util
from typing import List, Optional, Sequence, Tuple

from ..artifacts.base import Kind, Predictor
from ..errors import ModelLoadError
from ..types import ModelSpec
from .hooks import Hooks, missing_package
from .metadata import ModelMetadata
from .target_types import Target, TargetType, label_text, match_labels, parse_target_type

_SET_IT = "set targetType in model-metadata.yaml, or pass --target-type"


def resolve_target(spec: ModelSpec, metadata: ModelMetadata, hooks: Hooks, predictor: Optional[Predictor]) -> Target:
    """Return the target; raises ``ModelLoadError`` when it cannot be told, or does not go with hooks and artifact."""
    kind = _configured(spec, metadata) or _inferred(hooks, predictor)
    labels = _labels(kind, spec, metadata, hooks, predictor)
    _check_hooks(kind, hooks, predictor, generates=spec.generates)
    return Target(
        type=kind,
        name=spec.target_name or metadata.target_name,
        labels=labels,
        latitude_column=spec.latitude_column,
        longitude_column=spec.longitude_column,
        strict=spec.strict_validation,
    )


def _configured(spec: ModelSpec, metadata: ModelMetadata) -> Optional[TargetType]:
    if spec.target_type is None:
        return metadata.target_type
    try:
        return parse_target_type(spec.target_type)
    except ValueError as exc:
        raise ModelLoadError(str(exc)) from exc


def _inferred(hooks: Hooks, predictor: Optional[Predictor]) -> TargetType:
    if "score_unstructured" in hooks:
        return TargetType.UNSTRUCTURED
    if predictor is not None:
        if predictor.kind is Kind.OUTLIER_DETECTOR:
            return TargetType.ANOMALY
        if predictor.kind is Kind.REGRESSOR:
            return TargetType.REGRESSION
        if predictor.kind is Kind.TRANSFORMER:
            return TargetType.TRANSFORM
        known = _known_labels(predictor)
        if predictor.kind is Kind.CLASSIFIER and known:
            return TargetType.BINARY if len(known) == 2 else TargetType.MULTICLASS
    if "chat" in hooks and "score" not in hooks:
        return TargetType.TEXT_GENERATION
    seen = "the hooks {}".format(", ".join(hooks.names)) if hooks.names else "the model folder"
    if predictor is not None:
        seen = "a {} model".format(type(predictor.model).__name__)
    raise ModelLoadError("what the model predicts cannot be told from {}; {}".format(seen, _SET_IT))


def _labels(
    kind: TargetType, spec: ModelSpec, metadata: ModelMetadata, hooks: Hooks, predictor: Optional[Predictor]
) -> Tuple[str, ...]:
    """Return the class labels in the contract's order, taken from the artifact where none are configured."""
    if not kind.has_class_labels:
        return ()
    known = _known_labels(predictor)
    if kind is TargetType.MULTICLASS:
        labels = list(spec.class_labels) or list(metadata.class_labels) or known
        if len(labels) < 2:
            raise ModelLoadError(
                "a multiclass model needs its class labels: set inferenceModel.classLabels in model-metadata.yaml, or "
                "pass --class-labels"
            )
    else:
        labels = _binary_labels(spec, metadata, known)
    if len(set(labels)) != len(labels):
        raise ModelLoadError("class labels have to differ; got {}".format(", ".join(map(repr, labels))))
    if known and predictor is not None and "score" not in hooks:
        # Classes known by number only can have any names, as many as there are classes.
        named = predictor.classes is not None and match_labels(labels, list(predictor.classes)) is None
        if len(known) != len(labels) or named:
            raise ModelLoadError(
                "the model knows the classes {}, and the class labels are {}; correct the labels, or leave them out to "
                "take the model's".format(_listed(known), _listed(labels))
            )
    return tuple(labels)


def _known_labels(predictor: Optional[Predictor]) -> List[str]:
    """Return the classes that the artifact knows as labels; their numbers, where it knows but these."""
    if predictor is None:
        return []
    if predictor.classes is not None:
        return [label_text(item) for item in predictor.classes]
    return [str(place) for place in range(predictor.class_count or 0)]


def _binary_labels(spec: ModelSpec, metadata: ModelMetadata, known: List[str]) -> List[str]:
    positive, negative = spec.positive_class_label, spec.negative_class_label
    if positive is None and negative is None:
        positive, negative = metadata.positive_class_label, metadata.negative_class_label
    both = list(spec.class_labels) or list(metadata.class_labels) or known
    if positive is None and negative is None and len(both) == 2:
        negative, positive = both
    elif positive is None or negative is None:
        given = positive if positive is not None else negative
        place = match_labels([given], both) if given is not None and len(both) == 2 else None
        if place is not None:
            other = both[1 - place[0]]
            positive, negative = (given, other) if positive is not None else (other, given)
    if positive is None or negative is None:
        raise ModelLoadError(
            "a binary model needs both class labels: set inferenceModel.positiveClassLabel and negativeClassLabel in "
            "model-metadata.yaml, or pass --positive-class-label and --negative-class-label"
        )
    return [positive, negative]


def _check_hooks(kind: TargetType, hooks: Hooks, predictor: Optional[Predictor], *, generates: bool) -> None:
    """Raise unless something there can answer for the target type."""
    if kind is TargetType.UNSTRUCTURED:
        if "score_unstructured" not in hooks:
            raise ModelLoadError(
                "an unstructured model answers by the hook score_unstructured(model, data, query, **kwargs); define it "
                "in custom.py, or {}".format(_SET_IT)
            )
        return
    if kind is TargetType.TRANSFORM:
        if "transform" not in hooks and (predictor is None or not hasattr(predictor.model, "transform")):
            raise ModelLoadError(
                "a transform model needs the hook transform(X, transformer) or an artifact that has transform"
            )
        return
    by_backend = generates and kind is TargetType.TEXT_GENERATION and predictor is None and "score" not in hooks
    if by_backend or (kind.is_llm and "chat" in hooks):
        return
    if importlib.util.find_spec("pandas") is None:
        # Rows and predictions are DataFrames: without it every single request would fail.
        raise ModelLoadError(
            "a {} model is given its rows as a pandas DataFrame: {}".format(
                kind.value, missing_package("pandas", hooks.code_dir)
            )
        )
    try:
        importlib.import_module("pandas")  # now: ready means that the first request has nothing left to load
    except ImportError as exc:
        raise ModelLoadError("pandas is installed for the model and cannot be imported: {}".format(exc)) from exc
    if "score" in hooks:
        return
    if predictor is None:
        wanted = "chat or score" if kind.is_llm else "score"
        raise ModelLoadError(
            "the model predicts by nothing known here: define {} in custom.py, as what load_model returned has no "
            "loader in Backline".format(wanted)
        )
    if predictor.kind is Kind.TRANSFORMER:
        raise ModelLoadError(
            "{} has no predict, so it cannot answer as {}; {}".format(
                type(predictor.model).__name__, kind.value, _SET_IT
            )
        )
    words = [item for item in predictor.classes or () if isinstance(item, str)]
    if kind in (TargetType.REGRESSION, TargetType.ANOMALY) and predictor.kind is Kind.CLASSIFIER and words:
        raise ModelLoadError(
            "{} is a classifier of {}, and a {} model answers with numbers; {}".format(
                type(predictor.model).__name__, _listed(words), kind.value, _SET_IT
            )
        )
    if kind.has_class_labels and predictor.kind is Kind.CLASSIFIER and not predictor.gives_probabilities:
        raise ModelLoadError(
            "{} has no predict_proba, and a {} model answers with probabilities; wrap it, for instance in "
            "CalibratedClassifierCV, or define score in custom.py".format(type(predictor.model).__name__, kind.value)
        )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return shown if len(names) <= 12 else "{} and {} more".format(shown, len(names) - 12)
