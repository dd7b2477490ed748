"""The one table from errors to HTTP: for each code its status, and what causes and cures it.

Core errors know no status; a status stands nowhere else. ``docs/reference/errors.md`` and the error responses of the
OpenAPI document are made from this table, and a test holds it against every error class of the server and the worker.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import TYPE_CHECKING, Any, Final, Literal

from backline.errors import BacklineError, RequestRefused, WorkerDied, WorkerReported

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Family = Literal["native", "openai"]

USER_ERROR_HEADER: Final = "X-Drum-User-Http-Error"
MAX_MESSAGE_CHARACTERS: Final = 8_192
MAX_TRACEBACK_CHARACTERS: Final = 65_536
_EXAMPLE_REQUEST_ID: Final = "5f0c2a91d3e7-1a"
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# What user code may not set on its error: these belong to the connection, to the body that we write, or to us.
_OUR_HEADERS: Final = frozenset(
    {
        "connection", "content-encoding", "content-length", "content-type", "date", "keep-alive", "server", "te",
        "trailer", "transfer-encoding", "upgrade", "x-request-id", USER_ERROR_HEADER.lower(),
    }
)  # fmt: skip


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ErrorRow:
    """One error as a client sees it.

    ``example`` is a message as it is answered. ``retry_after`` is in seconds, for errors that bring no time themselves;
    ``None`` when coming back does not help. ``variant`` tells rows of one code apart. Where ``status_from_user`` is set
    user code chooses the status, and ``status`` stands in for one that is no error.
    """

    code: str
    status: int
    title: str
    cause: str
    cure: str
    example: str
    retry_after: float | None = None
    variant: str = ""
    status_from_user: bool = False

    @property
    def key(self) -> str:
        """The row's key in ``TABLE``: the code, or code and variant."""
        return f"{self.code}/{self.variant}" if self.variant else self.code

    @property
    def shown_status(self) -> str:
        """The status for people."""
        return "the model's" if self.status_from_user else str(self.status)


