"""The libraries that codecs need from the model's environment: imported late, and named when they are missing."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from typing import Any, Set, Type

from ..errors import NotAcceptable, RequestError, UnsupportedMediaType

# The first pyarrow that no longer unpickles what an extension type in a stream tells it to (CVE-2023-47248).
_FIRST_PYARROW_WITHOUT_PICKLE = (14, 0, 1)
_disarmed: Set[str] = set()


def available(name: str) -> bool:
    """Say whether the model's environment has this top-level package, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def pandas_for(what: str) -> Any:
    """Return pandas; raises ``UnsupportedMediaType`` saying that ``what`` needs it where it is missing."""
    return _load("pandas", what, UnsupportedMediaType, "no table can be read without it")


def pyarrow_for(what: str, *, answering: bool = False) -> Any:
    """Return pyarrow, with unpickling of extension types switched off.

    Raises ``UnsupportedMediaType``, or ``NotAcceptable`` when ``answering``, where pyarrow is missing.
    """
    if answering:
        pyarrow = _load("pyarrow", what, NotAcceptable, "application/json and text/csv work without it")
    else:
        pyarrow = _load("pyarrow", what, UnsupportedMediaType, "text/csv and application/json work without it")
    _disarm(pyarrow)
    return pyarrow


def scipy_sparse_for(what: str) -> Any:
    """Return ``scipy.sparse``; raises ``UnsupportedMediaType`` where scipy is missing."""
    return _load("scipy.sparse", what, UnsupportedMediaType, "send a dense table as text/csv instead")


def _load(name: str, what: str, error: Type[RequestError], instead: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as exc:
        package = name.partition(".")[0]
        raise error(
            f"{what} needs {package}, which cannot be imported in the model's environment ({exc}); {instead}",
            details={"package": package},
        ) from exc


def _disarm(pyarrow: Any) -> None:
    """Keep old versions of pyarrow from unpickling: their ``arrow.py_extension_type`` runs code from the stream."""
    if pyarrow.__version__ in _disarmed:
        return
    version = tuple(int(piece) for piece in pyarrow.__version__.split(".")[:3] if piece.isdigit())
    if version < _FIRST_PYARROW_WITHOUT_PICKLE:

        class RefusedExtensionType(pyarrow.ExtensionType):  # type: ignore[misc]
            """Takes the name of the type that unpickles."""

            def __arrow_ext_serialize__(self) -> bytes:
                return b""

            @classmethod
            def __arrow_ext_deserialize__(cls, storage_type: Any, serialized: bytes) -> Any:
                raise ValueError("extension types of the kind arrow.py_extension_type are refused: they hold a pickle")

        with contextlib.suppress(KeyError):
            pyarrow.unregister_extension_type("arrow.py_extension_type")
        pyarrow.register_extension_type(RefusedExtensionType(pyarrow.null(), "arrow.py_extension_type"))
    _disarmed.add(pyarrow.__version__)
