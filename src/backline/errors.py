"""Every error of the server, as one tree by who has to act. Imports nothing of ours; knows no HTTP status.

::

    BacklineError
    ├── ConfigError              the operator: a flag, a variable, backline.toml or the model's metadata file
    │   └── ParityError          two servers cannot be compared
    ├── ModelLoadFailed          the model's author: no worker could load the model
    │   └── EnvironmentFailed    the same: what the model's folder asks for cannot be installed
    ├── ReloadFailed             the same, while another model serves
    ├── RequestRefused           the client, or nobody: not accepted, nothing was done
    │   ├── BodyTooLarge, HeadTooLarge, MalformedMultipart, BadRequest
    │   ├── QueueFull, ClientOverShare, TooManyConnections, ServerDraining, ModelLoading, PoisonRequest
    ├── DeadlineExceeded         accepted, and not answered in time
    ├── WorkerDied               accepted, and the worker died on it
    ├── WorkerReported           the worker answered with an error record (its ``code`` says which)
    └── BackendError             whoever runs the backend that requests are passed on to
        ├── BackendDown, BackendBroken, BackendTooSlow, BackendFailed, GenerationFailed
        └── (RequestRefused) BackendBusy, BackendLoading, ClientTooSlow
"""

from __future__ import annotations

from typing import Any


class BacklineError(Exception):
    """Base of every error of ours. ``code`` is stable, for machines; the message is for people."""

    code = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigError(BacklineError):
    """A setting or the model's metadata cannot be used: the message names the place, the problem and the mend."""

    code = "config_error"


class ModelLoadFailed(BacklineError):
    """The model could not be loaded; ``traceback`` holds the user's frames where there are any."""

    code = "load_failed"

    def __init__(self, message: str, *, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback


class EnvironmentFailed(ModelLoadFailed):
    """The model's environment could not be built: ``what`` went wrong, ``where``, and how to ``mend`` it."""

    code = "environment_failed"

    def __init__(self, what: str, *, where: str, mend: str) -> None:
        super().__init__(f"the model's environment could not be built: {where}: {what}\n{mend}")
        self.what = f"the model's environment could not be built: {what}"
        self.where = where
        self.mend = mend


class ReloadFailed(BacklineError):
    """The folder could not be loaded anew; what served before still does. ``traceback`` holds the user's frames."""

    code = "reload_failed"

    def __init__(self, message: str, *, traceback: str | None = None) -> None:
        super().__init__(message)
        self.traceback = traceback


class RequestRefused(BacklineError):
    """The request was not accepted; ``retry_after`` is in seconds, where coming back may help."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class BodyTooLarge(RequestRefused):
    """The body is over ``--max-body``."""

    code = "body_too_large"


class HeadTooLarge(RequestRefused):
    """The request line and headers are over ``limits.max_head``."""

    code = "head_too_large"


class MalformedMultipart(RequestRefused):
    """The multipart framing is broken, or it has too many or too large parts or headers."""

    code = "malformed_multipart"


class BadRequest(RequestRefused):
    """A header or the query string cannot be used."""

    code = "bad_request"


class QueueFull(RequestRefused):
    """As many requests wait as ``--queue`` allows."""

    code = "queue_full"


class ClientOverShare(RequestRefused):
    """As many requests of this client are under way as ``--max-per-client`` allows."""

    code = "client_over_share"


class TooManyConnections(RequestRefused):
    """There are as many connections as ``limits.max_connections`` allows; on this one only probes are answered."""

    code = "too_many_connections"


class ServerDraining(RequestRefused):
    """The server is shutting down and takes no new work."""

    code = "draining"


class ModelLoading(RequestRefused):
    """No worker has loaded the model yet."""

    code = "loading"


class PoisonRequest(RequestRefused):
    """A request with this very content has killed two workers; its like is refused for a while."""

    code = "poison_request"


class DeadlineExceeded(BacklineError):
    """The deadline passed before the answer was there; ``in_queue`` says whether a worker ever saw the request."""

    code = "deadline_exceeded"

    def __init__(self, message: str, *, in_queue: bool) -> None:
        super().__init__(message)
        self.in_queue = in_queue


class WorkerDied(BacklineError):
    """The worker died while it held the request, and the request could not be tried again.

    ``while_decoding``: it died reading the body, so the body is at fault rather than the model.
    """

    code = "worker_died"

    def __init__(self, message: str, *, while_decoding: bool = False) -> None:
        super().__init__(message)
        self.while_decoding = while_decoding


class WorkerReported(BacklineError):
    """A worker answered with an error record; ``code`` is the record's."""

    def __init__(
        self, code: str, message: str, *, error_type: str, details: dict[str, Any], traceback: str | None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.error_type = error_type
        self.details = details
        self.traceback = traceback


class BackendError(BacklineError):
    """The backend that requests are passed on to did not do its part. The message names its address."""


class BackendDown(BackendError):
    """No connection to the backend: refused, no such host, no TLS."""

    code = "backend_down"


class BackendBroken(BackendError):
    """The backend closed the connection before its answer was complete, or what it sent is no HTTP."""

    code = "backend_broken"


class BackendTooSlow(BackendError):
    """The backend did not accept the connection, answer or go on in time."""

    code = "backend_too_slow"


class BackendFailed(BackendError):
    """The backend that we start has been given up: it does not get ready, or does not stay up."""

    code = "backend_failed"


class GenerationFailed(BackendError):
    """The backend did not give a text for a row, which ``place`` names."""

    code = "generation_failed"

    def place(self, row: int, rows: int) -> None:
        """Say in the message which row it was, counted from 1."""
        self.message = f"row {row} of {rows}: {self.message}"
        self.args = (self.message,)


class BackendLoading(RequestRefused):
    """The backend that we start is not ready yet, or is being started again."""

    code = "backend_loading"


class BackendBusy(RequestRefused):
    """As many requests are under way to the backend as ``--backend-connections`` allows."""

    code = "backend_busy"


class ClientTooSlow(RequestRefused):
    """The client sends its headers or its body too slowly, or stopped in the middle."""

    code = "client_too_slow"


class ParityError(ConfigError):
    """Two servers cannot be compared: one cannot be reached or started, or what was found cannot be kept.

    It ends a command, and is never an answer.
    """