_ROWS: Final = (
    # The request cannot be used: 4xx, and the client can mend it.
    ErrorRow(
        code="bad_request",
        status=400,
        title="Bad request",
        cause="A header or the query string cannot be used, or a direct-access route has no backend behind it.",
        cure="Mend what the message names.",
        example="X-Request-Timeout: expected a positive number of seconds, such as 2.5",
    ),
    ErrorRow(
        code="malformed_multipart",
        status=400,
        title="Malformed multipart body",
        cause="The framing of a multipart/form-data body is broken (boundary, delimiters, headers of a part), two "
        "parts are named X, or there are more or larger parts or headers than --max-parts and --max-part-headers "
        "allow.",
        cure="Let the HTTP client build the body and its Content-Type (curl -F X=@data.csv), or send the rows as the "
        "body itself with their own Content-Type.",
        example="the multipart body ends in the content of part 1 ('X'), without its closing delimiter b'--b--'; was "
        "it cut off, or has a part a line that starts with the boundary?",
    ),
    ErrorRow(
        code="unauthorized",
        status=401,
        title="No key",
        cause="The server, or its admin address, asks for keys (--api-keys-file, --admin-keys-file), and the request "
        "shows none that it knows.",
        cure="Send Authorization: Bearer KEY, or X-API-Key: KEY, with a key that the server's operator gave you.",
        example="show a key of this server: Authorization: Bearer KEY, or X-API-Key: KEY",
    ),
    ErrorRow(
        code="shutdown_forbidden",
        status=403,
        title="Shutdown is off",
        cause="POST /shutdown/ without --allow-shutdown: a prediction client must not be able to stop the server.",
        cure="Start the server with --allow-shutdown, or stop it by a signal.",
        example="/shutdown is off; start the server with --allow-shutdown, or stop it by a signal",
    ),
    ErrorRow(
        code="not_found",
        status=404,
        title="No such route",
        cause="The path is none of the server's; often the URL prefix is missing or doubled.",
        cure="Look the path up in /docs; with URL_PREFIX every route starts with it.",
        example="no route /predcit; /docs lists what there is",
    ),
    ErrorRow(
        code="operation_unavailable",
        status=404,
        title="The model does not offer this",
        cause="The operation needs a hook or a target type that this model does not have, such as chat without a chat "
        "hook, or the list of models on a model that does not generate text.",
        cure="Use an operation that /capabilities/ lists, or add the hook to custom.py.",
        example="this model has no chat hook; define chat(completion_create_params, model) in custom.py to serve chat",
    ),
    ErrorRow(
        code="method_not_allowed",
        status=405,
        title="Method not allowed",
        cause="The route exists, and not with this method.",
        cure="Use one of the methods in the Allow header.",
        example="GET is not possible on /predict/; use POST",
    ),
    ErrorRow(
        code="not_acceptable",
        status=406,
        title="No acceptable format",
        cause="None of the formats in the Accept header can be written for this answer, or the package that writes it "
        "is missing in the model's environment.",
        cure="Ask for application/json, which always works for predictions, or for a format that the message lists.",
        example="Accept: application/xml cannot be answered; on offer: application/json, text/csv",
    ),
    ErrorRow(
        code="client_too_slow",
        status=408,
        title="Request too slow",
        cause="The headers or the body of a request come more slowly than limits.head_timeout and limits.body_timeout "
        "allow, or a request to the backend stopped in the middle of its body for longer than --backend-idle-timeout.",
        cure="Send the request again, over a connection that keeps up, and have the body at hand before sending it.",
        example="the request's body stopped coming for 300 s (--backend-idle-timeout); the request to the backend is "
        "given up",
    ),
    ErrorRow(
        code="body_too_large",
        status=413,
        title="Body too large",
        cause="The body is over --max-body, or larger than all the shared memory that the server has.",
        cure="Send fewer rows in a request, or have the limit raised.",
        example="the request body has 2147483648 bytes; this server takes at most 1073741824 bytes (--max-body): send "
        "fewer rows in a request, or have the limit raised",
    ),
    ErrorRow(
        code="head_too_large",
        status=431,
        title="Headers too large",
        cause="The request line and headers are over limits.max_head.",
        cure="Send fewer or shorter headers and cookies, and move long query strings into the body.",
        example="the request line and headers are over 65536 bytes (limits.max_head)",
    ),
    ErrorRow(
        code="decompressed_too_large",
        status=413,
        title="Decompressed body too large",
        cause="The body grows over --max-decompressed when it is decompressed or decoded.",
        cure="Send fewer rows in a request, or have the limit raised.",
        example="the body is more than 4294967296 bytes when decompressed (--max-decompressed); send fewer rows",
    ),
    ErrorRow(
        code="unsupported_media_type",
        status=415,
        title="Unsupported content type",
        cause="There is no decoder for this Content-Type, or the package that decodes it is missing in the model's "
        "environment.",
        cure="Send one of the formats that /capabilities/ lists, or install the package that the message names.",
        example="no decoder for content type application/xml; supported: text/csv, application/json",
    ),
    ErrorRow(
        code="unsupported_encoding",
        status=415,
        title="Unsupported content encoding",
        cause="There is no decoder for this Content-Encoding.",
        cure="Send the body as it is, or compressed with gzip or deflate.",
        example="no decoder for Content-Encoding: br; supported: gzip, deflate, identity",
    ),
    ErrorRow(
        code="empty_body",
        status=422,
        title="Empty body",
        cause="The operation needs a body and none came; with curl often a file name without the @.",
        cure="Send the rows: curl --data-binary @data.csv -H 'Content-Type: text/csv', or curl -F X=@data.csv.",
        example="the request has no body; send rows with a header line as text/csv",
    ),
    ErrorRow(
        code="decode_failed",
        status=422,
        title="Body cannot be decoded",
        cause="The body is not what its content type says it is.",
        cure="Mend the place that the message names, or correct the Content-Type.",
        example="the body is no CSV: line 3 has 5 fields where the header has 4",
    ),
    ErrorRow(
        code="missing_part",
        status=422,
        title="Missing part",
        cause="A multipart body lacks the part that carries the rows.",
        cure="Name the part X: curl -F X=@data.csv.",
        example="the multipart body has no part named 'X'; it has 'file'",
    ),
    ErrorRow(
        code="schema_mismatch",
        status=422,
        title="Rows do not fit the model",
        cause="The rows were read, but columns are missing, or types are not those that the model asks for.",
        cure="Send the columns that the message names; /info/ lists the features that are known.",
        example="the model needs the column 'age', which the rows do not have",
    ),
    ErrorRow(
        code="poison_request",
        status=422,
        title="Request refused for a while",
        cause="A request with this very content has killed two workers.",
        cure="Change the rows; the server's log shows how the workers died. The same content is tried again after the "
        "time in Retry-After.",
        example="a request with this content has killed two workers; it is refused for another 287 seconds",
        retry_after=300,
    ),
    ErrorRow(
        code="worker_died",
        variant="decoding",
        status=422,
        title="Body kills the decoder",
        cause="The worker died while it read the body, twice: the body is at fault rather than the model.",
        cure="Write the file anew, or send the rows in another format; the server's log shows how the worker died.",
        example="the worker died by signal 11 (SIGSEGV) while it decoded the body",
    ),
    # The model's own code or results: the model's author can mend it.
    ErrorRow(
        code="user_http_error",
        status=500,
        status_from_user=True,
        title="Error answered by the model",
        cause="The model's code raised an HTTP exception on purpose; status and message are the model's own. The "
        f"header {USER_ERROR_HEADER}: true marks those raised with CustomHTTPError.",
        cure="What the message says; it comes from the model.",
        example="temperature must be between 0 and 2",
    ),
    ErrorRow(
        code="hook_failed",
        status=500,
        title="The model's code failed",
        cause="A hook in custom.py, or the artifact's own predict, raised an exception.",
        cure="Read the traceback in the server's log (in the answer too with --show-stacktrace) and mend the model.",
        example="error was raised when making predictions (score): ValueError: could not convert string to "
        "float: 'n/a'",
    ),
    ErrorRow(
        code="result_invalid",
        status=500,
        title="The model's result is not valid",
        cause="What the model returned does not fit its target type: number of rows, columns, labels, probabilities.",
        cure="Mend the hook that the message names.",
        example="score returned 2 rows for 3 rows of data; it has to return one row for each",
    ),
    ErrorRow(
        code="out_of_memory",
        status=500,
        title="Out of memory",
        cause="The call hit the worker's memory limit. The worker is replaced.",
        cure="Send fewer rows in a request, or raise --memory-limit.",
        example="the model ran out of memory on this request (limit 2147483648 bytes); send fewer rows",
    ),
    ErrorRow(
        code="worker_died",
        status=500,
        title="The worker died",
        cause="The worker died while it held the request (a crash in a library, os._exit, the kernel's OOM killer), "
        "and the request could not be tried again or killed the second worker too. A replacement is started.",
        cure="Look at the worker's last lines in the server's log. Sending it again is safe only if doing it twice is.",
        example="the worker died by signal 11 (SIGSEGV) while it held the request, and so did the one that tried again",
    ),
    ErrorRow(
        code="load_failed",
        status=513,
        title="The model could not be loaded",
        cause="The model's folder could not be loaded, or workers died too often to be started again.",
        cure="The message names the file and the problem; mend the model and restart the server.",
        example="could not load model from artifact model.pkl: ModuleNotFoundError: No module named 'xgboost'",
    ),
    ErrorRow(
        code="environment_failed",
        status=513,
        title="The model's environment could not be built",
        cause="With --env auto: what the model's folder asks for cannot be installed, because packages exclude each "
        "other, are not there, or have no build for that Python; or the package index cannot be reached.",
        cure="The message names the lines and what the resolver said; mend them, try with backline env build, and "
        "restart the server.",
        example="the model's environment could not be built: /models/churn/requirements.txt:2 (pandas==0.1): there is "
        "no pandas==0.1 in the index",
    ),
    ErrorRow(
        code="reload_failed",
        status=513,
        title="The model could not be loaded anew",
        cause="A reload was asked for at the admin address, and the folder as it is now cannot be loaded.",
        cure="Mend what the message names and ask again; the model that served before goes on.",
        example="the reload has failed, and model 3 goes on serving: model-metadata.yaml:4: targetType: 'binry' is "
        "unknown; did you mean 'binary'?",
    ),
    ErrorRow(
        code="config_error",
        status=513,
        title="Configuration cannot be used",
        cause="A setting, or the model's metadata file, is wrong.",
        cure="Mend what the message names and restart the server.",
        example="model-metadata.yaml:4: targetType: 'binry' is unknown; did you mean 'binary'?",
    ),
    # Not now: nothing was done, and coming back helps.
    ErrorRow(
        code="queue_full",
        status=503,
        title="Too many requests wait",
        cause="As many requests wait, or as many bytes are held, as --queue and --max-bytes-in-flight allow; or so "
        "many that this one would wait for longer than --max-wait, or could hardly be answered before its deadline; or "
        "shared memory is full.",
        cure="Come back after the time in Retry-After; send fewer requests at once, or raise --workers.",
        example="1024 requests wait already (--queue); come back later",
        retry_after=1,
    ),
    ErrorRow(
        code="client_over_share",
        status=429,
        title="Too many requests of one client",
        cause="As many requests of this client, told by its address, are under way as --max-per-client allows.",
        cure="Wait for answers before sending more, or come back after the time in Retry-After.",
        example="8 requests of this client are under way already (--max-per-client); wait for one of them",
        retry_after=1,
    ),
    ErrorRow(
        code="too_many_connections",
        status=503,
        title="Too many connections",
        cause="There are as many connections as limits.max_connections or the limit on open files allows.",
        cure="Keep connections open and use them again, or have the limit raised.",
        example="this server has as many connections as it may (limits.max_connections); only probes are answered on "
        "new ones",
        retry_after=1,
    ),
    ErrorRow(
        code="loading",
        status=503,
        title="The model is loading",
        cause="No worker has loaded the model yet, or all died and are being replaced.",
        cure="Come back after the time in Retry-After; /readyz/ says when.",
        example="the model is loading; /readyz/ answers 200 when it is ready",
        retry_after=1,
    ),
    ErrorRow(
        code="draining",
        status=503,
        title="The server is shutting down",
        cause="The server was told to stop. It finishes what it has accepted and takes no new work.",
        cure="Send the request to another replica, or come back when the server has been started again.",
        example="the server is shutting down",
        retry_after=1,
    ),
    ErrorRow(
        code="backend_busy",
        status=503,
        title="Too many requests at the backend",
        cause="As many requests are under way to the backend as --backend-connections allows.",
        cure="Come back after the time in Retry-After; send fewer requests at once, or raise --backend-connections.",
        example="1024 requests are under way to the backend (--backend-connections); come back later",
        retry_after=1,
    ),
    ErrorRow(
        code="backend_unready",
        status=503,
        title="The backend is not ready",
        cause="Answered by the readiness probes only: the backend did not answer its own readiness path as it should.",
        cure="The message has what it answered; see that the backend runs and that --backend and --backend-ready-path "
        "are right.",
        example="the backend http://127.0.0.1:8000 is not ready: GET /v1/health/ready was answered 503",
        retry_after=1,
    ),
    ErrorRow(
        code="generation_failed",
        status=502,
        title="A row was not answered",
        cause="The backend refused the prompt of a row, or answered with no text for it. The other rows are given up.",
        cure="The message names the row, counted from 1, and what the backend said; mend the row, or the settings of "
        "the section generation.",
        example="row 3 of 10: the backend answered 400: This model's maximum context length is 4096 tokens",
    ),
    ErrorRow(
        code="backend_loading",
        status=503,
        title="The backend is loading",
        cause="The backend of --backend-command is not ready yet, or has died and is being started again.",
        cure="Wait; /readyz/ says when it is ready, and the server's log has what the backend writes.",
        example="the backend is still loading, for 42 s now\nLast output of the backend:\n  Loading weights: 40%",
        retry_after=1,
    ),
    ErrorRow(
        code="backend_failed",
        status=513,
        title="The backend is given up",
        cause="The backend of --backend-command does not get ready, or dies too often to be started again.",
        cure="The message has its last lines; mend the command or what it needs, and restart the server.",
        example="the backend does not stay up: it ended before it was ready: exited with code 1",
    ),
    ErrorRow(
        code="backend_down",
        status=502,
        title="The backend is down",
        cause="No connection to the backend could be made: nothing listens there, the name is unknown, or TLS fails.",
        cure="Start the backend, or correct --backend. The next request tries again; nothing has to be restarted here.",
        example="no connection to the backend http://127.0.0.1:8000: Connection refused",
    ),
    ErrorRow(
        code="backend_broken",
        status=502,
        title="The backend's answer is no HTTP",
        cause="The backend closed the connection before it had answered, sent something that is not HTTP/1.1, or "
        "headers without end. Where it fails in the middle of its answer, the connection to the client is closed "
        "before the end of the body, as the status is out already.",
        cure="Look into the backend's log. The next request uses a new connection.",
        example="the backend http://127.0.0.1:8000 closed the connection before it answered",
    ),
    ErrorRow(
        code="backend_too_slow",
        status=504,
        title="The backend is too slow",
        cause="The backend did not accept a connection within --backend-connect-timeout, or did not begin its answer "
        "within --backend-timeout. Where it stops in the middle of its answer for longer than --backend-idle-timeout, "
        "the connection to the client is closed before the end of the body.",
        cure="Look into the backend's log and load, or allow more time.",
        example="the backend http://127.0.0.1:8000 did not begin its answer within 600 s (--backend-timeout)",
    ),
    ErrorRow(
        code="deadline_exceeded",
        status=504,
        title="Deadline exceeded",
        cause="The answer was not there within X-Request-Timeout or --timeout. A call that was running is stopped.",
        cure="Send fewer rows, allow more time, or raise --workers if requests wait long in the queue.",
        example="no answer within 600 s; the model was working on it for 598.2 s",
    ),
    # Ours.
    ErrorRow(
        code="internal_error",
        status=500,
        title="Error in the server",
        cause="A fault in the server, not in the request or in the model.",
        cure="Report it, with the request id and the lines of the server's log that carry it.",
        example="the worker answered with something that is not in the protocol",
    ),
)

