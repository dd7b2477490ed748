"""Where settings come from, and which source wins.

The strongest first::

    flags                        --workers 4
    environment                  BACKLINE_WORKERS, then the documented twins: CUSTOM_MODEL_WORKERS, MAX_WORKERS
    runtime parameter            CUSTOM_MODEL_WORKERS in --runtime-params-file, then in MLOPS_RUNTIME_PARAM_...
    backline.toml                in the model directory
    model-metadata.yaml          target type, target name and class labels; the default of CUSTOM_MODEL_WORKERS
    default

A relative path is taken from where it was written: the working directory for flags and variables, the model directory
for its files. An empty environment variable counts as not set.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from backline.config import toml_file
from backline.config.backend_kinds import BACKEND_KINDS
from backline.config.kinds import labels_from_lines, split_labels
from backline.config.metadata_file import MetadataFile, read_metadata_file
from backline.config.option import Option
from backline.config.problems import SettingError, ValueProblem, nearest
from backline.config.python import find_python
from backline.config.runtime_params_file import read_runtime_params
from backline.config.settings import ADDRESS_OPTION, OPTIONS, SECTIONS, Settings
from backline_worker.contract.runtime_params import PREFIX as RUNTIME_PARAMETER_PREFIX
from backline_worker.contract.target_types import TargetType

WORKERS_PARAMETER = "CUSTOM_MODEL_WORKERS"
"""The runtime parameter that sets the number of workers."""

SIDECAR_BACKEND = "http://localhost:8000"
"""The backend of a sidecar that names none: where the documented inference container listens."""

PORT = "{port}"
"""What stands for the backend's port in the command that starts it."""

OUR_PREFIX = "BACKLINE_"

_BY_NAME = {option.dotted: option for option in (*OPTIONS, ADDRESS_OPTION)}

SourceKind = Literal["argument", "flag", "environment", "file", "metadata", "derived", "default"]


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """Where a value was found; reads as ``flag --workers`` or ``/models/churn/backline.toml:4``."""

    kind: SourceKind
    name: str = ""

    def __str__(self) -> str:
        if self.kind in ("file", "metadata", "derived"):
            return self.name
        return f"{self.kind} {self.name}".rstrip()

    @property
    def is_usage(self) -> bool:
        """Whether a wrong value from here is a mistake in how Backline was called."""
        return self.kind in ("argument", "flag", "environment")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """The settings, where each came from by ``section.key``, and what the operator should know."""

    settings: Settings
    sources: Mapping[str, Source]
    warnings: tuple[str, ...] = ()

    def value(self, name: str) -> Any:
        """Return the value of ``section.key``."""
        section, _, key = name.partition(".")
        return getattr(getattr(self.settings, section), key)


@dataclasses.dataclass(frozen=True, slots=True)
class _Found:
    value: Any
    source: Source
    relative_to: Path


_Layer = dict[str, _Found]


