"""The log lines about single requests: the errors that are answered, and with ``--access-log all`` every request."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from backline.errors import BacklineError, ModelLoadFailed, ModelLoading, RequestRefused, ServerDraining

faults = logging.getLogger("backline.api")
requests = logging.getLogger("backline.access")


def log_error(error: BacklineError, *, method: str, path: str, status: int, request_id: str, access: str) -> None:
    """Log an error that is answered: faults always, what clients do wrong where ``access`` is ``errors``.

    Refusals that are no fault, such as those while the model loads, come by the hundred from whoever waits for their
    end: one line of them will do.
    """
    extra: dict[str, Any] = {
        "request_id": request_id,
        "fields": {"method": method, "path": path, "status": status, "code": error.code},
    }
    if status < 500:
        if access == "errors":
            requests.info(
                "%s %s %d %s: %s", method, path, status, error.code, error.message, extra=extra | {"burst": 10}
            )
    elif isinstance(error, RequestRefused | ModelLoadFailed):
        usual = isinstance(error, ModelLoading | ServerDraining)
        level = logging.INFO if usual else logging.WARNING
        faults.log(level, "%d %s: %s", status, error.code, error.message, extra=extra | {"burst": 1})
    else:
        trace = getattr(error, "traceback", None)
        faults.error("%d %s: %s", status, error.code, error.message, extra=extra | {"trace": trace})


def log_passed_on(*, method: str, path: str, status: int, request_id: str, access: str) -> None:
    """Log an error of the backend's own that was passed on, where ``access`` is ``errors``."""
    if access == "errors":
        fields = {"method": method, "path": path, "status": status}
        extra = {"request_id": request_id, "fields": fields, "burst": 10}
        requests.info("%s %s %d from the backend", method, path, status, extra=extra)


def log_request(
    *,
    method: str,
    route: str | None,
    status: int | None,
    code: str | None,
    request_id: str | None,
    worker: int | None,
    response_bytes: int,
    total: float,
    queue: float | None,
    stages: Mapping[str, float],
) -> None:
    """Log a request that is over: what it was answered, and where its time went (seconds).

    ``route`` is the template of its route, ``None`` for a path that is none; ``status`` is ``None`` where the client
    left before there was an answer.
    """
    seconds = {"queue": queue, **stages}
    told = ", ".join(f"{stage} {value * 1000:.1f}" for stage, value in seconds.items() if value is not None)
    fields: dict[str, Any] = {"method": method, "route": route, "status": status, "response_bytes": response_bytes}
    if code is not None:
        fields["code"] = code
    fields["seconds"] = {
        stage: round(value, 6) for stage, value in {**seconds, "total": total}.items() if value is not None
    }
    requests.info(
        "%s %s %s%s, %d bytes, %.1f ms%s",
        method,
        route or "(no route)",
        "client left" if status is None else status,
        "" if code is None else f" {code}",
        response_bytes,
        total * 1000,
        f" ({told})" if told else "",
        extra={"request_id": request_id, "worker": worker, "fields": fields},
    )
