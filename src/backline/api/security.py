"""What stands between the socket and the application: TLS, keys, other origins, and headers for browsers."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from backline.api.access import Access, KeyFile
from backline.api.tls import certificate

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from backline.config.settings import Settings
    from backline.observe.observer import Observer

_NOSNIFF = ("X-Content-Type-Options", "nosniff")  # a model's text must not be taken for a page with scripts
_HTTPS_ONLY = ("Strict-Transport-Security", "max-age=31536000")


class Security:
    """The server's security settings, put to use. Raises ``ConfigError`` for files that cannot be used.

    ``headers`` go with every answer but those that are passed on from a backend.
    """

    def __init__(self, settings: Settings, *, open_paths: frozenset[str]) -> None:
        security = settings.security
        self._prefix = settings.server.url_prefix
        self._open_paths = open_paths
        self._origins = [origin.strip() for origin in (security.cors_origins or "").split(",") if origin.strip()]
        self._keys = None if security.api_keys_file is None else KeyFile(security.api_keys_file)
        self._certificate = certificate(security)
        self.headers = [_NOSNIFF] if self._certificate is None else [_NOSNIFF, _HTTPS_ONLY]

    @property
    def context(self) -> ssl.SSLContext | None:
        """The context of the server's TLS; ``None`` without."""
        return None if self._certificate is None else self._certificate.context

    @property
    def scheme(self) -> str:
        """How addresses of this server begin."""
        return "http" if self._certificate is None else "https"

    @property
    def asks_for_keys(self) -> bool:
        """Whether callers have to show a key."""
        return self._keys is not None

    def protect(self, app: ASGIApp, observer: Observer) -> ASGIApp:
        """Return the application behind what these settings ask for: itself, where they ask for nothing."""
        if self._keys is not None:
            app = Access(app, self._keys, self._open_paths, self._prefix, observer)
        if self._origins:
            from starlette.middleware.cors import CORSMiddleware

            # Outside of the keys: a browser asks whether it may before it shows any, and wants to read a refusal.
            app = CORSMiddleware(
                app,
                allow_origins=self._origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["X-Request-ID", "Retry-After"],
                max_age=600,
            )
        return app

    def refresh(self) -> None:
        """Look whether files have changed; to be called about once a second."""
        if self._keys is not None:
            self._keys.refresh()
        if self._certificate is not None:
            self._certificate.refresh()
