"""The OpenAPI document: valid, complete, and with examples of the model that is served."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from backline.api.error_table import TABLE, example_body
from backline.api.model_example import ModelExample
from backline.api.openapi import build_openapi
from backline_worker.codecs.formats import SUPPORTED_INPUT, SUPPORTED_OUTPUT
from backline_worker.contract.target_types import TargetType

if TYPE_CHECKING:
    from collections.abc import Iterator

WARM_UP = {"source": "example", "content_type": "text/csv", "body": 'sepal length,"a ""b"""\n5.1,x\n'}
IRIS = {
    "target_type": "multiclass",
    "class_labels": ["setosa", "versicolor", "virginica"],
    "library": "scikit-learn",
    "library_version": "1.9.1",
    "features": ["sepal length", "petal length"],
}
INFOS: dict[str, dict[str, Any] | None] = {
    "not loaded": None,
    "empty": {},
    "iris": IRIS,
    "iris with an example": {**IRIS, "warm_up": WARM_UP},
    "nothing known": {"target_type": None, "features": None, "class_labels": [], "warm_up": None, "library": None},
    "unstructured with an example": {
        "target_type": "unstructured",
        "warm_up": {"content_type": "application/json", "body": '{"q": 1}'},
    },
    "chat": {
        "target_type": "agenticworkflow",
        "chat": True,
        "warm_up": {"content_type": "application/json", "body": '{"model": "m", "messages": [], "top_k": 3}'},
    },
    "broken warm-up": {"warm_up": {"content_type": "application/json", "body": "not JSON"}},
    **{kind.value: {"target_type": kind.value, "target_name": "price"} for kind in TargetType},
}

# Contract, section 3.2, and the two probes.
ROUTES = {
    ("get", "/"),
    ("get", "/ping/"),
    ("get", "/health/"),
    ("get", "/livez/"),
    ("get", "/readyz/"),
    ("get", "/stats/"),
    ("get", "/metrics"),
    ("get", "/v1/metrics"),
    ("get", "/info/"),
    ("get", "/capabilities/"),
    ("post", "/predict/"),
    ("post", "/predictions/"),
    ("post", "/invocations/"),
    ("post", "/predictUnstructured/"),
    ("post", "/predictionsUnstructured/"),
    ("post", "/transform/"),
    ("post", "/chat/completions"),
    ("post", "/v1/chat/completions"),
    ("get", "/models"),
    ("get", "/v1/models"),
    *(
        (method, version + path)
        for version in ("", "/v1")
        for method, path in (
            ("post", "/completions"),
            ("post", "/embeddings"),
            ("post", "/responses"),
            ("get", "/responses/{id}"),
            ("post", "/responses/{id}/cancel"),
            ("get", "/models/{id}"),
        )
    ),
    *((method, f"/{root}/{{path}}") for root in ("directAccess", "nim") for method in ("get", "post", "put")),
    ("post", "/shutdown/"),
}


def build(info: dict[str, Any] | None = None, prefix: str = "") -> dict[str, Any]:
    return build_openapi(info, prefix=prefix, version="1.2.3")


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def structure(value: Any) -> Any:
    """Return the document without what is taken from the model."""
    if isinstance(value, dict):
        content = {key for key in value if key in ("*/*", "text/plain")}
        return {
            key: structure(item)
            for key, item in value.items()
            if key not in ("example", "description") and not (content == {"*/*", "text/plain"} and key not in content)
        }
    return [structure(item) for item in value] if isinstance(value, list) else value


def example(document: dict[str, Any], path: str, content_type: str) -> Any:
    return document["paths"][path]["post"]["requestBody"]["content"][content_type]["example"]


@pytest.mark.parametrize(("name", "prefix"), [("not loaded", ""), ("iris with an example", "/deployments/42")])
def test_the_document_is_valid_openapi(name: str, prefix: str) -> None:
    OpenAPIV31SpecValidator(build(INFOS[name], prefix)).validate()


@pytest.mark.parametrize("info", INFOS.values(), ids=INFOS)
def test_the_document_is_plain_json_and_only_its_examples_depend_on_the_model(info: dict[str, Any] | None) -> None:
    """So that the slow validation need not be repeated for each model."""
    document = build(info)
    assert structure(document) == structure(build())
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_every_route_of_the_contract_is_there_and_no_other() -> None:
    assert {(method, path) for method, path, _ in operations(build())} == ROUTES


def test_operations_have_an_id_of_their_own_a_known_tag_and_a_summary() -> None:
    document = build()
    found = [operation for _, _, operation in operations(document)]
    assert len({operation["operationId"] for operation in found}) == len(found)
    tags = {tag["name"] for tag in document["tags"]}
    assert {tag for operation in found for tag in operation["tags"]} == tags
    assert all(operation["summary"] for operation in found)


@pytest.mark.parametrize(("prefix", "url"), [("", "/"), ("/a/b", "/a/b")])
def test_the_prefix_is_the_servers_url(prefix: str, url: str) -> None:
    assert build(prefix=prefix)["servers"] == [{"url": url}]


