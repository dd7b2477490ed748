"""``model-metadata.yaml`` as a value: which keys there are, of which type, and what is wrong with a file.

Standard library only, and no YAML: whoever reads the file hands over what the parser gave. The server does.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .target_types import TargetType, parse_target_type

_TOP_KEYS = (
    "name",
    "type",
    "targetType",
    "environmentID",
    "modelID",
    "description",
    "majorVersion",
    "inferenceModel",
    "trainingModel",
    "hyperparameters",
    "validation",
    "typeSchema",
    "runtimeParameterDefinitions",
    "inputSchema",
    "userCredentialSpecifications",
)
_INFERENCE_KEYS = (
    "targetName",
    "positiveClassLabel",
    "negativeClassLabel",
    "classLabels",
    "classLabelsFile",
    "predictionThreshold",
)
_TYPE_SCHEMA_KEYS = ("input_requirements", "output_requirements")


class MetadataError(ValueError):
    """A value in the metadata cannot be used; the message starts with its path."""


@dataclass(frozen=True)
class ModelMetadata:
    """The parsed metadata file. What a file leaves out is ``None`` or empty; labels are always text."""

    name: Optional[str] = None
    type: Optional[str] = None
    target_type: Optional[TargetType] = None
    target_name: Optional[str] = None
    positive_class_label: Optional[str] = None
    negative_class_label: Optional[str] = None
    class_labels: Tuple[str, ...] = ()
    class_labels_file: Optional[str] = None
    prediction_threshold: Optional[float] = None
    input_requirements: Tuple[Mapping[str, Any], ...] = ()
    output_requirements: Tuple[Mapping[str, Any], ...] = ()
    runtime_parameter_definitions: Tuple[Mapping[str, Any], ...] = ()
    input_schema: Optional[Mapping[str, Any]] = None
    validation_input: Optional[str] = None
    environment_id: Optional[str] = None
    model_id: Optional[str] = None
    description: Optional[str] = None
    major_version: bool = True


def parse_metadata(raw: Mapping[str, Any]) -> Tuple[ModelMetadata, List[str]]:
    """Return the metadata and warnings about what was ignored or guessed.

    Raises ``MetadataError`` with the path of the value, what was expected and what is there.
    """
    if not isinstance(raw, Mapping):
        raise MetadataError("expected keys and values at the top level, got {}".format(_kind(raw)))
    warnings: List[str] = []
    reader = _Reader(raw, "", warnings)
    reader.warn_unknown(_TOP_KEYS)
    inference = reader.section("inferenceModel")
    inference.warn_unknown(_INFERENCE_KEYS)
    type_schema = reader.section("typeSchema")
    type_schema.warn_unknown(_TYPE_SCHEMA_KEYS)
    if reader.text("name") is None:
        warnings.append("name: missing; the contract asks for one")
    metadata = ModelMetadata(
        name=reader.text("name"),
        type=reader.choice("type", ("inference", "training")),
        target_type=_target_type(reader),
        target_name=inference.text("targetName"),
        positive_class_label=inference.label("positiveClassLabel"),
        negative_class_label=inference.label("negativeClassLabel"),
        class_labels=inference.labels("classLabels"),
        class_labels_file=inference.text("classLabelsFile"),
        prediction_threshold=inference.number("predictionThreshold"),
        input_requirements=type_schema.mappings("input_requirements"),
        output_requirements=type_schema.mappings("output_requirements"),
        runtime_parameter_definitions=reader.mappings("runtimeParameterDefinitions"),
        input_schema=reader.mapping("inputSchema"),
        validation_input=reader.section("validation").text("input"),
        environment_id=reader.text("environmentID"),
        model_id=reader.text("modelID"),
        description=reader.text("description"),
        major_version=reader.flag("majorVersion", default=True),
    )
    _check_values(metadata)
    return metadata, warnings


def _target_type(reader: _Reader) -> Optional[TargetType]:
    text = reader.text("targetType")
    try:
        return None if text is None else parse_target_type(text)
    except ValueError as exc:
        raise MetadataError("targetType: {}".format(exc)) from exc


def _check_values(metadata: ModelMetadata) -> None:
    """Check what can be said without the model: rules and definitions are well formed, labels differ."""
    from .runtime_params import parse_definitions
    from .schema import parse_rules

    try:
        parse_rules(metadata.input_requirements, "typeSchema.input_requirements", output=False)
        parse_rules(metadata.output_requirements, "typeSchema.output_requirements", output=True)
        parse_definitions(metadata.runtime_parameter_definitions)
    except ValueError as exc:
        raise MetadataError(str(exc)) from exc
    positive, negative = metadata.positive_class_label, metadata.negative_class_label
    if positive is not None and positive == negative:
        raise MetadataError("inferenceModel.negativeClassLabel: the same as positiveClassLabel, {!r}".format(positive))
    repeated = sorted({label for label in metadata.class_labels if metadata.class_labels.count(label) > 1})
    if repeated:
        raise MetadataError("inferenceModel.classLabels: {} listed more than once".format(", ".join(repeated)))


class _Reader:
    """Takes values out of one mapping and says where a wrong one stands."""

    def __init__(self, values: Mapping[str, Any], path: str, warnings: List[str]) -> None:
        self._values = values
        self._path = path
        self._warnings = warnings

    def warn_unknown(self, known: Sequence[str]) -> None:
        for key in self._values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, 1, 0.6)
                hint = "; did you mean {}?".format(near[0]) if near else ""
                self._warnings.append("{}: unknown key, ignored{}".format(self._at(str(key)), hint))

    def section(self, key: str) -> _Reader:
        return _Reader(self.mapping(key) or {}, self._at(key), self._warnings)

    def mapping(self, key: str) -> Optional[Mapping[str, Any]]:
        value = self._values.get(key)
        if value is None or isinstance(value, Mapping):
            return value
        raise self._wrong(key, "keys and values", value)

    def mappings(self, key: str) -> Tuple[Mapping[str, Any], ...]:
        value = self._values.get(key)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            raise self._wrong(key, "a list", value)
        for position, item in enumerate(value):
            if not isinstance(item, Mapping):
                raise self._wrong("{}[{}]".format(key, position), "keys and values", item)
        return tuple(value)

    def text(self, key: str) -> Optional[str]:
        value = self._values.get(key)
        if value is None or isinstance(value, str):
            return value
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return str(value)
        raise self._wrong(key, "a string", value)

    def choice(self, key: str, known: Sequence[str]) -> Optional[str]:
        text = self.text(key)
        if text is None or text.lower() in known:
            return text if text is None else text.lower()
        raise MetadataError("{}: expected {}, got {!r}".format(self._at(key), " or ".join(known), text))

    def number(self, key: str) -> Optional[float]:
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise self._wrong(key, "a number", value)

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._values.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        raise self._wrong(key, "true or false", value)

    def label(self, key: str) -> Optional[str]:
        value = self._values.get(key)
        return None if value is None else self._label(key, value)

    def labels(self, key: str) -> Tuple[str, ...]:
        value = self._values.get(key)
        if value is None:
            return ()
        if not isinstance(value, (list, tuple)):
            raise self._wrong(key, "a list of strings", value)
        return tuple(self._label("{}[{}]".format(key, position), item) for position, item in enumerate(value))

    def _label(self, key: str, value: Any) -> str:
        if isinstance(value, bool):
            # YAML 1.1 turns a bare yes, no, on, off, true and false into booleans: the author may have meant the word.
            message = "{}: YAML reads this as a truth value, so the label is {!r}; put a word such as yes in quotes"
            self._warnings.append(message.format(self._at(key), str(value)))
        if isinstance(value, (str, int, float)):
            return str(value)
        raise self._wrong(key, "a string", value)

    def _wrong(self, key: str, expected: str, value: Any) -> MetadataError:
        return MetadataError("{}: expected {}, got {}".format(self._at(key), expected, _kind(value)))

    def _at(self, key: str) -> str:
        return "{}.{}".format(self._path, key) if self._path else key


_KINDS: Dict[type, str] = {dict: "keys and values", list: "a list", str: "a string", bool: "a truth value"}


def _kind(value: Any) -> str:
    return "nothing" if value is None else _KINDS.get(type(value), type(value).__name__)