TABLE: Final[Mapping[str, ErrorRow]] = {row.key: row for row in _ROWS}


@dataclasses.dataclass(frozen=True, slots=True)
class ErrorResponse:
    """A complete answer; ``headers`` are ASGI's, names in lower case, without Content-Length."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def row_for(exc: BacklineError) -> ErrorRow:
    """Return the table's row for an error; a code that a newer worker made up is an internal error."""
    if isinstance(exc, WorkerDied) and exc.while_decoding:
        return TABLE["worker_died/decoding"]
    return TABLE.get(exc.code) or TABLE["internal_error"]


def render_error(exc: BacklineError, *, family: Family, request_id: str, show_stacktrace: bool) -> ErrorResponse:
    """Return the answer for an error.

    ``native``: ``{"message": "ERROR: …", "code", "request_id"}``; ``openai`` adds ``error`` with ``message``, ``type``,
    ``param`` and ``code``, as OpenAI's clients expect it. With ``show_stacktrace`` a ``traceback`` is added where there
    is one. Never raises, whatever a model has put into its error.
    """
    row = row_for(exc)
    status = row.status
    headers = [(b"content-type", b"application/json"), (b"x-request-id", _latin(request_id))]
    if row.status_from_user and isinstance(exc, WorkerReported):
        status = _user_status(exc.details.get("status"), row.status)
        headers += _user_headers(exc.details.get("headers"))
        if exc.details.get("marked"):
            headers.append((USER_ERROR_HEADER.lower().encode(), b"true"))
    retry_after = (
        exc.retry_after if isinstance(exc, RequestRefused) and exc.retry_after is not None else row.retry_after
    )
    if retry_after is not None:
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(retry_after))))
    if family == "openai" and not row.status_from_user:
        # OpenAI's clients repeat every 5xx two times of themselves, and hold to this header where there is one. Only
        # what was not begun is worth repeating: the rest would triple the load of a model that fails or is slow.
        headers.append((b"x-should-retry", b"true" if status in {429, 503} else b"false"))
    message = _shorten(exc.message)
    content: dict[str, Any] = {"message": f"ERROR: {message}"}
    if family == "openai":
        content["error"] = {"message": message, "type": _openai_type(status), "param": None, "code": exc.code}
    content["code"] = exc.code
    content["request_id"] = request_id
    traceback = getattr(exc, "traceback", None)
    if show_stacktrace and isinstance(traceback, str):
        content["traceback"] = traceback[-MAX_TRACEBACK_CHARACTERS:]
    # Half a surrogate pair, which file names and broken decoders bring, becomes \udcXX: that is valid JSON again.
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "backslashreplace")
    return ErrorResponse(status, headers, body)


