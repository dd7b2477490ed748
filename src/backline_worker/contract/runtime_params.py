"""Runtime parameters: their definitions, where values come from, and how user code gets at them.

A value comes from the first of: the file given with ``--runtime-params-file``, the variable
``MLOPS_RUNTIME_PARAM_<name>`` holding ``{"type": ..., "payload": ...}``, the plain variable ``<name>``, the
definition's ``defaultValue``. It is then exported in both forms of variable, a credential's fields also one by one,
before any user code runs. Names that match a reserved pattern exist only in the first form of variable.
"""

from __future__ import annotations

import fnmatch
import json
import os
import re
from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, MutableMapping, Optional, Sequence, Tuple

PREFIX = "MLOPS_RUNTIME_PARAM_"
TYPES = ("string", "boolean", "numeric", "credential", "deployment")
RESERVED_PATTERNS = ("DRUM_*", "MLOPS_*", "KUBERNETES_*")

# What a stored credential carries besides its secrets; these make no variables of their own.
_CREDENTIAL_BOOKKEEPING = frozenset({"credentialType", "credentialId", "name", "description", "creationDate"})
# Credential types whose only field may also stand as plain text in the variable named like the parameter.
_SINGLE_FIELD_TYPES = {"api_token": "apiToken", "bearer": "token", "gcp": "gcpKey"}


@dataclass(frozen=True)
class Definition:
    """One entry of ``runtimeParameterDefinitions``."""

    name: str
    type: str
    default: Any = None
    minimum: Optional[float] = None
    maximum: Optional[float] = None
    credential_type: Optional[str] = None
    allow_empty: bool = True


@dataclass(frozen=True)
class Parameters:
    """Typed values by name; a declared parameter without a value has ``None``."""

    values: Mapping[str, Any]
    types: Mapping[str, str]
    warnings: Tuple[str, ...] = ()

    def export(self, environ: MutableMapping[str, str]) -> None:
        """Write every value into ``environ`` and make ``RuntimeParameters`` answer with them."""
        for name, value in self.values.items():
            if value is not None:
                environ.update(_variables(name, self.types[name], value))
        RuntimeParameters.replace(self.values)


class RuntimeParameters:
    """What user code imports: ``RuntimeParameters.get("NAME")``."""

    _values: Mapping[str, Any] = {}

    @classmethod
    def get(cls, key: str) -> Any:
        """Return the typed value, a credential as a dict, or ``None`` for a declared parameter without a value.

        Raises ``ValueError`` when there is no such parameter.
        """
        if key in cls._values:
            return cls._values[key]
        text = os.environ.get(PREFIX + key)
        if text is None:
            raise ValueError(
                "runtime parameter {!r} is not set; declare it in model-metadata.yaml under "
                "runtimeParameterDefinitions, or set {}{} or --runtime-params-file".format(key, PREFIX, key)
            )
        return _from_payload(key, text, None)

    @classmethod
    def replace(cls, values: Mapping[str, Any]) -> None:
        """Answer with these values from now on; Backline's to call, before user code runs."""
        cls._values = dict(values)

    @classmethod
    def has(cls, key: str) -> bool:
        """Say whether ``get`` would return a value."""
        return key in cls._values or PREFIX + key in os.environ


def parse_definitions(raw: Sequence[Mapping[str, Any]]) -> List[Definition]:
    """Return the definitions; raises ``ValueError`` naming the entry that is wrong."""
    definitions: List[Definition] = []
    for position, entry in enumerate(raw):
        path = "runtimeParameterDefinitions[{}]".format(position)
        name, kind = entry.get("fieldName"), entry.get("type")
        if not isinstance(name, str) or not name:
            raise ValueError("{}.fieldName: expected a name, got {!r}".format(path, name))
        path = "{} ({})".format(path, name)
        if not isinstance(kind, str) or kind.lower() not in TYPES:
            raise ValueError("{}.type: expected one of {}, got {!r}".format(path, ", ".join(TYPES), kind))
        if any(name == other.name for other in definitions):
            raise ValueError("{}.fieldName: defined twice".format(path))
        limits = [_limit(path, key, entry.get(key), kind.lower()) for key in ("minValue", "maxValue")]
        allow_empty = entry.get("allowEmpty", True)
        if not isinstance(allow_empty, bool):
            raise ValueError(  # noqa: TRY004 - a wrong value in a file, reported with the others
                "{}.allowEmpty: expected true or false, got {!r}".format(path, allow_empty)
            )
        definitions.append(
            Definition(
                name=name,
                type=kind.lower(),
                default=entry.get("defaultValue"),
                minimum=limits[0],
                maximum=limits[1],
                credential_type=entry.get("credentialType"),
                allow_empty=allow_empty,
            )
        )
    return definitions


def _limit(path: str, key: str, value: Any, kind: str) -> Optional[float]:
    if value is None:
        return None
    if kind != "numeric":
        raise ValueError("{}.{}: only numeric parameters have limits, this one is {}".format(path, key, kind))
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(  # noqa: TRY004 - a wrong value in a file, reported with the others
            "{}.{}: expected a number, got {!r}".format(path, key, value)
        )
    return float(value)


