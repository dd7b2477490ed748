"""What the files of a model folder say to the server; the model itself is opened by workers alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backline.config.metadata_file import read_metadata_file
from backline.config.runtime_params_file import read_runtime_params
from backline.config.settings import Settings
from backline.errors import ConfigError
from backline_worker.contract.metadata import ModelMetadata


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelFolder:
    """A model folder as read; ``raw_metadata`` is the metadata file as plain JSON values."""

    settings: Settings
    metadata: ModelMetadata
    raw_metadata: Mapping[str, Any]
    runtime_parameter_values: Mapping[str, Any]
    warnings: tuple[str, ...] = ()
    problem: ConfigError | None = None
    """Why the folder cannot be used, where a server is to say so rather than not to start."""
    server_code: Path | None = None
    """Where the operator's code for the server may lie; ``None`` where no directory was named, or nothing is served."""

    has_files: bool = True
    """Whether there is a folder at all; a backend can be all there is."""

    def spec(self) -> dict[str, Any]:
        """Return the JSON object that a worker makes its ``ModelSpec`` of."""
        model = self.settings.model
        return {
            # Links are followed now, so that a worker that is started later loads what the others have loaded.
            "code_dir": os.path.realpath(model.code_dir) if self.has_files else "",
            "target_type": None if model.target_type is None else model.target_type.value,
            "target_name": model.target_name,
            "positive_class_label": model.positive_class_label,
            "negative_class_label": model.negative_class_label,
            "class_labels": list(model.class_labels),
            "metadata": dict(self.raw_metadata),
            "runtime_parameter_values": dict(self.runtime_parameter_values),
            "example": None if model.example is None else str(model.example),
            "max_decompressed_bytes": self.settings.limits.max_decompressed,
            "memory_limit_bytes": self.settings.workers.memory_limit,
            "unknown_columns": model.unknown_columns,
            "strict_validation": model.strict_validation,
            "read_input_data_as_path": model.read_input_data_as_path,
            "latitude_column": model.latitude_column,
            "longitude_column": model.longitude_column,
            "threads": self.settings.workers.threads,
            "chats": self.settings.workers.chats,
            "generates": self.settings.backend.url is not None,
            "prompt_column": self.settings.generation.prompt_column,
        }


def read_model_folder(settings: Settings) -> ModelFolder:
    """Read the metadata and the runtime parameters of the model. Raises ``SettingError``, a ``ConfigError``."""
    metadata_file = read_metadata_file(settings.model.code_dir)
    params_file = settings.model.runtime_params_file
    values = {} if params_file is None else read_runtime_params(params_file, metadata_file.metadata).value or {}
    return ModelFolder(
        settings=settings,
        metadata=metadata_file.metadata,
        raw_metadata=metadata_file.raw,
        runtime_parameter_values=values,
        warnings=metadata_file.warnings,
    )


def no_folder(settings: Settings) -> ModelFolder:
    """Return what stands for the folder where there is no model, only a backend."""
    return ModelFolder(
        settings=settings, metadata=ModelMetadata(), raw_metadata={}, runtime_parameter_values={}, has_files=False
    )


def unusable_folder(settings: Settings, problem: ConfigError) -> ModelFolder:
    """Return the folder that stands for one that could not be read; a server answers with ``problem``."""
    return ModelFolder(
        settings=settings, metadata=ModelMetadata(), raw_metadata={}, runtime_parameter_values={}, problem=problem
    )
