"""Which client: our own, or one on a library that the settings name."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from backline.errors import ConfigError
from backline.proxy.port import BackendAddress, BackendClient

if TYPE_CHECKING:
    from backline.config.settings import BackendSettings


_LIBRARIES = {"http1": "httptools", "aiohttp": "aiohttp", "httpx2": "httpx2", "httpx": "httpx"}
"""What each client needs, the quickest first."""


def choose_client(settings: BackendSettings) -> str:
    """Return the client's name, the first usable one for ``auto``; imports nothing.

    Raises ``ConfigError`` where the library that it needs is not installed.
    """
    if settings.client == "auto":
        for name, library in _LIBRARIES.items():
            if importlib.util.find_spec(library) is not None:
                return name
        raise ConfigError(
            "--backend: nothing in the server's environment can talk to it; install one of "
            f"{', '.join(_LIBRARIES.values())} there"
        )
    library = _LIBRARIES[settings.client]
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"--backend-client {settings.client}: the package {library} is not installed in the server's environment; "
            f"install it there, or take another client"
        )
    return settings.client


def make_client(settings: BackendSettings, address: BackendAddress) -> BackendClient:
    """Return a new client, whose library is imported here and not before. Raises ``ConfigError``."""
    match choose_client(settings):
        case "http1":
            from backline.proxy.http1_client import Http1Client

            return Http1Client(address, connect_timeout=settings.connect_timeout)
        case "aiohttp":
            from backline.proxy.aiohttp_client import AiohttpClient

            return AiohttpClient(address, connect_timeout=settings.connect_timeout)
        case library:
            from backline.proxy.httpx_client import HttpxClient

            return HttpxClient(address, library=library, connect_timeout=settings.connect_timeout)
