from __future__ import annotations

import json
from typing import Any

import pytest

from backline_worker.contract.runtime_params import RuntimeParameters, parse_definitions, resolve


def resolved(
    *definitions: dict[str, Any], file: dict[str, Any] | None = None, env: dict[str, str] | None = None
) -> Any:
    return resolve(parse_definitions(definitions), file or {}, env or {})


def exported(*definitions: dict[str, Any], **sources: Any) -> dict[str, str]:
    environ: dict[str, str] = {}
    resolved(*definitions, **sources).export(environ)
    return environ


@pytest.fixture(autouse=True)
def no_parameters() -> Any:
    yield
    RuntimeParameters.replace({})


NUMBER = {"fieldName": "DEPTH", "type": "numeric", "minValue": 1, "maxValue": 9}
SECRET = {"fieldName": "MAIN_AWS_CREDENTIAL", "type": "credential", "credentialType": "s3"}


def test_value_comes_from_file_then_payload_then_plain_variable_then_default() -> None:
    definition = {**NUMBER, "defaultValue": 1}
    payload = {"MLOPS_RUNTIME_PARAM_DEPTH": json.dumps({"type": "numeric", "payload": 3}), "DEPTH": "4"}
    assert resolved(definition, file={"DEPTH": 2}, env=payload).values["DEPTH"] == 2
    assert resolved(definition, env=payload).values["DEPTH"] == 3
    assert resolved(definition, env={"DEPTH": "4"}).values["DEPTH"] == 4
    assert resolved(definition).values["DEPTH"] == 1


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("numeric", "5", 5),
        ("numeric", "2.5", 2.5),
        ("boolean", "true", True),
        ("boolean", "False", False),
        ("string", "12", "12"),
        ("deployment", "5f1a", "5f1a"),
    ],
)
def test_plain_variable_is_read_as_the_declared_type(kind: str, text: str, value: Any) -> None:
    found = resolved({"fieldName": "P", "type": kind}, env={"P": text}).values["P"]
    assert found == value
    assert type(found) is type(value)


def test_both_forms_of_variable_are_exported_and_get_is_typed() -> None:
    environ = exported({"fieldName": "FLAG", "type": "boolean"}, file={"FLAG": True})
    assert environ["FLAG"] == "true"
    assert json.loads(environ["MLOPS_RUNTIME_PARAM_FLAG"]) == {"type": "boolean", "payload": True}
    assert RuntimeParameters.get("FLAG") is True
    assert RuntimeParameters.has("FLAG")


def test_reserved_names_have_no_plain_variable() -> None:
    definition = {"fieldName": "DRUM_THING", "type": "string"}
    environ = exported(definition, file={"DRUM_THING": "x"})
    assert list(environ) == ["MLOPS_RUNTIME_PARAM_DRUM_THING"]
    assert resolved(definition, env={"DRUM_THING": "x"}).values["DRUM_THING"] is None


def test_credential_is_a_dict_and_its_fields_are_variables() -> None:
    fields = {"credentialType": "s3", "awsAccessKeyId": "AKIA", "awsSecretAccessKey": "s", "config": {"a": 1}}
    environ = exported(SECRET, file={"MAIN_AWS_CREDENTIAL": fields})
    assert environ["MAIN_AWS_CREDENTIAL_AWS_ACCESS_KEY_ID"] == "AKIA"
    assert environ["MAIN_AWS_CREDENTIAL_AWS_SECRET_ACCESS_KEY"] == "s"
    assert environ["MAIN_AWS_CREDENTIAL_CONFIG"] == '{"a": 1}'
    assert "MAIN_AWS_CREDENTIAL" not in environ
    assert RuntimeParameters.get("MAIN_AWS_CREDENTIAL") == fields


def test_credential_of_one_field_also_stands_in_the_plain_variable() -> None:
    definition = {"fieldName": "TOKEN", "type": "credential", "credentialType": "api_token"}
    environ = exported(definition, env={"TOKEN": "secret"})
    assert environ["TOKEN"] == environ["TOKEN_API_TOKEN"] == "secret"
    assert RuntimeParameters.get("TOKEN") == {"apiToken": "secret", "credentialType": "api_token"}


def test_declared_parameter_without_a_value_is_none_and_not_exported() -> None:
    assert exported(NUMBER) == {}
    assert RuntimeParameters.get("DEPTH") is None


def test_missing_parameter_raises_value_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLOPS_RUNTIME_PARAM_NOTHING", raising=False)
    with pytest.raises(ValueError, match="'NOTHING' is not set"):
        RuntimeParameters.get("NOTHING")
    assert not RuntimeParameters.has("NOTHING")


def test_payload_variable_of_an_undeclared_parameter_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLOPS_RUNTIME_PARAM_LLM_ID", '{"type": "string", "payload": "gpt"}')
    assert RuntimeParameters.get("LLM_ID") == "gpt"


def test_file_without_definitions_is_taken_as_it_is() -> None:
    assert exported(file={"A": 1})["A"] == "1"
    assert resolved(file={"A": 1}).warnings == ()
    assert "no definition" in resolved(NUMBER, file={"A": 1}).warnings[0]


def test_all_wrong_values_are_told_at_once() -> None:
    with pytest.raises(ValueError, match=r"DEPTH.*at most 9.*\n.*FLAG.*true or false, got 'maybe'"):
        resolved(NUMBER, {"fieldName": "FLAG", "type": "boolean"}, file={"DEPTH": 10}, env={"FLAG": "maybe"})


@pytest.mark.parametrize(
    ("definition", "sources", "message"),
    [
        (NUMBER, {"file": {"DEPTH": 0.5}}, "at least 1"),
        (NUMBER, {"file": {"DEPTH": "deep"}}, "expected a number, got 'deep'"),
        (NUMBER, {"env": {"MLOPS_RUNTIME_PARAM_DEPTH": "4"}}, "expected JSON like"),
        ({**NUMBER, "allowEmpty": False}, {}, "DEPTH must be set"),
        ({"fieldName": "S", "type": "string"}, {"file": {"S": [1]}}, "expected text"),
    ],
    ids=str,
)
def test_wrong_value_is_refused(definition: dict[str, Any], sources: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolved(definition, **sources)


def test_secrets_are_not_repeated_in_messages() -> None:
    with pytest.raises(ValueError, match="fields of a credential") as caught:
        resolved(SECRET, env={"MAIN_AWS_CREDENTIAL": "hunter2"})
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ValueError, match="expected JSON like") as caught:
        resolved(SECRET, env={"MLOPS_RUNTIME_PARAM_MAIN_AWS_CREDENTIAL": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_stored_credential_cannot_be_read_here() -> None:
    found = resolved({**SECRET, "defaultValue": "65f9b27eab986d30d4c64268"})
    assert found.values["MAIN_AWS_CREDENTIAL"] is None
    assert "cannot be read here" in found.warnings[0]


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        ({"type": "string"}, r"\[0\]\.fieldName: expected a name"),
        ({"fieldName": "A", "type": "string", "minValue": 1}, "only numeric parameters have limits"),
        ({"fieldName": "A", "type": "numeric", "maxValue": "x"}, "maxValue: expected a number"),
        ({"fieldName": "A", "type": "string", "allowEmpty": "no"}, "allowEmpty: expected true or false"),
    ],
    ids=str,
)
def test_wrong_definition_is_refused(definition: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_definitions([definition])


def test_parameter_defined_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="defined twice"):
        parse_definitions([NUMBER, NUMBER])
