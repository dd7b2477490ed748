from __future__ import annotations

import json
from pathlib import Path

import pytest

from backline.config.model_folder import ModelFolder, read_model_folder
from backline.config.problems import SettingError
from backline.config.sources import load_settings
from backline_worker.types import ModelSpec


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def write(folder: Path, text: str, name: str = "model-metadata.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def read(folder: Path, params: Path | None = None) -> ModelFolder:
    return read_model_folder(load_settings(folder, {"model.runtime_params_file": params}, {}).settings)


def refused(folder: Path, params: Path | None = None) -> SettingError:
    with pytest.raises(SettingError) as caught:
        read(folder, params)
    return caught.value


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_a_folder_without_metadata_is_fine(folder: Path, text: str | None) -> None:
    if text is not None:
        write(folder, text)
    assert read(folder).raw_metadata == {}


def test_the_spec_is_what_a_worker_takes(folder: Path) -> None:
    write(folder, "name: m\ntargetType: multiclass\ninferenceModel:\n  classLabels: [1, 2]\n  targetName: y\n")
    spec = ModelSpec.from_json(json.loads(json.dumps(read(folder).spec())))
    assert spec.code_dir == str(folder)
    assert spec.target_type == "multiclass"
    assert list(spec.class_labels) == ["1", "2"]
    assert spec.max_decompressed_bytes == 4 * 1024**3


@pytest.mark.parametrize(
    ("text", "place", "mend"),
    [
        ("name: m\n\ttargetType: binary\n", ":2:1", "no tabs"),
        ("name: a: b\n", ":1:8", "quotes"),
        ("name: m\nname: n\n", ":2:1", "keep one of the two"),
        ("name: 'm\n", ":2:1", "close the quotes"),
        ("name: *m\n", ":1:7", "starts with *"),
        ("name: @m\n", ":1:7", "starts with @"),
        ("name: m\nvalidation: !x 3\n", ":2:13", "without a tag"),
        ("name: m\n---\nname: n\n", ":2:1", "one document"),
        ("name: m\ninputSchema: &a\n  b: *a\n", ":2:14", "mend"),
        ("- m\n", "", "name: my-model"),
        ("name: m\x01\n", ":1", "remove it"),
    ],
)
def test_broken_yaml_is_told_with_its_place_and_the_mend(folder: Path, text: str, place: str, mend: str) -> None:
    path = write(folder, text)
    error = refused(folder)
    assert error.where == f"{path}{place}"
    assert mend in error.mend
    assert not error.usage


def test_a_file_that_is_not_utf8_is_told(folder: Path) -> None:
    (folder / "model-metadata.yaml").write_bytes(b"name: caf\xe9\n")
    assert "UTF-8" in refused(folder).what


def test_a_wrong_type_is_told_with_its_line(folder: Path) -> None:
    path = write(folder, "name: m\ninferenceModel:\n  targetName: y\n  predictionThreshold: high\n")
    error = refused(folder)
    assert error.where == f"{path}:4"
    assert "inferenceModel.predictionThreshold" in error.what


def test_an_unknown_key_is_a_warning_with_its_line_and_the_nearest(folder: Path) -> None:
    path = write(folder, "name: m\ninferenceModel:\n  tragetName: y\n")
    (warning,) = read(folder).warnings
    assert warning.startswith(f"{path}:3: ")
    assert "did you mean targetName?" in warning


def test_text_stays_as_written_and_the_rest_is_typed(folder: Path) -> None:
    write(
        folder,
        "name: 2024-01-01\nruntimeParameterDefinitions:\n"
        "- {fieldName: VERSION, type: string, defaultValue: 1.10}\n"
        "- {fieldName: LIMIT, type: numeric, defaultValue: 1.10}\n"
        "- {fieldName: ON, type: boolean, defaultValue: yes}\n"
        "- {fieldName: NOTHING, type: string, defaultValue: null}\n",
    )
    folder_read = read(folder)
    assert folder_read.metadata.name == "2024-01-01"
    definitions = folder_read.metadata.runtime_parameter_definitions
    assert [definition["defaultValue"] for definition in definitions] == ["1.10", 1.1, True, None]


def test_a_date_stays_text_so_that_everything_is_json(folder: Path) -> None:
    write(folder, "name: m\ninputSchema:\n  since: 2024-01-01\n  1: one\n")
    assert read(folder).raw_metadata["inputSchema"] == {"since": "2024-01-01", "1": "one"}


def test_merge_keys_are_followed(folder: Path) -> None:
    write(folder, "name: m\ninputSchema:\n  base: &base {a: 1}\n  more: {<<: *base, b: 2}\n")
    assert read(folder).raw_metadata["inputSchema"]["more"] == {"a": 1, "b": 2}


def test_runtime_parameters_keep_text_of_text_parameters_and_credentials(folder: Path) -> None:
    write(folder, "name: m\nruntimeParameterDefinitions:\n- {fieldName: VERSION, type: string}\n")
    params = write(folder, "VERSION: 1.10\nLIMIT: 1.10\nKEY:\n  credentialType: basic\n  password: 0123\n", "p.yaml")
    assert read(folder, params).runtime_parameter_values == {
        "VERSION": "1.10",
        "LIMIT": 1.1,
        "KEY": {"credentialType": "basic", "password": "0123"},
    }


def test_runtime_parameters_that_are_no_mapping_are_told(folder: Path) -> None:
    params = write(folder, "- 1\n", "p.yaml")
    assert refused(folder, params).where == str(params)


def test_a_misnamed_metadata_file_is_told(folder: Path) -> None:
    write(folder, "name: m\n", "model-metadata.yml")
    (warning,) = read(folder).warnings
    assert "rename it to model-metadata.yaml" in warning