def load_settings(
    model_dir: Path | str | None, flags: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> Resolved:
    """Find every setting for the model in ``model_dir`` (``None``: from the variable ``CODE_DIR``).

    ``flags`` has values by ``section.key``, as text or already of the setting's type; ``None`` means not given.
    ``environ`` is the environment of the process where it is not given. Raises ``SettingError``, a ``ConfigError``,
    naming the flag, the variable or the place in the file, and the mend.
    """
    here = Path.cwd()
    environ = os.environ if environ is None else environ
    warnings: list[str] = []
    from_flags = _flag_layer(flags, here)
    from_environment = _environment_layer(environ, here, warnings)
    if model_dir is None:
        _derive_sidecar(from_flags, from_environment, here)
    code_dir = _code_dir(model_dir, from_flags, from_environment, here)
    from_file: _Layer = {}
    metadata = MetadataFile()
    if code_dir.source.kind != "derived":
        in_file = toml_file.read_toml(code_dir.value / toml_file.FILE_NAME, _BY_NAME)
        from_file = _spread_address(
            {name: _Found(value, Source("file", at), code_dir.value) for name, (value, at) in in_file.items()}
        )
        metadata = read_metadata_file(code_dir.value)
    layers = [
        {"model.code_dir": code_dir},
        from_flags,
        from_environment,
        {},  # runtime parameters: which file holds them is itself a setting
        from_file,
        _metadata_layer(metadata, code_dir.value),
    ]
    layers[3] = _runtime_layer(_first(layers, "model.runtime_params_file"), metadata, environ, code_dir.value)
    chosen = {option.dotted: _choose(option, layers, environ) for option in OPTIONS}
    chosen.update(_choose_class_labels(layers, chosen))
    _derive_target_type(chosen)
    _check_target(chosen, warnings)
    _derive_backend(chosen, here)
    return Resolved(
        settings=_build(chosen),
        sources={name: found.source for name, found in chosen.items()},
        warnings=tuple(warnings),
    )


def load_error_server_settings(
    model_dir: Path | str | None, flags: Mapping[str, Any], environ: Mapping[str, str] | None = None
) -> Settings | None:
    """Return how to serve the reason why ``load_settings`` has failed; ``None`` without ``--with-error-server``.

    Only what the server itself needs is looked at: its address, limits and log. Raises ``SettingError`` where these
    cannot be used either.
    """
    here = Path.cwd()
    environ = os.environ if environ is None else environ
    needed = [
        option for option in (*OPTIONS, ADDRESS_OPTION) if option.section in ("server", "limits", "backend", "log")
    ]
    names = {option.dotted for option in needed}
    variables = {variable for option in needed for variable in option.variables}
    layers = [
        _flag_layer({name: value for name, value in flags.items() if name in names}, here),
        _environment_layer({name: text for name, text in environ.items() if name in variables}, here, []),
    ]
    code_dir = Path(os.path.abspath(here / (model_dir or flags.get("model.code_dir") or environ.get("CODE_DIR") or "")))
    with contextlib.suppress(SettingError):  # that file may be the very problem
        found = toml_file.read_toml(code_dir / toml_file.FILE_NAME, _BY_NAME)
        from_file = {name: _Found(value, Source("file", at), code_dir) for name, (value, at) in found.items()}
        layers.append(_spread_address({name: value for name, value in from_file.items() if name in names}))
    chosen = {
        option.dotted: _choose(option, layers, environ)
        if option.dotted in names
        else _Found(option.default, Source("default"), Path())
        for option in OPTIONS
    }
    chosen["model.code_dir"] = _Found(code_dir, Source("argument", "DIR"), here)
    return _build(chosen) if chosen["server.with_error_server"].value else None


def _flag_layer(flags: Mapping[str, Any], here: Path) -> _Layer:
    layer: _Layer = {}
    for name, value in flags.items():
        if value is None or (value == () and _BY_NAME[name].kind.is_list):
            continue
        option = _BY_NAME[name]
        flag = option.flag_for(value)
        layer[name] = _Found(_parsed(option, value, Source("flag", flag)), Source("flag", flag), here)
    return _spread_address(layer)


def _environment_layer(environ: Mapping[str, str], here: Path, warnings: list[str]) -> _Layer:
    layer: _Layer = {}
    known = {variable for option in _BY_NAME.values() for variable in option.variables}
    for name in sorted(environ):
        if name.startswith(OUR_PREFIX) and name not in known:
            near = nearest(name, known, count=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            warnings.append(f"environment variable {name} is no setting of Backline and has no effect{hint}")
    for option in _BY_NAME.values():
        for variable in option.variables:
            text = environ.get(variable, "")
            if not text.strip():
                continue
            source = Source("environment", variable)
            value = _parsed(option, text, source)
            if variable in option.clamped:
                value = _clamped(value, *option.clamped[variable], source, warnings)
            layer[option.dotted] = _Found(value, source, here)
            break
    return _spread_address(layer)


def _clamped(value: float, least: float, most: float, source: Source, warnings: list[str]) -> float:
    clamped = min(max(value, least), most)
    if clamped != value:
        warnings.append(f"{source}: {value:g} is outside {least:g} to {most:g}; {clamped:g} is used")
    return clamped


def _parsed(option: Option, value: Any, source: Source) -> Any:
    try:
        if option.kind.is_list and isinstance(value, list | tuple):
            return split_labels([str(item) for item in value])
        return option.kind.parse(value) if isinstance(value, str) else value
    except ValueProblem as problem:
        raise SettingError(problem.what, where=str(source), mend=problem.mend, usage=source.is_usage) from problem


def _spread_address(layer: _Layer) -> _Layer:
    address = layer.pop(ADDRESS_OPTION.dotted, None)
    if address is not None:
        for name, value in zip(("server.host", "server.port"), address.value, strict=True):
            layer.setdefault(name, _Found(value, address.source, address.relative_to))
    return layer


def _derive_sidecar(flags: _Layer, environment: _Layer, here: Path) -> None:
    """A backend and no model directory: only pass requests on; the directory is where we are, and is not read.

    A text-generation model may be the backend alone: then there are workers, for the rows.
    """
    layers = [flags, environment]
    sidecar = _first(layers, "backend.sidecar")
    named = any(_first(layers, f"backend.{name}") is not None for name in ("url", "kind", "command"))
    if _first(layers, "model.code_dir") is None and (named or (sidecar is not None and sidecar.value)):
        target = _first(layers, "model.target_type")
        if target is None or target.value is not TargetType.TEXT_GENERATION:  # which answers rows by the backend
            flags.setdefault("backend.sidecar", _Found(True, Source("derived", "no model directory"), here))
        flags["model.code_dir"] = _Found(here, Source("derived", "no model directory"), here)


def _derive_backend(chosen: dict[str, _Found], here: Path) -> None:
    """Say where the backend is, where it is not named: where its kind listens, or a sidecar's does.

    With ``{port}`` in its command a free port is taken when it is started.
    """
    url, kind, command = (chosen[f"backend.{name}"] for name in ("url", "kind", "command"))
    sidecar = chosen["backend.sidecar"]
    if command.value and sidecar.value and sidecar.source.kind != "derived":
        raise SettingError(
            "a sidecar starts no backend, as that is somebody else's",
            where=f"{command.source} and {sidecar.source}",
            mend="drop one of the two",
            usage=command.source.is_usage,
        )
    if url.value is not None or (command.value and any(PORT in word for word in command.value)):
        return
    port = BACKEND_KINDS[kind.value].port if kind.value else None
    if port is not None:
        source = Source("derived", str(kind.source))
        chosen["backend.url"] = _Found(f"http://localhost:{port}", source, here)
    elif command.value or kind.value:
        needed = command if command.value else kind
        raise SettingError(
            "it is not said where the backend listens",
            where=str(needed.source),
            mend="put {port} in the command, or name the address with --backend" if command.value else "add --backend",
            usage=needed.source.is_usage,
        )
    elif sidecar.value:
        chosen["backend.url"] = _Found(SIDECAR_BACKEND, Source("derived", "--sidecar"), here)


def _code_dir(model_dir: Path | str | None, flags: _Layer, environment: _Layer, here: Path) -> _Found:
    if model_dir is not None:
        found = _Found(Path(model_dir), Source("argument", "DIR"), here)
    else:
        named = _first([flags, environment], "model.code_dir")
        if named is None:
            raise SettingError(
                "no model directory",
                where="command line",
                mend="name it as the argument DIR, with --code-dir, or in the variable CODE_DIR",
                usage=True,
            )
        found = named
    path = Path(os.path.abspath(here / Path(found.value).expanduser()))
    _check_directory(path, found.source)
    return _Found(path, found.source, here)


def _check_directory(path: Path, source: Source) -> None:
    if not path.exists():
        candidates = (
            sorted(each.name for each in path.parent.iterdir() if each.is_dir()) if path.parent.is_dir() else []
        )
        near = nearest(path.name, candidates, count=1)
        mend = f"did you mean {path.parent / near[0]}?" if near else "check the path"
        raise SettingError(f"there is no directory {path}", where=str(source), mend=mend, usage=True)
    if not path.is_dir():
        raise SettingError(
            f"{path} is a file", where=str(source), mend=f"name the directory it lies in: {path.parent}", usage=True
        )
    if not os.access(path, os.R_OK | os.X_OK):
        raise SettingError(
            f"{path} cannot be read", where=str(source), mend="give the server's user read access to it", usage=True
        )


def _metadata_layer(file: MetadataFile, code_dir: Path) -> _Layer:
    metadata = file.metadata
    values = {
        "model.target_type": ("targetType", metadata.target_type),
        "model.target_name": ("inferenceModel.targetName", metadata.target_name),
        "model.positive_class_label": ("inferenceModel.positiveClassLabel", metadata.positive_class_label),
        "model.negative_class_label": ("inferenceModel.negativeClassLabel", metadata.negative_class_label),
        "model.class_labels": ("inferenceModel.classLabels", metadata.class_labels or None),
        "model.class_labels_file": (
            "inferenceModel.classLabelsFile",
            None if metadata.class_labels_file is None else Path(metadata.class_labels_file),
        ),
    }
    layer = {
        name: _Found(value, Source("metadata", f"{file.where(key)} {key}"), code_dir)
        for name, (key, value) in values.items()
        if value is not None
    }
    for position, definition in enumerate(metadata.runtime_parameter_definitions):
        if definition.get("fieldName") == WORKERS_PARAMETER and definition.get("defaultValue") is not None:
            key = f"runtimeParameterDefinitions[{position}].defaultValue"
            source = Source("metadata", f"{file.where(key)} {WORKERS_PARAMETER}")
            layer["workers.count"] = _Found(_worker_count(definition["defaultValue"], source), source, code_dir)
    return layer


def _runtime_layer(
    params_file: _Found | None, metadata: MetadataFile, environ: Mapping[str, str], code_dir: Path
) -> _Layer:
    """The one runtime parameter that is a setting: first from the file, then from its variable."""
    if params_file is not None:
        path = _checked_file(params_file)
        file = read_runtime_params(path, metadata.metadata)
        value = (file.value or {}).get(WORKERS_PARAMETER)
        if value is not None:
            source = Source("file", f"{file.where(WORKERS_PARAMETER)} {WORKERS_PARAMETER}")
            return {"workers.count": _Found(_worker_count(value, source), source, code_dir)}
    variable = RUNTIME_PARAMETER_PREFIX + WORKERS_PARAMETER
    text = environ.get(variable, "")
    if not text.strip():
        return {}
    source = Source("environment", variable)
    try:
        payload = json.loads(text)["payload"]
    except (ValueError, TypeError, KeyError):
        raise SettingError(
            f"{text!r} is no runtime parameter",
            where=str(source),
            mend='give JSON such as {"type": "numeric", "payload": 2}',
            usage=True,
        ) from None
    if payload is None:
        return {}
    return {"workers.count": _Found(_worker_count(payload, source), source, code_dir)}


def _worker_count(value: Any, source: Source) -> int:
    # A numeric runtime parameter may arrive as 2, 2.0 or "2".
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        raise SettingError(
            f"{WORKERS_PARAMETER} is no whole number",
            where=str(source),
            mend="give a whole number from 1 to 40",
            usage=source.is_usage,
        )
    return int(value)


def _first(layers: Iterable[_Layer], name: str) -> _Found | None:
    return next((layer[name] for layer in layers if name in layer), None)


def _choose(option: Option, layers: list[_Layer], environ: Mapping[str, str]) -> _Found:
    found = _first(layers, option.dotted)
    if option.dotted == "workers.env_cache" and found is not None:
        return dataclasses.replace(
            found, value=Path(os.path.abspath(found.relative_to / Path(found.value).expanduser()))
        )
    if found is None:
        return _Found(option.default, Source("default"), Path())
    _check_range(option, found)
    if option.dotted == "workers.python":
        try:
            python = find_python(found.value, relative_to=found.relative_to, search_path=environ.get("PATH"))
        except ValueProblem as problem:
            raise SettingError(
                problem.what, where=str(found.source), mend=problem.mend, usage=found.source.is_usage
            ) from problem
        return dataclasses.replace(found, value=python)
    if option.kind.is_path and option.dotted != "model.code_dir":
        return dataclasses.replace(found, value=_checked_file(found))
    if option.kind.metavar == "TEXT" and found.value == "":
        raise SettingError(
            f"{option.dotted} is empty", where=str(found.source), mend="give a text", usage=found.source.is_usage
        )
    return found


def _check_range(option: Option, found: _Found) -> None:
    value = found.value
    if isinstance(value, bool) or not isinstance(value, int | float) or (option.zero and value == 0):
        return
    least, most = option.least, option.most
    if (least is None or value >= least) and (most is None or value <= most):
        return
    shown = [option.show(type(value)(limit)) if limit is not None else "" for limit in (least, most)]
    wanted = f"from {shown[0]} to {shown[1]}" if all(shown) else f"of at least {shown[0]}"
    zero = f", or 0 for {option.zero}" if option.zero else ""
    raise SettingError(
        f"{option.show(value)} is out of range for {option.dotted}",
        where=str(found.source),
        mend=f"give a value {wanted}{zero}",
        usage=found.source.is_usage,
    )


def _checked_file(found: _Found) -> Path:
    path = Path(os.path.abspath(found.relative_to / Path(found.value).expanduser()))
    if path.is_file() and os.access(path, os.R_OK):
        return path
    what = (
        f"there is no file {path}"
        if not path.exists()
        else f"{path} is a directory"
        if path.is_dir()
        else f"{path} cannot be read"
    )
    raise SettingError(what, where=str(found.source), mend="name a readable file", usage=found.source.is_usage)


def _choose_class_labels(layers: list[_Layer], chosen: Mapping[str, _Found]) -> dict[str, _Found]:
    """Labels and labels file are two spellings of one setting: the strongest source that has either wins."""
    for layer in layers:
        labels, file = layer.get("model.class_labels"), layer.get("model.class_labels_file")
        if labels is not None and file is not None:
            raise SettingError(
                "class labels and a class labels file are both given",
                where=f"{labels.source} and {file.source}",
                mend="keep one of the two",
                usage=labels.source.is_usage,
            )
        if labels is not None:
            return {"model.class_labels": labels, "model.class_labels_file": _Found(None, Source("default"), Path())}
        if file is not None:
            path = _checked_file(file)
            return {
                "model.class_labels": _Found(_labels_in(path), Source("derived", f"{path} ({file.source})"), Path()),
                "model.class_labels_file": dataclasses.replace(file, value=path),
            }
    return {}


def _labels_in(path: Path) -> tuple[str, ...]:
    try:
        return labels_from_lines(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise SettingError(f"is not UTF-8 (byte {exc.start})", where=str(path), mend="save it as UTF-8 text") from exc
    except ValueProblem as problem:
        raise SettingError(problem.what, where=str(path), mend=f"{problem.mend}, one a line") from problem


def _derive_target_type(chosen: dict[str, _Found]) -> None:
    """Labels alone say which kind of classification it is, as they always did on the documented command line."""
    if chosen["model.target_type"].value is not None:
        return
    positive, negative = chosen["model.positive_class_label"], chosen["model.negative_class_label"]
    labels = chosen["model.class_labels"]
    if positive.value is not None and negative.value is not None:
        chosen["model.target_type"] = _Found(
            TargetType.BINARY, Source("derived", f"the two class labels ({positive.source})"), Path()
        )
    elif labels.value:
        chosen["model.target_type"] = _Found(
            TargetType.MULTICLASS, Source("derived", f"the class labels ({labels.source})"), Path()
        )


def _check_target(chosen: Mapping[str, _Found], warnings: list[str]) -> None:
    target_type: TargetType | None = chosen["model.target_type"].value
    positive, negative = chosen["model.positive_class_label"], chosen["model.negative_class_label"]
    if positive.value is not None and positive.value == negative.value:
        raise SettingError(
            f"positive and negative class label are both {positive.value!r}",
            where=f"{positive.source} and {negative.source}",
            mend="give two different labels",
            usage=positive.source.is_usage or negative.source.is_usage,
        )
    # That a label is missing is told by the worker, which may know it from the artifact.
    labels = chosen["model.class_labels"]
    if target_type is not TargetType.BINARY and (positive.value or negative.value):
        warnings.append(_unused("positive and negative class label", target_type, (positive, negative)))
    if labels.value and (target_type is None or not target_type.has_class_labels):
        warnings.append(_unused("class labels", target_type, (labels,)))
    if target_type is TargetType.BINARY and len(labels.value) > 2:
        raise SettingError(
            f"{len(labels.value)} class labels for a binary model",
            where=str(labels.source),
            mend="give two labels, or the target type multiclass",
            usage=labels.source.is_usage,
        )


def _unused(what: str, target_type: TargetType | None, given: Iterable[_Found]) -> str:
    sources = ", ".join(str(found.source) for found in given if found.value)
    kind = target_type.value if target_type is not None else "unknown"
    return f"{what} ({sources}) has no meaning for the target type {kind} and is not used"


def _build(chosen: Mapping[str, _Found]) -> Settings:
    by_section: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    for name, found in chosen.items():
        section, _, key = name.partition(".")
        by_section[section][key] = found.value
    return Settings(**{section: SECTIONS[section](**values) for section, values in by_section.items()})
