"""Backline serves custom models over HTTP, each under its own interpreter and packages."""

from __future__ import annotations

__all__ = ["__version__"]

# Annotated only: the value comes from `__getattr__`, as importlib.metadata is slow to import and rarely needed.
__version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("backline")
    except metadata.PackageNotFoundError:
        return "0.0.0+source"  # run from a source tree that was never installed