def example_error(row: ErrorRow) -> BacklineError:
    """Return an error whose answer is this row; for the documentation and its tests."""
    if row.status_from_user:
        details = {"status": 422, "headers": {}, "marked": True}
        return WorkerReported(row.code, row.example, error_type="CustomHTTPError", details=details, traceback=None)
    if row.variant:
        return WorkerDied(row.example, while_decoding=True)
    return WorkerReported(row.code, row.example, error_type="", details={}, traceback=None)


def example_body(row: ErrorRow, family: Family) -> dict[str, Any]:
    """Return the body that a client gets for the row's example."""
    response = render_error(example_error(row), family=family, request_id=_EXAMPLE_REQUEST_ID, show_stacktrace=False)
    body: dict[str, Any] = json.loads(response.body)
    return body


def render_markdown() -> str:
    """Return the reference page of all errors (``docs/reference/errors.md``)."""
    return "\n".join(_markdown_lines())


def _markdown_lines() -> Iterator[str]:
    rows = sorted(_ROWS, key=lambda row: (row.status_from_user, row.status, row.code))
    yield "# Errors"
    yield ""
    yield "<!-- Generated from src/backline/api/error_table.py; do not edit. -->"
    yield ""
    yield (
        "Every error is answered with `Content-Type: application/json`, and with the request's id in `X-Request-ID` "
        "and in the body; the server's log carries the same id."
    )
    yield "`code` is stable and for programs; `message` is for people, starts with `ERROR: ` and may change."
    yield "Routes of the OpenAI family (`/chat/completions`, `/models`, with and without `/v1`) add an `error` object:"
    yield ""
    yield from _json_block(example_body(TABLE["operation_unavailable"], "openai"))
    yield ""
    yield "They also send `x-should-retry`, which OpenAI's clients obey: `true` only with the 503s below."
    yield "With `--show-stacktrace` the body has a `traceback` key where the model's code failed."
    yield "Where coming back helps, `Retry-After` says in how many seconds."
    yield ""
    yield "| Status | Code | Meaning |"
    yield "| --- | --- | --- |"
    for row in rows:
        yield f"| {row.shown_status} | [`{row.code}`](#{_anchor(row)}) | {row.title} |"
    for row in rows:
        yield ""
        yield f"## {_heading(row)}"
        yield ""
        yield f"Status {row.shown_status}, code `{row.code}`: {row.title[0].lower()}{row.title[1:]}."
        if row.retry_after is not None:
            yield f"Sent with `Retry-After` (`{row.retry_after:g}` unless the server knows better)."
        yield ""
        yield f"- **Cause.** {_escape(row.cause)}"
        yield f"- **Cure.** {_escape(row.cure)}"
        yield ""
        yield from _json_block(example_body(row, "native"))
    yield ""


