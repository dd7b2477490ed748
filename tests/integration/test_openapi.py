"""What ``/openapi.json`` of a running server documents is what that server does, for every operation and example."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema
import pytest

from tests.integration.load import Answer, request
from tests.integration.project_models import serve_binary, serve_template
from tests.serving import ServeFixture, Server

pytestmark = [pytest.mark.slow, pytest.mark.track]

ROOT = Path(__file__).parents[2]
PREDICT = ("/predict/", "/predictions/", "/invocations/")
UNSTRUCTURED = ("/predictUnstructured/", "/predictionsUnstructured/")
CHAT = ("/chat/completions", "/v1/chat/completions")
MODELS = ("/models", "/v1/models")
STATUS = (
    "/",
    "/livez/",
    "/ping/",
    "/health/",
    "/readyz/",
    "/stats/",
    "/metrics",
    "/v1/metrics",
    "/info/",
    "/capabilities/",
)
ALWAYS_REFUSED = {"/shutdown/": 403, "/directAccess/{path}": 400, "/nim/{path}": 400}


class Example(NamedTuple):
    """One request that the document shows."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes | None
    responses: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.headers.get('Content-Type', '')}"


class Served(NamedTuple):
    """A server, its document, and which operations its model offers."""

    server: Server
    document: dict[str, Any]
    offers: frozenset[str]

    @property
    def base(self) -> str:
        parts = urllib.parse.urlsplit(self.server.url)
        return f"{parts.scheme}://{parts.netloc}{self.document['servers'][0]['url'].rstrip('/')}"


MODELS_SERVED = {
    "binary": (serve_binary, frozenset({*STATUS, *PREDICT})),
    "unstructured": (serve_template("unstructured"), frozenset({*STATUS, *UNSTRUCTURED})),
    "chat": (serve_template("agenticworkflow"), frozenset({*STATUS, *CHAT, *MODELS})),
    "with a prefix": (
        serve_template("unstructured", URL_PREFIX="/models/shop"),
        frozenset({*STATUS, *UNSTRUCTURED}),
    ),
}


@pytest.fixture(scope="module", params=MODELS_SERVED)
def served(
    request: pytest.FixtureRequest, serve_for_module: ServeFixture, tmp_path_factory: pytest.TempPathFactory
) -> Served:
    serve, offers = MODELS_SERVED[request.param]
    server = serve(serve_for_module, tmp_path_factory.mktemp("models") / "model")
    return Served(server, get(f"{server.url}/openapi.json").json(), offers)


def get(url: str) -> Answer:
    return request("GET", url)


def resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in node:
        for step in node["$ref"].removeprefix("#/").split("/"):
            document = document[step]
        return document
    return node


