from __future__ import annotations

from typing import Any

import pytest

from backline_worker.contract.metadata import MetadataError, parse_metadata
from backline_worker.contract.target_types import TargetType


def test_every_documented_key_is_read() -> None:
    metadata, warnings = parse_metadata(
        {
            "name": "churn",
            "type": "inference",
            "targetType": "Binary",
            "environmentID": "5e8c",
            "modelID": "5e8d",
            "description": "who leaves",
            "majorVersion": False,
            "inferenceModel": {
                "targetName": "left",
                "positiveClassLabel": 1,
                "negativeClassLabel": 0,
                "predictionThreshold": 0.4,
            },
            "validation": {"input": "rows.csv"},
            "typeSchema": {"input_requirements": [{"field": "sparse", "condition": "EQUALS", "value": "FORBIDDEN"}]},
            "runtimeParameterDefinitions": [{"fieldName": "DEPTH", "type": "numeric"}],
            "inputSchema": {"type": "object"},
        }
    )
    assert warnings == []
    assert metadata.target_type is TargetType.BINARY
    assert (metadata.positive_class_label, metadata.negative_class_label) == ("1", "0")
    assert metadata.target_name == "left"
    assert metadata.prediction_threshold == 0.4
    assert metadata.validation_input == "rows.csv"
    assert metadata.input_schema == {"type": "object"}
    assert not metadata.major_version
    assert len(metadata.input_requirements) == len(metadata.runtime_parameter_definitions) == 1


def test_unknown_keys_are_warned_about_with_the_nearest_known_one() -> None:
    _, warnings = parse_metadata({"name": "x", "targettype": "binary", "inferenceModel": {"classLabel": ["a"]}})
    assert warnings == [
        "targettype: unknown key, ignored; did you mean targetType?",
        "inferenceModel.classLabel: unknown key, ignored; did you mean classLabels?",
    ]


def test_label_that_yaml_made_a_truth_value_is_warned_about() -> None:
    metadata, warnings = parse_metadata({"name": "x", "inferenceModel": {"positiveClassLabel": True}})
    assert metadata.positive_class_label == "True"
    assert "put a word such as yes in quotes" in warnings[0]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"inferenceModel": {"classLabels": 3}}, "inferenceModel.classLabels: expected a list of strings, got int"),
        ({"inferenceModel": []}, "inferenceModel: expected keys and values, got a list"),
        ({"inferenceModel": {"classLabels": [{}]}}, r"inferenceModel.classLabels\[0\]: expected a string"),
        ({"inferenceModel": {"classLabels": ["a", "a"]}}, "classLabels: a listed more than once"),
        ({"targetType": "bianry"}, "targetType: unknown target type 'bianry'"),
        ({"type": "serving"}, "type: expected inference or training, got 'serving'"),
        ({"majorVersion": "no"}, "majorVersion: expected true or false, got a string"),
        ({"inferenceModel": {"predictionThreshold": "high"}}, "inferenceModel.predictionThreshold: expected a number"),
        (
            {"typeSchema": {"input_requirements": [{"field": "colour"}]}},
            r"typeSchema.input_requirements\[0\].field: expected one of data_types",
        ),
        (
            {"runtimeParameterDefinitions": [{"fieldName": "A", "type": "text"}]},
            r"runtimeParameterDefinitions\[0\] \(A\).type: expected one of string",
        ),
        (
            {"inferenceModel": {"positiveClassLabel": "a", "negativeClassLabel": "a"}},
            "negativeClassLabel: the same as positiveClassLabel",
        ),
        ([], "expected keys and values at the top level, got a list"),
    ],
    ids=str,
)
def test_wrong_value_is_named_by_its_path(raw: Any, message: str) -> None:
    with pytest.raises(MetadataError, match=message):
        parse_metadata(raw)
