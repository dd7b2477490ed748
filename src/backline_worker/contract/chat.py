"""What ``chat`` gets, and its answer and the models list as JSON."""

from __future__ import annotations

import json
import math
import uuid
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

from ..errors import DecodeError, EmptyBody, ResultInvalid
from ..types import Answer

ASSOCIATION_ID = "datarobot_association_id"
_ASSOCIATION_HEADERS = ("datarobot-association-id", "x-datarobot-association-id")
_MODEL_DEFAULTS = {"object": "model", "created": 1735689600, "owned_by": "DataRobot"}


class ChatRequest(NamedTuple):
    """A request for a chat. ``params`` is for the hook, which may change it; the others say how to answer."""

    params: Dict[str, Any]
    headers: Mapping[str, str]
    association: str
    stream: bool
    with_usage: bool


def read_request(data: bytes, headers: Mapping[str, str]) -> ChatRequest:
    """Take the body of a chat request apart; raises ``EmptyBody`` or ``DecodeError``."""
    params = read_params(data)
    options = params.get("stream_options")
    return ChatRequest(
        params,
        headers,
        association_id(params, headers),
        stream=bool(params.get("stream")),
        with_usage=isinstance(options, dict) and bool(options.get("include_usage")),
    )


def read_params(data: bytes) -> Dict[str, Any]:
    """Return the request's body as a dict that the hook may change; raises ``EmptyBody`` or ``DecodeError``."""
    if not data.strip():
        raise EmptyBody("the body is empty; a chat request needs a JSON object with messages")
    try:
        params = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise DecodeError("the chat request is not JSON: {}".format(exc)) from exc
    if not isinstance(params, dict):
        raise DecodeError("the chat request is a JSON {}; expected an object".format(type(params).__name__))
    return params


def association_id(params: Mapping[str, Any], headers: Mapping[str, str]) -> str:
    """Return the id that ties the answer to what is reported about it: the caller's, else a new one."""
    for given in [params.get(ASSOCIATION_ID), *(headers.get(name) for name in _ASSOCIATION_HEADERS)]:
        if given:
            return str(given)
    return str(uuid.uuid4())


def is_stream(result: Any) -> bool:
    """Say whether the hook returned an iterator of chunks rather than one completion."""
    if isinstance(result, (str, bytes, Mapping, list, tuple)) or to_plain(result) is not None:
        return False
    return (
        hasattr(result, "__next__")
        or hasattr(result, "__anext__")
        or hasattr(result, "__iter__")
        or hasattr(result, "__aiter__")
    )


def write_completion(result: Any, association: str) -> Answer:
    """Return the answer for a completion: a dict, or an object that turns itself into one. Raises ``ResultInvalid``."""
    return _answer({**completion_fields(result), ASSOCIATION_ID: association}, "chat")


def completion_fields(result: Any) -> Mapping[str, Any]:
    """Return the fields of what the hook returned as one completion. Raises ``ResultInvalid``."""
    plain = result if isinstance(result, Mapping) else to_plain(result)
    if not isinstance(plain, Mapping):
        raise ResultInvalid(
            "chat returned {}; expected a ChatCompletion, a dict of its fields, or an iterator of chunks".format(
                type(result).__name__
            )
        )
    return plain


def write_models(result: Any, llm_id: Optional[str]) -> Answer:
    """Return the models list: what the hook gave, else the one record of ``llm_id``, else none."""
    if result is None:
        records: List[Any] = [{"id": llm_id}] if llm_id else []
    else:
        plain = result if isinstance(result, (Mapping, list, tuple)) else to_plain(result)
        if isinstance(plain, Mapping):
            plain = plain.get("data")
        if plain is None and hasattr(result, "__iter__") and not isinstance(result, (str, bytes, Mapping)):
            plain = list(result)
        if not isinstance(plain, (list, tuple)):
            raise ResultInvalid(
                "get_supported_llm_models returned {}; expected a list of records with an id".format(
                    type(result).__name__
                )
            )
        records = list(plain)
    return _answer(
        {"object": "list", "data": [_model_record(record) for record in records]}, "get_supported_llm_models"
    )


def _model_record(record: Any) -> Dict[str, Any]:
    plain = {"id": record} if isinstance(record, str) else record if isinstance(record, Mapping) else to_plain(record)
    if not isinstance(plain, Mapping) or not plain.get("id"):
        raise ResultInvalid(
            "get_supported_llm_models returned the record {!r}; expected a name, or fields with an id".format(record)
        )
    given = {key: value for key, value in plain.items() if value is not None}
    return {"id": plain["id"], **_MODEL_DEFAULTS, **given}


def _answer(body: Mapping[str, Any], hook: str) -> Answer:
    return Answer("application/json", to_json(body, hook))


def to_json(body: Mapping[str, Any], hook: str) -> bytes:
    """Return the JSON text of what a hook returned. Raises ``ResultInvalid``."""
    try:
        text = json.dumps(body, default=_default, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        # NaN has no JSON; also what json says of a structure that contains itself.
        try:
            text = json.dumps(_without_nan(body), ensure_ascii=False, separators=(",", ":"))
        except (ValueError, TypeError, RecursionError) as exc:
            raise ResultInvalid("{} returned what JSON cannot hold: {}".format(hook, exc)) from exc
    except (TypeError, RecursionError) as exc:
        raise ResultInvalid("{} returned what JSON cannot hold: {}".format(hook, exc)) from exc
    try:
        return text.encode()
    except UnicodeEncodeError:  # a lone surrogate, as a model cut off within a pair may leave: only escaped
        return json.dumps(json.loads(text)).encode()


def to_plain(value: Any) -> Any:
    """Return an object's fields: pydantic 2, pydantic 1, or any other that turns itself into a dict; else ``None``."""
    if isinstance(value, type):
        return None
    for name in ("model_dump", "dict", "to_dict"):
        function = getattr(value, name, None)
        if callable(function):
            return function()
    return None


def _default(value: Any) -> Any:
    plain = to_plain(value)
    if plain is not None:
        return plain
    if hasattr(value, "tolist"):  # numpy's scalars and arrays
        return value.tolist()
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=str)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "value") and hasattr(value, "name"):  # an enum member
        return value.value
    if type(value).__name__ in ("UUID", "Decimal", "SecretStr", "Url", "HttpUrl", "PosixPath"):
        return str(value)
    raise TypeError("{} in it is not a JSON value".format(type(value).__name__))


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if value is None or isinstance(value, (str, int)):
        return value
    return _without_nan(_default(value))