def examples(document: dict[str, Any]) -> Iterator[Example]:
    """Yield a request for each example body of each operation; one without a body where it shows none."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            headers: dict[str, str] = {}
            filled = path
            for parameter in (resolve(document, node) for node in operation.get("parameters", ())):
                if "example" in parameter and parameter["in"] == "header":
                    headers[parameter["name"]] = parameter["example"]
                elif parameter["in"] == "path":
                    filled = filled.replace(f"{{{parameter['name']}}}", parameter["example"])
            bodies: list[tuple[str, bytes | None]] = [*bodies_of(operation)]
            for content_type, body in bodies or [("", None)]:
                sent = {**headers, "Content-Type": content_type} if content_type else headers
                yield Example(method.upper(), path, sent, body, operation["responses"])._replace(path=filled)


def bodies_of(operation: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    for content_type, media in operation.get("requestBody", {}).get("content", {}).items():
        if "example" not in media:
            continue
        example = media["example"]
        if content_type == "multipart/form-data":
            parts = "".join(
                f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'
                for name, text in example.items()
            )
            yield "multipart/form-data; boundary=b", f"{parts}--b--\r\n".encode()
        elif isinstance(example, str):
            yield content_type, example.encode()
        else:
            yield content_type, json.dumps(example).encode()


def assert_as_documented(document: dict[str, Any], example: Example, answer: Answer) -> None:
    """The status is listed, the content type is listed for it, the headers are there, and JSON fits its schema."""
    status = str(answer.status)
    documented = example.responses.get(status) or example.responses.get(f"{status[0]}XX")
    assert documented is not None, (str(example), answer.status, answer.body)
    response = resolve(document, documented)
    content_type = answer.headers["content-type"].partition(";")[0]
    assert content_type in response["content"] or "*/*" in response["content"], (str(example), content_type)
    for name in response["headers"]:
        if name not in ("Retry-After", "X-Drum-User-Http-Error"):
            assert name.lower() in answer.headers, (str(example), name)
    media = response["content"].get(content_type) or response["content"].get("*/*")
    if content_type == "application/json" and media is not None:
        schema = {**media["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer.json())
        codes = {shown["value"]["code"] for shown in media.get("examples", {}).values()}
        assert not codes or answer.json()["code"] in codes, (str(example), answer.body)


def documented_path(document: dict[str, Any], example: Example) -> str:
    paths: list[str] = list(document["paths"])
    for path in sorted(paths, key=lambda path: path.count("{")):
        if re.fullmatch(path.replace("{id}", "[^/]+").replace("{path}", ".+"), example.path):
            return path
    raise AssertionError(example.path)


def test_every_example_of_every_operation_gets_what_is_documented(served: Served) -> None:
    asked = set()
    for example in examples(served.document):
        path = documented_path(served.document, example)
        asked.add((path, example.method))
        answer = request(example.method, served.base + example.path, example.body, headers=example.headers)
        expected = 200 if path in served.offers else ALWAYS_REFUSED.get(path, 404)
        assert answer.status == expected, (str(example), answer.body)
        assert_as_documented(served.document, example, answer)
    operations = {(path, method.upper()) for path, methods in served.document["paths"].items() for method in methods}
    assert asked == operations


def test_operations_that_the_model_offers_show_a_body_that_works(served: Served) -> None:
    shown = {
        documented_path(served.document, example)
        for example in examples(served.document)
        if example.body is not None and example.method == "POST"
    }
    assert {path for path in served.offers if path in (*PREDICT, *UNSTRUCTURED, *CHAT)} <= shown


def test_every_route_answers_alike_with_and_without_its_trailing_slash(served: Served) -> None:
    for example in examples(served.document):
        if example.path == "/" and not served.document["servers"][0]["url"].strip("/"):
            continue  # there is no shorter spelling of the root
        other = example.path.rstrip("/") if example.path.endswith("/") else example.path + "/"
        answers = [
            request(example.method, served.base + path, example.body, headers=example.headers)
            for path in (example.path, other)
        ]
        assert answers[0].status == answers[1].status, other
        assert answers[0].headers["content-type"] == answers[1].headers["content-type"]
        assert_as_documented(served.document, example, answers[1])


def test_get_routes_answer_head_and_everything_else_is_refused_as_documented(served: Served) -> None:
    shared = served.document["components"]["responses"]
    for path in STATUS:
        head = request("HEAD", served.base + path)
        assert (head.status, head.body) == (200, b"")
        wrong = Example("DELETE", path, {}, None, {"405": shared["MethodNotAllowed"]})
        assert_as_documented(served.document, wrong, request("DELETE", served.base + path))
    nowhere = Example("GET", "/nowhere", {}, None, {"404": shared["NotFound"]})
    assert_as_documented(served.document, nowhere, get(f"{served.base}/nowhere"))


def test_the_page_for_people_is_served_beside_the_document(served: Served) -> None:
    page = get(f"{served.base}/docs")
    assert page.status == 200
    assert f"{urllib.parse.urlsplit(served.base).path}/openapi.json".encode() in page.body


def test_under_a_prefix_the_bare_routes_are_probes_only(serve: ServeFixture, tmp_path: Path) -> None:
    server = serve_template("unstructured", URL_PREFIX="/x")(serve, tmp_path / "model")
    bare = server.url.removesuffix("/x")
    assert server.url.endswith("/x")
    for path in ("/", "/livez", "/readyz", "/ping"):
        assert get(bare + path).status == 200
    for path in ("/info/", "/predictUnstructured/", "/openapi.json", "/docs"):
        assert get(bare + path).status == 404


def test_the_binary_model_shows_its_own_row_and_the_answer_to_it_in_every_format(served: Served) -> None:
    if "/predict/" not in served.offers:
        pytest.skip("for the model that predicts")
    bodies = {
        example.headers["Content-Type"]: example for example in examples(served.document) if example.path == "/predict/"
    }
    assert bodies.keys() >= {"text/csv", "application/json", "multipart/form-data; boundary=b"}
    answers = []
    for example in bodies.values():
        assert example.body is not None
        assert b"mean radius" in example.body
        answers.append(request("POST", f"{served.base}/predict/", example.body, headers=example.headers).json())
    assert all(answer == answers[0] for answer in answers)
    assert list(answers[0]["predictions"][0]) == ["malignant", "benign"]
    documented = served.document["paths"]["/predict/"]["post"]["responses"]["200"]["content"]
    for content_type in documented:
        example = bodies["text/csv"]._replace(headers={**bodies["text/csv"].headers, "Accept": content_type})
        answer = request("POST", f"{served.base}/predict/", example.body, headers=example.headers)
        assert answer.status == 200
        assert answer.headers["content-type"].partition(";")[0] == content_type


def test_the_chat_template_refuses_what_has_no_last_message(served: Served) -> None:
    if "/chat/completions" not in served.offers:
        pytest.skip("for the model that chats")
    wrong: list[Any] = [[], [{}], [{"content": None}], [{"content": [{"type": "image_url"}]}], {"a": 1}, None]
    for messages in wrong:
        body = json.dumps({"model": "m", "messages": messages}).encode()
        answer = request("POST", f"{served.base}/chat/completions", body, headers={"Content-Type": "application/json"})
        assert answer.status == 422, (messages, answer.body)
        assert "messages must end with" in answer.json()["error"]["message"]
    parts = [{"type": "text", "text": "what is"}, {"type": "text", "text": "6 * 7?"}]
    body = json.dumps({"messages": [{"role": "user", "content": parts}]}).encode()
    answer = request("POST", f"{served.base}/chat/completions", body, headers={"Content-Type": "application/json"})
    assert "42" in answer.json()["choices"][0]["message"]["content"]
