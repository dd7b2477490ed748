"""Reads the file named by ``--runtime-params-file``: a YAML mapping of parameter to value."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from backline.config.problems import SettingError
from backline.config.yaml_file import YamlFile, YamlPath, read_yaml
from backline_worker.contract.metadata import ModelMetadata


def read_runtime_params(path: Path, metadata: ModelMetadata) -> YamlFile:
    """Return the file's values by parameter name. Raises ``SettingError``.

    Values of parameters defined as text, and the fields of credentials, are kept as written: a version 1.10 or a key
    0123 is text. Whether values fit their definitions is checked in the worker, where the parameters are exported.
    """
    types = {
        str(definition.get("fieldName")): str(definition.get("type")).lower()
        for definition in metadata.runtime_parameter_definitions
    }

    def is_text(place: YamlPath, siblings: Mapping[str, str]) -> bool:
        return len(place) > 1 or types.get(str(place[0])) in ("string", "credential", "deployment")

    file = read_yaml(path, is_text=is_text)
    if file.value is not None and not isinstance(file.value, dict):
        raise SettingError(
            "expected a mapping of parameter to value", where=str(path), mend="write lines such as MY_PARAMETER: 5"
        )
    return file
