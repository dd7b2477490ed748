"""The error table: complete, and rendered as the contract says."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import backline.api.access
import backline.api.endpoint
import backline.api.probes
import backline.api.shutdown  # noqa: F401 - their error classes have to be in the table too
import backline_worker.errors
from backline.api.error_table import (
    MAX_MESSAGE_CHARACTERS,
    TABLE,
    ErrorResponse,
    example_body,
    example_error,
    render_error,
    render_markdown,
    row_for,
)
from backline.errors import (
    BacklineError,
    DeadlineExceeded,
    ModelLoadFailed,
    PoisonRequest,
    QueueFull,
    WorkerDied,
    WorkerReported,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from backline.api.error_table import Family


def family_of(root: type[Any]) -> Iterator[type[Any]]:
    yield root
    children: list[type[Any]] = root.__subclasses__()
    for child in children:
        yield from family_of(child)


SERVER_ERRORS = sorted(set(family_of(BacklineError)), key=lambda c: c.__name__)
WORKER_ERRORS = sorted(set(family_of(backline_worker.errors.ReportedError)), key=lambda c: c.__name__)

# The statuses as the contract and the design fix them, written down a second time on purpose.
STATUSES = {
    400: {"bad_request", "malformed_multipart"},
    401: {"unauthorized"},
    403: {"shutdown_forbidden"},
    404: {"not_found", "operation_unavailable"},
    405: {"method_not_allowed"},
    406: {"not_acceptable"},
    408: {"client_too_slow"},
    413: {"body_too_large", "decompressed_too_large"},
    415: {"unsupported_media_type", "unsupported_encoding"},
    422: {"empty_body", "decode_failed", "missing_part", "schema_mismatch", "poison_request", "worker_died/decoding"},
    500: {"hook_failed", "result_invalid", "out_of_memory", "worker_died", "internal_error", "user_http_error"},
    429: {"client_over_share"},
    431: {"head_too_large"},
    502: {"backend_down", "backend_broken", "generation_failed"},
    503: {
        "queue_full",
        "loading",
        "draining",
        "backend_busy",
        "backend_loading",
        "backend_unready",
        "too_many_connections",
    },
    504: {"deadline_exceeded", "backend_too_slow"},
    513: {"load_failed", "config_error", "environment_failed", "reload_failed", "backend_failed"},
}


def render(exc: BacklineError, family: Family = "native", *, show_stacktrace: bool = False) -> ErrorResponse:
    return render_error(exc, family=family, request_id="id-1", show_stacktrace=show_stacktrace)


def reported(code: str, message: str = "text", traceback: str | None = None, **details: object) -> WorkerReported:
    return WorkerReported(code, message, error_type="ValueError", details=details, traceback=traceback)


def headers_of(response: ErrorResponse) -> dict[str, str]:
    names = [name for name, _ in response.headers]
    assert len(names) == len(set(names)), "no header twice"
    assert all(name == name.lower() for name in names), "ASGI wants lower-case names"
    return {name.decode(): value.decode("latin-1") for name, value in response.headers}


@pytest.mark.parametrize("error", [*SERVER_ERRORS, *WORKER_ERRORS], ids=lambda c: f"{c.__module__}.{c.__name__}")
def test_every_error_class_has_a_row(error: type[Any]) -> None:
    assert error.code in TABLE


def test_every_row_is_some_errors() -> None:
    codes = {error.code for error in [*SERVER_ERRORS, *WORKER_ERRORS]}
    assert {row.code for row in TABLE.values()} == codes


def test_statuses_are_those_of_the_contract() -> None:
    found: dict[int, set[str]] = {}
    for row in TABLE.values():
        found.setdefault(row.status, set()).add(row.key)
    assert found == STATUSES


def test_every_503_says_when_to_come_back() -> None:
    with_time = {row.code for row in TABLE.values() if row.retry_after is not None}
    assert with_time == STATUSES[503] | {"poison_request", "client_over_share"}


@pytest.mark.parametrize("row", TABLE.values(), ids=lambda row: row.key)
def test_rows_say_what_why_and_how_to_mend(row: Any) -> None:
    assert row.title
    assert row.cause.endswith(".")
    assert row.cure.endswith(".")
    assert row.example
    assert row_for(example_error(row)) is row


def test_the_native_body_is_the_contracts_message_with_code_and_request_id() -> None:
    response = render(reported("decode_failed", "line 3"))
    assert response.status == 422
    assert json.loads(response.body) == {"message": "ERROR: line 3", "code": "decode_failed", "request_id": "id-1"}
    assert headers_of(response) == {"content-type": "application/json", "x-request-id": "id-1"}


def test_the_openai_body_has_both_shapes() -> None:
    response = render(reported("operation_unavailable", "no chat hook"), "openai")
    assert response.status == 404
    error = {"message": "no chat hook", "type": "not_found_error", "param": None, "code": "operation_unavailable"}
    assert json.loads(response.body) == {
        "message": "ERROR: no chat hook",
        "error": error,
        "code": "operation_unavailable",
        "request_id": "id-1",
    }


@pytest.mark.parametrize(
    ("code", "type_"),
    [("decode_failed", "invalid_request_error"), ("hook_failed", "server_error"), ("loading", "server_error")],
)
def test_openai_error_types_follow_the_status(code: str, type_: str) -> None:
    assert json.loads(render(reported(code), "openai").body)["error"]["type"] == type_


@pytest.mark.parametrize(("retry_after", "header"), [(None, "1"), (0.2, "1"), (2.1, "3"), (0, "1")])
def test_retry_after_is_in_whole_seconds_and_never_zero(retry_after: float | None, header: str) -> None:
    response = render(QueueFull("full", retry_after=retry_after))
    assert response.status == 503
    assert headers_of(response)["retry-after"] == header


def test_a_poison_request_says_when_it_is_tried_again() -> None:
    assert headers_of(render(PoisonRequest("x", retry_after=287.4)))["retry-after"] == "288"
    assert headers_of(render(PoisonRequest("x")))["retry-after"] == "300"


def test_openai_clients_repeat_only_what_was_not_begun() -> None:
    answers = {
        row.key: headers_of(render(example_error(row), "openai")).get("x-should-retry") for row in TABLE.values()
    }
    assert {key for key, value in answers.items() if value == "true"} == STATUSES[503] | STATUSES[429]
    assert {key for key, value in answers.items() if value is None} == {"user_http_error"}
    assert "x-should-retry" not in headers_of(render(QueueFull("full")))


def test_a_death_while_decoding_is_the_requests_fault() -> None:
    assert render(WorkerDied("died")).status == 500
    response = render(WorkerDied("died", while_decoding=True))
    assert response.status == 422
    assert json.loads(response.body)["code"] == "worker_died"


@pytest.mark.parametrize("in_queue", [True, False])
def test_a_deadline_is_504_wherever_it_passed(in_queue: bool) -> None:
    assert render(DeadlineExceeded("late", in_queue=in_queue)).status == 504


@pytest.mark.parametrize("exc", [ModelLoadFailed("no pkl", traceback="Traceback: x"), reported("load_failed")])
def test_a_failed_load_is_513(exc: BacklineError) -> None:
    assert render(exc).status == 513


def test_a_code_from_a_newer_worker_is_kept_and_answered_500() -> None:
    response = render(reported("brand_new"))
    assert response.status == 500
    assert json.loads(response.body)["code"] == "brand_new"


def test_tracebacks_are_shown_only_when_asked_for() -> None:
    exc = reported("hook_failed", traceback="File custom.py, line 3")
    assert "traceback" not in json.loads(render(exc).body)
    assert json.loads(render(exc, show_stacktrace=True).body)["traceback"] == "File custom.py, line 3"
    assert "traceback" not in json.loads(render(reported("hook_failed"), show_stacktrace=True).body)


@pytest.mark.parametrize(("marked", "header"), [(True, "true"), (False, None)])
def test_an_error_that_the_model_wants_keeps_its_status(marked: bool, header: str | None) -> None:
    response = render(reported("user_http_error", "slow down", status=429, headers={"Retry-After": 7}, marked=marked))
    assert response.status == 429
    assert headers_of(response)["retry-after"] == "7"
    assert headers_of(response).get("x-drum-user-http-error") == header
    assert json.loads(response.body)["message"] == "ERROR: slow down"


@pytest.mark.parametrize("status", [None, 200, 302, 99, 600, "404", 404.0, True, [404]])
def test_a_status_that_is_no_error_is_500(status: object) -> None:
    assert render(reported("user_http_error", status=status)).status == 500


def test_headers_of_the_models_error_cannot_forge_ours_or_split_the_response() -> None:
    given_headers = {
        "WWW-Authenticate": "Bearer",
        "Content-Length": "0",
        "Transfer-Encoding": "chunked",
        "X-Request-ID": "forged",
        "X-Drum-User-Http-Error": "true",
        "X-Split": "a\r\nSet-Cookie: b",
        "X-Nul": "a\0b",
        "X Space": "a",
        "X-Wide": "€",
        "": "a",
        "X-List": ["a"],
    }
    headers = headers_of(render(reported("user_http_error", status=401, headers=given_headers)))
    assert headers == {"content-type": "application/json", "x-request-id": "id-1", "www-authenticate": "Bearer"}
    assert render(reported("user_http_error", status=401, headers="nonsense")).status == 401


@given(st.text(st.characters(), max_size=300), st.text(st.characters(), max_size=30))
def test_any_message_is_answered_as_json(message: str, request_id: str) -> None:
    """Lone surrogates and control characters too: messages quote file names and users' data."""
    response = render_error(
        reported("hook_failed", message, traceback=message),
        family="openai",
        request_id=request_id,
        show_stacktrace=True,
    )
    content = json.loads(response.body)
    assert content["message"] == f"ERROR: {message}"
    assert content["traceback"] == message
    assert b"\n" not in dict(response.headers)[b"x-request-id"]


def test_half_a_surrogate_pair_survives() -> None:
    """A file name that is not UTF-8 has them."""
    assert json.loads(render(reported("hook_failed", "no file 'gr\udcf6.csv'")).body)["message"].endswith(
        "'gr\udcf6.csv'"
    )


def test_a_huge_message_is_cut() -> None:
    response = render(reported("hook_failed", "x" * 10_000_000, traceback="y" * 10_000_000), show_stacktrace=True)
    assert len(response.body) < 100_000
    assert f"({10_000_000 - MAX_MESSAGE_CHARACTERS} more characters)" in json.loads(response.body)["message"]


def test_the_reference_page_shows_every_error_as_it_is_answered() -> None:
    page = render_markdown()
    for row in TABLE.values():
        assert json.dumps(example_body(row, "native"), indent=2, ensure_ascii=False) in page
        heading = f"{row.code} ({row.variant})" if row.variant else row.code
        assert f"\n## {heading}\n" in page
        anchor = heading.replace("(", "").replace(")", "").replace(" ", "-")
        assert f"](#{anchor})" in page, "what GitHub makes of the heading"
