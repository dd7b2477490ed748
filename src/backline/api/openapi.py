"""The OpenAPI 3.1 document of the native routes, with examples of the model that is served.

Written by hand rather than derived from handlers: the routes are plain ASGI endpoints, and a body of rows has no
pydantic model. What holds it to the truth are the error table, from which all error responses come, and the tests.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from backline.api.error_table import TABLE, USER_ERROR_HEADER, example_body
from backline.api.model_example import ModelExample
from backline_worker.codecs.formats import (
    ARROW_FILE,
    ARROW_STREAM,
    CSV,
    JSON,
    JSON_LINES,
    MATRIX_MARKET,
    PARQUET,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from backline.api.error_table import ErrorRow, Family

Json = dict[str, Any]

MULTIPART: Final = "multipart/form-data"
_BINARY: Final[Json] = {"type": "string", "contentMediaType": "application/octet-stream"}
_ANY: Final[Json] = {}
_REFUSED_BY_BACKEND: Final[Json] = {
    "description": "Whatever else the backend answers, as it is.",
    "content": {"*/*": {"schema": _ANY}},
}

# Which errors which routes can answer, by the keys of the error table.
_ALWAYS: Final = ("internal_error", "unauthorized", "head_too_large", "too_many_connections")
_READY: Final = ("loading", "draining", "load_failed", "environment_failed", "config_error")
_MODEL: Final = (
    *_ALWAYS,
    *_READY,
    "bad_request",
    "operation_unavailable",
    "body_too_large",
    "client_too_slow",
    "client_over_share",
    "queue_full",
    "poison_request",
    "deadline_exceeded",
    "user_http_error",
    "hook_failed",
    "result_invalid",
    "out_of_memory",
    "worker_died",
)
_TABLE: Final = (
    *_MODEL,
    "malformed_multipart",
    "decompressed_too_large",
    "unsupported_media_type",
    "unsupported_encoding",
    "not_acceptable",
    "empty_body",
    "decode_failed",
    "missing_part",
    "schema_mismatch",
    "worker_died/decoding",
)
_UNSTRUCTURED: Final = (*_MODEL, "decompressed_too_large", "unsupported_encoding")
_CHAT: Final = (
    *_MODEL,
    "empty_body",
    "decode_failed",
    "decompressed_too_large",
    "unsupported_encoding",
)
_BACKEND: Final = (
    *_ALWAYS,
    "bad_request",
    "draining",
    "client_too_slow",
    "backend_busy",
    "backend_loading",
    "backend_failed",
    "backend_down",
    "backend_broken",
    "backend_too_slow",
)
_BACKEND_ONLY: Final = tuple(key for key in _BACKEND if key not in _MODEL)
_PREDICT: Final = (*_TABLE, "generation_failed", *(key for key in _BACKEND_ONLY if key != "client_too_slow"))
_MODELS: Final = tuple(key for key in _MODEL if key not in ("body_too_large", "poison_request"))

_TAGS: Final = (
    {"name": "predictions", "description": "Rows in, predictions out."},
    {"name": "unstructured", "description": "Any body in, any body out: the model's hook decides."},
    {"name": "chat", "description": "For OpenAI clients: the base URL is the server's address with the prefix."},
    {"name": "status", "description": "The server, the model, and how they are doing."},
    {"name": "direct access", "description": "The LLM backend behind the server, as it is."},
)


class _Route(NamedTuple):
    """One operation of the document."""

    method: str
    path: str
    id: str
    operation: Json


def build_openapi(info: Mapping[str, Any] | None, *, prefix: str, version: str) -> Json:
    """Return the document; ``prefix`` is ``""`` or ``/x/y``, and becomes the server's URL.

    ``info`` is the loaded model's description with what its warm-up brought (``warm_up``), or ``None`` before the model
    is loaded: then the examples are of a made-up model. Whatever ``info`` lacks is made up too.
    """
    model = ModelExample(info or {})
    paths: Json = {}
    chats = (*_chat_routes(model), *_openai_routes())
    for route in (*_status_routes(), *_prediction_routes(model), *chats, *_direct_access_routes()):
        paths.setdefault(route.path, {})[route.method] = {"operationId": route.id, **route.operation}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Backline", "version": version, "description": _description(model)},
        "servers": [{"url": prefix or "/"}],
        "tags": [dict(tag) for tag in _TAGS],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "parameters": _parameters(),
            "headers": _headers(),
            "responses": {
                "NotFound": _error_response([TABLE["not_found"]], "native"),
                "MethodNotAllowed": _error_response([TABLE["method_not_allowed"]], "native"),
            },
        },
    }


def _description(model: ModelExample) -> str:
    lines = [
        "Every route is served with and without its trailing slash, and is never redirected.",
        "Routes with GET answer HEAD too. Any other path is answered 404 `not_found`, any other method 405.",
        "Errors have one shape, in `ErrorMessage`; `code` is stable. Every answer has an `X-Request-ID`.",
    ]
    if model.target_type:
        made_by = f", made with {model.library}" if model.library else ""
        lines.append(f"\nThe model's target type is `{model.target_type}`{made_by}.")
    return "\n".join(lines)


# Routes


def _status_routes() -> list[_Route]:
    ok = _json_answer("The server is up.", {"$ref": "#/components/schemas/Message"}, {"message": "OK"})
    ready = {**ok, "description": "A request sent now would be answered: a prediction has worked."}

    def status(summary: str, answer: Json, codes: Sequence[str]) -> Json:
        return {"tags": ["status"], "summary": summary, "responses": {"200": answer, **_errors(codes)}}

    stats = _json_answer(
        "Memory in bytes, workers, queue, the last errors.",
        {"type": "object", "properties": {"mem_info": {"type": "object"}, "workers": {"type": "array"}}},
    )
    info = _json_answer(
        "The model and the server; keys in the legacy spelling and in camelCase.",
        {"type": "object", "properties": {"targetType": {"type": ["string", "null"]}, "model": {"type": "object"}}},
    )
    capabilities = _json_answer(
        "Formats and methods.",
        {
            "type": "object",
            "properties": {
                "supported_payload_formats": _ANY,
                "supported_response_formats": _ANY,
                "supported_methods": {"type": "object", "properties": {"chat": {"type": "boolean"}}},
            },
        },
    )
    metrics = {
        "description": "Metrics in Prometheus' text format, or as OpenMetrics where Accept names it.",
        "headers": _common_headers(),
        "content": {
            "text/plain": {"schema": {"type": "string"}},
            "application/openmetrics-text": {"schema": {"type": "string"}},
        },
    }
    stopping = _json_answer("The server stops.", {"$ref": "#/components/schemas/Message"})
    probes = (*_ALWAYS, *_READY, "backend_unready", "backend_loading", "backend_failed")
    return [
        _Route("get", "/", "root", status("Whether the server is up", ok, _ALWAYS)),
        _Route("get", "/livez/", "live", status("Whether the server is up, for liveness probes", ok, _ALWAYS)),
        _Route("get", "/ping/", "ping", status("Whether requests are answered", ready, probes)),
        _Route(
            "get", "/health/", "health", status("Whether requests are answered; 513 after a failed load", ready, probes)
        ),
        _Route(
            "get", "/readyz/", "ready", status("Whether requests are answered, for readiness probes", ready, probes)
        ),
        _Route("get", "/stats/", "stats", status("Memory, workers and queue", stats, _ALWAYS)),
        _Route("get", "/metrics", "metrics", status("Metrics, for Prometheus", metrics, _ALWAYS)),
        _Route("get", "/v1/metrics", "metricsV1", status("The same", metrics, _ALWAYS)),
        _Route("get", "/info/", "info", status("What is served", info, _ALWAYS)),
        _Route("get", "/capabilities/", "capabilities", status("What can be sent", capabilities, _ALWAYS)),
        _Route(
            "post",
            "/shutdown/",
            "shutdown",
            status("Stop the server, where --allow-shutdown is set", stopping, (*_ALWAYS, "shutdown_forbidden")),
        ),
    ]


def _prediction_routes(model: ModelExample) -> list[_Route]:
    answer: Json = {
        "description": "One prediction for each row, in the order of the rows.",
        "headers": _common_headers(),
        "content": {
            JSON: {
                "schema": {"$ref": "#/components/schemas/Predictions"},
                "example": {"predictions": model.predictions},
            },
            CSV: {"schema": {"type": "string"}, "example": model.predictions_csv},
            ARROW_STREAM: {"schema": _BINARY},
            PARQUET: {"schema": _BINARY},
            JSON_LINES: {"schema": {"type": "string"}},
        },
    }
    predict: Json = {
        "tags": ["predictions"],
        "description": (
            "Regression, anomaly and text models answer one value for each row; binary and multiclass models one "
            "object of label and probability. Columns that the model returns beyond those are in `extraModelOutput`."
        ),
        "parameters": _refs("Accept", "ContentEncoding", "RequestTimeout", "RequestId"),
        "requestBody": _table_body(model),
        "responses": {"200": answer, **_errors(_PREDICT)},
    }
    transform = {
        **predict,
        "description": "For transform models. A transform that takes a target gets it as the part `y`.",
        "requestBody": _table_body(model, target=True),
        "responses": {"200": _transform_answer(), **_errors(_TABLE)},
    }
    aliases = (("/predict/", "predict"), ("/predictions/", "predictions"), ("/invocations/", "invocations"))
    unstructured = (
        ("/predictUnstructured/", "predictUnstructured"),
        ("/predictionsUnstructured/", "predictionsUnstructured"),
    )
    return [
        *(_Route("post", path, id_, {"summary": _also("Predict", id_, "predict"), **predict}) for path, id_ in aliases),
        *(
            _Route(
                "post",
                path,
                id_,
                {"summary": _also("Call the hook", id_, "predictUnstructured"), **_unstructured(model)},
            )
            for path, id_ in unstructured
        ),
        _Route("post", "/transform/", "transform", {"summary": "Transform rows", **transform}),
    ]


def _transform_answer() -> Json:
    parts: Json = {"X": _BINARY, "y": _BINARY, "X.colnames": {"type": "string"}}
    return {
        "description": (
            "The transformed rows; multipart when there is a target too, or a sparse matrix with its column names."
        ),
        "headers": _common_headers(),
        "content": {
            JSON: {"schema": {"type": "array", "items": {"type": "object"}}},
            CSV: {"schema": {"type": "string"}},
            ARROW_STREAM: {"schema": _BINARY},
            PARQUET: {"schema": _BINARY},
            JSON_LINES: {"schema": {"type": "string"}},
            MULTIPART: {"schema": {"type": "object", "properties": parts, "required": ["X"]}},
        },
    }


def _unstructured(model: ModelExample) -> Json:
    sample: Json = {"schema": {"type": "string"}}
    if model.target_type == "unstructured" and model.warm_up_body:
        sample["example"] = model.warm_up_body
    kind = model.warm_up_type.partition(";")[0] if "example" in sample else ""
    return {
        "tags": ["unstructured"],
        "description": (
            "The body reaches `score_unstructured` as it is, multipart too: as text for text types and JSON, as bytes "
            "for all others. The query string and the headers are handed on."
        ),
        "parameters": _refs("ContentEncoding", "RequestTimeout", "RequestId"),
        "requestBody": {
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                **({kind: sample} if kind else {}),
                "*/*": {"schema": _BINARY},
            }
        },
        "responses": {
            "200": {
                "description": "What the hook returned.",
                "headers": _common_headers(),
                "content": {"*/*": {"schema": _ANY}},  # JSON is no string
            },
            **_errors(_UNSTRUCTURED),
        },
    }


def _chat_routes(model: ModelExample) -> list[_Route]:
    request: Json = {"model": "datarobot-deployed-llm", "messages": [{"role": "user", "content": "Hello"}]}
    if model.warm_up_type.startswith(JSON):
        given = _parse_object(model.warm_up_body)
        request = given if "messages" in given else request
    message = {"role": "assistant", "content": "Hello, what can I do for you?"}
    completion = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1735689600,
        "model": request.get("model", ""),
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    answer = _json_answer("The completion.", {"$ref": "#/components/schemas/ChatCompletion"}, completion)
    answer["description"] = "The completion; with `stream` the events of its chunks, and `data: [DONE]`."
    answer["content"]["text/event-stream"] = {"schema": {"type": "string"}}
    chat: Json = {
        "tags": ["chat"],
        "description": (
            "The whole request object reaches the `chat` hook, keys that OpenAI does not know too. Without the hook it "
            "goes to the LLM backend as it is, and the answer carries its association id in a header."
        ),
        "parameters": _refs("ContentEncoding", "RequestTimeout", "RequestId"),
        "requestBody": {
            "required": True,
            "content": {JSON: {"schema": {"$ref": "#/components/schemas/ChatRequest"}, "example": request}},
        },
        "responses": {"200": answer, **_errors((*_CHAT, *_BACKEND_ONLY), "openai")},
    }
    record = {"id": "datarobot-deployed-llm", "object": "model", "created": 1735689600, "owned_by": "DataRobot"}
    models: Json = {
        "tags": ["chat"],
        "description": "404 unless the model generates text.",
        "parameters": _refs("RequestId"),
        "responses": {
            "200": _json_answer(
                "The models.", {"$ref": "#/components/schemas/ModelList"}, {"object": "list", "data": [record]}
            ),
            **_errors((*_MODELS, *_BACKEND_ONLY), "openai"),
        },
    }
    return [
        _Route("post", "/chat/completions", "chatCompletions", {"summary": "Chat", **chat}),
        _Route("post", "/v1/chat/completions", "chatCompletionsV1", {"summary": "Chat; as /chat/completions", **chat}),
        _Route("get", "/models", "models", {"summary": "List the models", **models}),
        _Route("get", "/v1/models", "modelsV1", {"summary": "List the models; as /models", **models}),
    ]


def _openai_routes() -> list[_Route]:
    """Return the routes that only a backend answers."""
    table = (
        ("post", "/completions", "completions", "Complete a text", {"model": "tiny", "prompt": "Once"}),
        ("post", "/embeddings", "embeddings", "Make vectors of texts", {"model": "tiny", "input": "Once"}),
        ("post", "/responses", "responses", "Ask for a response", {"model": "tiny", "input": "Hello"}),
        ("get", "/responses/{id}", "response", "Get a response", None),
        ("post", "/responses/{id}/cancel", "cancelResponse", "Cancel a response", None),
        ("get", "/models/{id}", "model", "Get a model", None),
    )
    routes = []
    for method, path, id_, summary, example in table:
        operation: Json = {
            "tags": ["chat"],
            "description": "Passed on to the LLM backend as it is. 404 without one; models may also be the hooks' own.",
            "parameters": _refs("RequestId"),
            "responses": {
                "200": {
                    "description": "What the backend answers.",
                    "headers": _common_headers(),
                    "content": {"*/*": {"schema": _ANY}},
                },
                "default": _REFUSED_BY_BACKEND,
                **_errors((*_BACKEND, "operation_unavailable", "loading", "load_failed", "config_error"), "openai"),
            },
        }
        if "{id}" in path:
            parameter = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}, "example": "tiny"}
            operation["parameters"].append(parameter)
        if example is not None:
            content = {JSON: {"schema": {"type": "object"}, "example": example}}
            operation["requestBody"] = {"required": True, "content": content}
        for version in ("", "/v1"):
            also = {"summary": f"{summary}; as {path}" if version else summary}
            suffix = version.removeprefix("/").upper()
            routes.append(_Route(method, version + path, id_ + suffix, {**also, **operation}))
    return routes


def _direct_access_routes() -> list[_Route]:
    routes = []
    for root, id_ in (("directAccess", "directAccess"), ("nim", "nim")):
        for method in ("get", "post", "put"):
            operation: Json = {
                "tags": ["direct access"],
                "summary": "Ask the backend" if id_ == "directAccess" else "Ask the backend; as /directAccess",
                "description": (
                    "Passed on to the backend as it is, and its answer back, whatever the method; WebSockets too. "
                    "`path` may have slashes. 400 when no backend is configured (--backend)."
                ),
                "parameters": [
                    {
                        "name": "path",
                        "in": "path",
                        "required": True,
                        "schema": {"type": "string"},
                        "example": "v1/models",
                    },
                    *_refs("RequestId"),
                ],
                "responses": {
                    "200": {"description": "What the backend answers.", "content": {"*/*": {"schema": _ANY}}},
                    "default": _REFUSED_BY_BACKEND,
                    **_errors(_BACKEND),
                },
            }
            if method != "get":
                operation["requestBody"] = {"content": {"*/*": {"schema": _BINARY}}}
            routes.append(_Route(method, f"/{root}/{{path}}", f"{id_}{method.title()}", operation))
    return routes


# Pieces of operations


def _table_body(model: ModelExample, *, target: bool = False) -> Json:
    parts: Json = {
        "X": {**_BINARY, "description": "The rows, as a file; its content type, else its name, says the format."},
        "X.colnames": {"type": "string", "description": "The column names of a sparse matrix, one a line."},
    }
    if target:
        parts["y"] = {**_BINARY, "description": "The target, where the transform takes one."}
    records = model.records
    return {
        "required": True,
        "description": "Rows with a header, as the body itself or as the multipart part `X`.",
        "content": {
            CSV: {"schema": {"type": "string"}, "example": model.csv},
            JSON: {"schema": {"$ref": "#/components/schemas/Rows"}, "example": records},
            JSON_LINES: {"schema": {"type": "string"}, "example": "".join(json.dumps(row) + "\n" for row in records)},
            MULTIPART: {
                "schema": {"type": "object", "properties": parts, "required": ["X"]},
                "encoding": {"X": {"contentType": f"{CSV}, {JSON}, {ARROW_STREAM}, {PARQUET}, {MATRIX_MARKET}"}},
                "example": {"X": model.csv},
            },
            ARROW_STREAM: {"schema": _BINARY},
            ARROW_FILE: {"schema": _BINARY},
            PARQUET: {"schema": _BINARY},
            MATRIX_MARKET: {"schema": {"type": "string"}},
        },
    }


def _json_answer(description: str, schema: Json, example: object = None) -> Json:
    media: Json = {"schema": schema}
    if example is not None:
        media["example"] = example
    return {"description": description, "headers": _common_headers(), "content": {JSON: media}}


def _errors(keys: Sequence[str], family: Family = "native") -> Json:
    """Return the error responses by status, each with an example for each code."""
    by_status: dict[str, list[ErrorRow]] = {}
    for row in sorted((TABLE[key] for key in keys), key=lambda row: (row.status_from_user, row.status, row.key)):
        # Exact statuses go before ranges, so the model's own are all those that are not listed.
        for status in ("4XX", "5XX") if row.status_from_user else (str(row.status),):
            by_status.setdefault(status, []).append(row)
    return {status: _error_response(rows, family) for status, rows in by_status.items()}


def _error_response(rows: Sequence[ErrorRow], family: Family) -> Json:
    headers = _common_headers()
    if any(row.retry_after is not None for row in rows):
        headers["Retry-After"] = {"$ref": "#/components/headers/RetryAfter"}
    if any(row.status_from_user for row in rows):
        headers[USER_ERROR_HEADER] = {"$ref": "#/components/headers/UserError"}
    schema = "OpenAIError" if family == "openai" else "ErrorMessage"
    examples = {
        row.key.replace("/", "."): {"summary": f"{row.title}. {row.cure}", "value": example_body(row, family)}
        for row in rows
    }
    return {
        "description": "\n".join(f"- `{row.code}`: {row.cause}" for row in rows),
        "headers": headers,
        "content": {JSON: {"schema": {"$ref": f"#/components/schemas/{schema}"}, "examples": examples}},
    }


def _common_headers() -> Json:
    return {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}


def _refs(*names: str) -> list[Json]:
    return [{"$ref": f"#/components/parameters/{name}"} for name in names]


def _also(summary: str, id_: str, first: str) -> str:
    return summary if id_ == first else f"{summary}; as /{first}/"


# Components


def _schemas() -> Json:
    code = {
        "type": "string",
        "description": "Stable, for programs.",
        "enum": sorted({row.code for row in TABLE.values()}),
    }
    error: Json = {
        "type": "object",
        "required": ["message", "code", "request_id"],
        "properties": {
            "message": {"type": "string", "pattern": "^ERROR: "},
            "code": code,
            "request_id": {"type": "string"},
            "traceback": {"type": "string", "description": "Only with --show-stacktrace."},
        },
    }
    detail: Json = {
        "type": "object",
        "required": ["message", "type", "param", "code"],
        "properties": {
            "message": {"type": "string"},
            "type": {"type": "string"},
            "param": {"type": ["string", "null"]},
            "code": code,
        },
    }
    objects: Json = {"type": "array", "items": {"type": "object"}}
    split: Json = {
        "type": "object",
        "required": ["columns", "data"],
        "properties": {
            "columns": {"type": "array", "items": {"type": "string"}},
            "index": {"type": "array"},
            "data": {"type": "array", "items": {"type": "array"}},
        },
    }
    return {
        "Message": {"type": "object", "required": ["message"], "properties": {"message": {"type": "string"}}},
        "ErrorMessage": error,
        "OpenAIError": {
            **error,
            "required": [*error["required"], "error"],
            "properties": {**error["properties"], "error": detail},
        },
        "Rows": {"description": "Records, or the split form.", "anyOf": [objects, split]},
        "Predictions": {
            "type": "object",
            "required": ["predictions"],
            "properties": {
                "predictions": {
                    "type": "array",
                    "description": "One value, or one object of label and value, for each row.",
                    "items": {"type": ["number", "string", "object", "null"]},
                },
                "extraModelOutput": split,
            },
        },
        "ChatRequest": {
            "type": "object",
            "required": ["messages"],
            "properties": {"model": {"type": "string"}, "messages": objects, "stream": {"type": "boolean"}},
            "additionalProperties": True,
        },
        "ChatCompletion": {"type": "object", "properties": {"choices": objects}, "additionalProperties": True},
        "ModelList": {
            "type": "object",
            "required": ["object", "data"],
            "properties": {"object": {"const": "list"}, "data": objects},
        },
    }


def _parameters() -> Json:
    def header(name: str, description: str, schema: Json, **more: object) -> Json:
        return {"name": name, "in": "header", "description": description, "schema": schema, **more}

    return {
        # OpenAPI knows a parameter Accept only by the answer's content types, and has readers pass over one of this
        # name; the one here is for people.
        "Accept": header(
            "Accept", "The format of the answer; JSON when absent.", {"type": "string", "default": JSON}, example=JSON
        ),
        "ContentEncoding": header(
            "Content-Encoding", "How the body is compressed.", {"enum": ["gzip", "deflate", "identity"]}
        ),
        "RequestTimeout": header(
            "X-Request-Timeout",
            "Seconds from arrival to answer, if fewer than the server's own limit.",
            {"type": "number", "exclusiveMinimum": 0},
        ),
        "RequestId": header("X-Request-ID", "An id of the client's own, used in answer and log.", {"type": "string"}),
    }


def _headers() -> Json:
    return {
        "RequestId": {"description": "The request's id, as in the server's log.", "schema": {"type": "string"}},
        "RetryAfter": {"description": "Seconds after which to come back.", "schema": {"type": "integer", "minimum": 1}},
        "UserError": {
            "description": "`true` when the model raised the error on purpose, with CustomHTTPError.",
            "schema": {"const": "true"},
        },
    }


def _parse_object(text: str) -> Json:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
