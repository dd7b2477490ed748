"""Which client: our own, or one on a library that the settings name."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from backline.errors import ConfigError
from backline.proxy.port import BackendAddress, BackendClient

if TYPE_CHECKING:
    from backline.config.settings import BackendSettings


def check_client(settings: BackendSettings) -> None:
    """Raise ``ConfigError`` where the client's library is not installed; imports nothing."""
    library = "httptools" if settings.client == "http1" else settings.client
    if importlib.util.find_spec(library) is None:
        raise ConfigError(
            f"--backend-client {settings.client}: the package {library} is not installed in the server's environment; "
            f"install it there, or take another client"
        )


def make_client(settings: BackendSettings, address: BackendAddress) -> BackendClient:
    """Return a new client, whose library is imported here and not before."""
    match settings.client:
        case "http1":
            from backline.proxy.http1_client import Http1Client

            return Http1Client(address, connect_timeout=settings.connect_timeout)
        case "aiohttp":
            from backline.proxy.aiohttp_client import AiohttpClient

            return AiohttpClient(address, connect_timeout=settings.connect_timeout)
        case library:
            from backline.proxy.httpx_client import HttpxClient

            return HttpxClient(address, library=library, connect_timeout=settings.connect_timeout)
