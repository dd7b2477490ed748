"""Reads ``model-metadata.yaml`` of a model folder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backline.config.problems import SettingError
from backline.config.yaml_file import YamlFile, YamlPath, read_yaml
from backline_worker.contract.metadata import MetadataError, ModelMetadata, parse_metadata

FILE_NAME = "model-metadata.yaml"

_TEXT_KEYS = {
    ("name",),
    ("description",),
    ("environmentID",),
    ("modelID",),
    ("inferenceModel", "targetName"),
    ("inferenceModel", "positiveClassLabel"),
    ("inferenceModel", "negativeClassLabel"),
    ("inferenceModel", "classLabelsFile"),
    ("validation", "input"),
}
_TEXT_PARAMETER_TYPES = ("string", "credential", "deployment")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class MetadataFile:
    """The parsed file; ``file`` is ``None`` where the folder has none."""

    metadata: ModelMetadata = dataclasses.field(default_factory=ModelMetadata)
    raw: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    file: YamlFile | None = None

    def where(self, path: str) -> str:
        """Return ``file:line`` of a key such as ``inferenceModel.targetName``."""
        return self.file.where(path) if self.file is not None else FILE_NAME


def read_metadata_file(code_dir: Path) -> MetadataFile:
    """Read the metadata of the model in ``code_dir``. Raises ``SettingError`` naming file, line and the mend."""
    path = code_dir / FILE_NAME
    if not path.exists():
        return MetadataFile(warnings=_misnamed(code_dir))
    file = read_yaml(path, is_text=_is_text)
    raw = file.value if file.value is not None else {}
    if not isinstance(raw, dict):
        raise SettingError(
            "expected keys and values at the top level", where=str(path), mend="write lines such as name: my-model"
        )
    try:
        metadata, warnings = parse_metadata(raw)
    except MetadataError as exc:
        where, what = _placed(file, str(exc))
        expected = re.search(r": expected (.+), got ", what)
        mend = f"write {expected[1]} there" if expected else "mend the value in the file"
        raise SettingError(what, where=where, mend=mend) from exc
    return MetadataFile(
        metadata=metadata,
        raw=raw,
        warnings=tuple(": ".join(_placed(file, warning)) for warning in warnings),
        file=file,
    )


def _is_text(path: YamlPath, siblings: Mapping[str, str]) -> bool:
    if path in _TEXT_KEYS or path[:2] == ("inferenceModel", "classLabels"):
        return True
    if len(path) == 3 and path[0] == "runtimeParameterDefinitions":
        is_default_text = siblings.get("type", "").lower() in _TEXT_PARAMETER_TYPES
        return path[2] in ("fieldName", "description", "credentialType") or (
            path[2] == "defaultValue" and is_default_text
        )
    return False


def _placed(file: YamlFile, message: str) -> tuple[str, str]:
    """Return ``file:line`` and the message, which starts with the path of the value that it is about."""
    path = re.match(r"[\w.\[\]-]*", message)
    return file.where(path[0] if path else ""), message


def _misnamed(code_dir: Path) -> tuple[str, ...]:
    near = [
        name for name in ("model-metadata.yml", "model_metadata.yaml", "metadata.yaml") if (code_dir / name).exists()
    ]
    return tuple(f"{code_dir / name} is not read; rename it to {FILE_NAME}" for name in near)