def _json_block(content: Mapping[str, Any]) -> Iterator[str]:
    yield "```json"
    yield json.dumps(content, indent=2, ensure_ascii=False)
    yield "```"


def _heading(row: ErrorRow) -> str:
    return f"{row.code} ({row.variant})" if row.variant else row.code


def _anchor(row: ErrorRow) -> str:
    return f"{row.code}-{row.variant}" if row.variant else row.code


def _escape(text: str) -> str:
    """Keep Markdown from reading ``_`` in a name such as os._exit as emphasis."""
    return text.replace("_", "\\_").replace("*", "\\*").replace("<", "&lt;")


def _openai_type(status: int) -> str:
    match status:
        case 401:
            return "authentication_error"
        case 403:
            return "permission_error"
        case 404:
            return "not_found_error"
        case 429:
            return "rate_limit_error"
        case _ if status < 500:
            return "invalid_request_error"
        case _:
            return "server_error"


def _user_status(status: object, otherwise: int) -> int:
    if isinstance(status, int) and 400 <= status <= 599:
        return int(status)
    return otherwise


def _user_headers(headers: object) -> Iterator[tuple[bytes, bytes]]:
    """Yield the headers of the model's error that may be sent, such as WWW-Authenticate and Retry-After."""
    if not isinstance(headers, dict):
        return
    for name, value in headers.items():
        if isinstance(value, int):
            value = str(value)  # noqa: PLW2901 - Retry-After is often given as a number
        if not isinstance(name, str) or not isinstance(value, str) or name.lower() in _OUR_HEADERS:
            continue
        # Control characters would let a model, or a client through it, write headers of its own.
        if _TOKEN.fullmatch(name) and _HEADER_VALUE.fullmatch(value):
            yield name.lower().encode("ascii"), value.strip().encode("latin-1")


def _latin(text: str) -> bytes:
    return text.encode("latin-1", "replace") if _HEADER_VALUE.fullmatch(text) else b"invalid"


def _shorten(message: str) -> str:
    """Cut a message that quotes a whole table; an answer has a size that one can rely on."""
    if len(message) <= MAX_MESSAGE_CHARACTERS:
        return message
    return f"{message[:MAX_MESSAGE_CHARACTERS]} … ({len(message) - MAX_MESSAGE_CHARACTERS} more characters)"
