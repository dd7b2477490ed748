"""The log lines about single requests: the errors that are answered, and with ``--access-log all`` every request."""

from __future__ import annotations

import logging
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
