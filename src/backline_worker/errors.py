"""Every error that a worker reports, as one tree.

::

    ReportedError                    crosses the channel as a record: code, message, details, traceback text
    ├── RequestError                 the client has to act
    │   ├── EmptyBody                empty_body
    │   ├── DecodeError              decode_failed
    │   ├── UnsupportedMediaType     unsupported_media_type
    │   ├── UnsupportedEncoding      unsupported_encoding
    │   ├── DecompressedTooLarge     decompressed_too_large
    │   ├── MissingPart              missing_part
    │   ├── NotAcceptable            not_acceptable
    │   ├── SchemaMismatch           schema_mismatch
    │   └── OperationUnavailable     operation_unavailable
    ├── ModelCallError               the model's author has to act
    │   ├── HookFailed               hook_failed
    │   ├── UserHTTPError            user_http_error
    │   ├── ResultInvalid            result_invalid
    │   └── OutOfMemory              out_of_memory
    └── ModelLoadError               load_failed

The server maps codes to HTTP statuses; nothing here knows a status, save the one that user code asked for.
"""

from __future__ import annotations

from typing import Any, Dict, Optional

MAX_MESSAGE_CHARACTERS = 16_384
MAX_TRACEBACK_CHARACTERS = 65_536


class ReportedError(Exception):
    """An error with a stable ``code`` and a message for the one who has to act: what, where, how to mend."""

    code = "internal_error"

    def __init__(
        self, message: str, *, details: Optional[Dict[str, Any]] = None, traceback: Optional[str] = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details or {}
        self.traceback = traceback

    def to_record(self) -> Dict[str, Any]:
        """Return the plain JSON record that crosses the channel; bounded, as exceptions may quote a whole body."""
        cause = self.__cause__
        return {
            "code": self.code,
            "message": self.message[:MAX_MESSAGE_CHARACTERS],
            "type": type(cause).__name__ if cause is not None else type(self).__name__,
            "details": self.details,
            "traceback": self.traceback and self.traceback[-MAX_TRACEBACK_CHARACTERS:],
        }


class RequestError(ReportedError):
    """The request is at fault; the client can mend it."""


class EmptyBody(RequestError):
    """A body was needed and none came."""

    code = "empty_body"


class DecodeError(RequestError):
    """The body is not what its content type says."""

    code = "decode_failed"


class UnsupportedMediaType(RequestError):
    """No decoder for this content type in the model's environment."""

    code = "unsupported_media_type"


class UnsupportedEncoding(RequestError):
    """No decoder for this Content-Encoding."""

    code = "unsupported_encoding"


class DecompressedTooLarge(RequestError):
    """The body grows past the limit when it is decompressed or decoded."""

    code = "decompressed_too_large"


class MissingPart(RequestError):
    """A multipart body lacks the part that carries the data."""

    code = "missing_part"


class NotAcceptable(RequestError):
    """None of the formats in ``Accept`` can be written here."""

    code = "not_acceptable"


class SchemaMismatch(RequestError):
    """The rows were read, but their columns or types are not what the model asks for."""

    code = "schema_mismatch"


class OperationUnavailable(RequestError):
    """The model does not offer this operation, such as chat without a ``chat`` hook."""

    code = "operation_unavailable"


class ModelCallError(ReportedError):
    """The model's own code, or what it returned, is at fault."""


class HookFailed(ModelCallError):
    """User code or the artifact's predict raised; ``traceback`` is trimmed to the user's frames."""

    code = "hook_failed"


class UserHTTPError(ModelCallError):
    """User code raised an HTTP exception on purpose: ``details["status"]`` is the status that it asked for."""

    code = "user_http_error"


class ResultInvalid(ModelCallError):
    """What the model returned does not fit its target type."""

    code = "result_invalid"


class OutOfMemory(ModelCallError):
    """The call hit the worker's memory limit; the worker is replaced afterwards."""

    code = "out_of_memory"


class ModelLoadError(ReportedError):
    """The model folder could not be loaded: names the file, the problem and the mend."""

    code = "load_failed"