def test_every_error_of_the_table_is_shown_with_its_body() -> None:
    document = build()
    shown: dict[str, Any] = {}
    responses = [response for _, _, operation in operations(document) for response in operation["responses"].values()]
    for response in [*responses, *document["components"]["responses"].values()]:
        for key, sample in response["content"].get("application/json", {}).get("examples", {}).items():
            shown.setdefault(key.replace(".", "/"), []).append(sample["value"])
    # The admin address, where a reload fails, is not described here.
    assert set(shown) == set(TABLE) - {"reload_failed"}
    for key, bodies in shown.items():
        allowed = [example_body(TABLE[key], "native"), example_body(TABLE[key], "openai")]
        assert all(body in allowed for body in bodies)


def test_errors_stand_under_their_status() -> None:
    for _, _, operation in operations(build()):
        for status, response in operation["responses"].items():
            samples = response["content"].get("application/json", {}).get("examples", {})
            for key in samples:
                row = TABLE[key.replace(".", "/")]
                assert status in ("4XX", "5XX") if row.status_from_user else status == str(row.status)


def test_chat_routes_show_errors_as_openai_clients_expect_them() -> None:
    response = build()["paths"]["/v1/chat/completions"]["post"]["responses"]["404"]["content"]["application/json"]
    assert response["schema"] == {"$ref": "#/components/schemas/OpenAIError"}
    assert response["examples"]["operation_unavailable"]["value"]["error"]["code"] == "operation_unavailable"


def test_retry_after_and_the_marked_user_error_are_documented() -> None:
    responses = build()["paths"]["/predict/"]["post"]["responses"]
    assert "Retry-After" in responses["503"]["headers"]
    assert "X-Drum-User-Http-Error" in responses["4XX"]["headers"]
    assert "Retry-After" not in responses["500"]["headers"]


def test_every_format_that_the_worker_reads_or_writes_is_documented() -> None:
    predict = build()["paths"]["/predict/"]["post"]
    assert set(predict["requestBody"]["content"]) == {*SUPPORTED_INPUT, "multipart/form-data"}
    assert set(predict["responses"]["200"]["content"]) == set(SUPPORTED_OUTPUT)


def test_examples_are_the_models_own_row() -> None:
    document = build(INFOS["iris with an example"])
    for path in ("/predict/", "/predictions/", "/invocations/", "/transform/"):
        assert example(document, path, "text/csv") == WARM_UP["body"]
        assert example(document, path, "application/json") == [{"sepal length": 5.1, 'a "b"': "x"}]
        assert example(document, path, "multipart/form-data") == {"X": WARM_UP["body"]}


def test_without_a_row_the_features_make_one() -> None:
    document = build(IRIS)
    assert example(document, "/predict/", "text/csv") == "sepal length,petal length\n0,0\n"
    assert example(document, "/predict/", "application/json") == [{"sepal length": 0, "petal length": 0}]


def test_too_many_features_make_no_example() -> None:
    document = build({"features": [f"x{i}" for i in range(1000)]})
    assert len(example(document, "/predict/", "text/csv")) < 100


def test_examples_of_chat_and_unstructured_models_are_their_own() -> None:
    chat = example(build(INFOS["chat"]), "/chat/completions", "application/json")
    assert chat == {"model": "m", "messages": [], "top_k": 3}
    document = build(INFOS["unstructured with an example"])
    assert example(document, "/predictUnstructured/", "application/json") == '{"q": 1}'
    assert "messages" in example(build(INFOS["broken warm-up"]), "/chat/completions", "application/json")


def test_the_answer_has_the_models_labels() -> None:
    answer = build(IRIS)["paths"]["/predict/"]["post"]["responses"]["200"]["content"]
    [row] = answer["application/json"]["example"]["predictions"]
    assert list(row) == IRIS["class_labels"]
    assert sum(row.values()) == pytest.approx(1)
    [parsed] = csv.DictReader(io.StringIO(answer["text/csv"]["example"]))
    assert {label: float(value) for label, value in parsed.items()} == row


@pytest.mark.parametrize(
    ("target_type", "shape"),
    [("regression", float), ("anomaly", float), ("binary", dict), ("geopoint", dict), ("textgeneration", str)],
)
def test_the_answer_has_the_shape_of_the_target_type(target_type: str, shape: type) -> None:
    [value] = ModelExample({"target_type": target_type, "target_name": "answer"}).predictions
    assert isinstance(value, shape)


def test_the_csv_of_a_text_model_is_named_for_its_target() -> None:
    assert ModelExample({"target_type": "textgeneration", "target_name": "reply"}).predictions_csv.startswith("reply\n")


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1", 1), ("1.5", 1.5), ("", None), ("NaN", "NaN"), ("1e999", "1e999"), ("true", "true"), ("007", "007")],
)
def test_cells_become_json_values(cell: str, value: object) -> None:
    warm_up = {"content_type": "text/csv", "body": f"a,b\n{cell},x\n"}
    assert ModelExample({"warm_up": warm_up}).records == [{"a": value, "b": "x"}]