def resolve(
    definitions: Sequence[Definition], file_values: Mapping[str, Any], environ: Mapping[str, str]
) -> Parameters:
    """Find every parameter's value and check it; raises ``ValueError`` with all that is wrong, one problem a line."""
    values: Dict[str, Any] = {}
    types: Dict[str, str] = {}
    problems: List[str] = []
    warnings: List[str] = []
    for definition in definitions:
        types[definition.name] = definition.type
        try:
            values[definition.name] = _resolve_one(definition, file_values, environ, warnings)
        except ValueError as exc:
            problems.append(str(exc))
    declared = {definition.name for definition in definitions}
    for name, value in file_values.items():
        if name not in declared:
            values[name], types[name] = value, _type_of(value)
            if declared:
                warnings.append(
                    "runtime parameter {} has a value in the file and no definition in model-metadata.yaml".format(name)
                )
    if problems:
        raise ValueError("\n".join(problems))
    return Parameters(values, types, tuple(warnings))


def _resolve_one(
    definition: Definition, file_values: Mapping[str, Any], environ: Mapping[str, str], warnings: List[str]
) -> Any:
    name = definition.name
    if file_values.get(name) is not None:
        value, source = file_values[name], "--runtime-params-file"
    elif environ.get(PREFIX + name):
        value, source = _from_payload(name, environ[PREFIX + name], definition), PREFIX + name
    elif environ.get(name) and not is_reserved(name):
        value, source = environ[name], "environment variable {}".format(name)
    else:
        value, source = definition.default, "defaultValue"
        if definition.type == "credential" and isinstance(value, str):
            # The default of a credential is the id of one that only the platform can look up.
            warnings.append("runtime parameter {}: a stored credential ({}) cannot be read here".format(name, value))
            value = None
    if value is None or (value == "" and definition.type != "string"):
        if not definition.allow_empty:
            raise ValueError(
                "runtime parameter {0} must be set (allowEmpty: false): pass --runtime-params-file with a value for "
                "it, or set the variable {0}".format(name)
            )
        return None
    return _typed(definition, value, source)


def _typed(definition: Definition, value: Any, source: str) -> Any:
    problem = "runtime parameter {} ({}): expected {{}}, got {!r}".format(definition.name, source, value)
    if definition.type == "numeric":
        number = _number(value)
        if number is None:
            raise ValueError(problem.format("a number"))
        if definition.minimum is not None and number < definition.minimum:
            raise ValueError(problem.format("at least {:g}".format(definition.minimum)))
        if definition.maximum is not None and number > definition.maximum:
            raise ValueError(problem.format("at most {:g}".format(definition.maximum)))
        return number
    if definition.type == "boolean":
        if isinstance(value, bool):
            return value
        if isinstance(value, str) and value.strip().lower() in ("true", "false", "1", "0"):
            return value.strip().lower() in ("true", "1")
        raise ValueError(problem.format("true or false"))
    if definition.type == "credential":
        credential = _credential(definition, value)
        if credential is None:
            # The value is a secret, or part of one: it is not repeated.
            message = "runtime parameter {} ({}): expected the fields of a credential, got {}"
            raise ValueError(message.format(definition.name, source, type(value).__name__))
        return credential
    if isinstance(value, (dict, list)):
        raise ValueError(problem.format("text"))  # noqa: TRY004 - a wrong value, whatever its type
    return value if isinstance(value, str) else str(value)


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return value
    if isinstance(value, str):
        for convert in (int, float):
            try:
                return convert(value)
            except ValueError:
                continue
    return None


def _credential(definition: Definition, value: Any) -> Optional[Dict[str, Any]]:
    if isinstance(value, str):
        try:
            parsed = json.loads(value)
        except ValueError:
            parsed = None
        field = _SINGLE_FIELD_TYPES.get(definition.credential_type or "")
        if isinstance(parsed, dict) and ("credentialType" in parsed or field is None):
            value = parsed
        elif field is not None:
            value = {field: value if parsed is None else parsed}
        else:
            return None
    if not isinstance(value, Mapping):
        return None
    credential = dict(value)
    if definition.credential_type is not None:
        credential.setdefault("credentialType", definition.credential_type)
    return credential


def _from_payload(name: str, text: str, definition: Optional[Definition]) -> Any:
    """Return what a ``MLOPS_RUNTIME_PARAM_`` variable holds; raises ``ValueError`` when it is not such a payload."""
    shape = '{"type": ..., "payload": ...}'
    secret = definition is not None and definition.type == "credential"
    shown = "text that is not" if secret else repr(text)
    try:
        record = json.loads(text)
    except ValueError as exc:
        raise ValueError("{}{}: expected JSON like {}, got {}".format(PREFIX, name, shape, shown)) from exc
    if not isinstance(record, dict) or "payload" not in record:
        raise ValueError("{}{}: expected JSON like {}, got {}".format(PREFIX, name, shape, shown))
    return record["payload"]


def _type_of(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "numeric"
    return "credential" if isinstance(value, Mapping) else "string"


def is_reserved(name: str) -> bool:
    """Say whether the platform keeps this name for itself, so that it has no plain variable."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in RESERVED_PATTERNS)


def _variables(name: str, kind: str, value: Any) -> Dict[str, str]:
    variables = {PREFIX + name: json.dumps({"type": kind, "payload": value})}
    if is_reserved(name):
        return variables
    if not isinstance(value, Mapping):
        variables[name] = _text(value)
        return variables
    fields = {field: item for field, item in value.items() if field not in _CREDENTIAL_BOOKKEEPING}
    for field, item in fields.items():
        if item is not None:
            variables["{}_{}".format(name, _upper_snake(field))] = _text(item)
    if len(fields) == 1:
        variables[name] = _text(next(iter(fields.values())))
    return variables


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _upper_snake(field: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", field).upper()
