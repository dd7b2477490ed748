"""TLS of the server itself: certificate and key from files, read again when they change."""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from backline.errors import ConfigError

if TYPE_CHECKING:
    from backline.config.settings import SecuritySettings

logger = logging.getLogger("backline.api")


class Certificate:
    """An SSL context whose certificate is replaced when its files change; open connections keep theirs.

    Raises ``ConfigError`` for files that cannot be used.
    """

    def __init__(self, cert: Path, key: Path | None, client_ca: Path | None) -> None:
        self._files = [file for file in (cert, key) if file is not None]
        self._cert, self._key = cert, key
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.context.set_alpn_protocols(["http/1.1"])
        self._load(self.context)
        if client_ca is not None:
            try:
                self.context.load_verify_locations(client_ca)
            except (OSError, ssl.SSLError) as exc:
                raise ConfigError(f"--tls-client-ca {client_ca}: {exc}") from exc
            self.context.verify_mode = ssl.CERT_REQUIRED
        self._seen = self._state()

    def refresh(self) -> None:
        """Take a new certificate if the files have changed; one that cannot be used leaves the old one, and is logged.

        It is tried on a context of its own first: one that fits no key would spoil the one in use.
        """
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._load(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
            self._load(self.context)
        except ConfigError as exc:
            logger.warning("%s; the old certificate stays", exc.message)
        else:
            logger.info("the certificate in %s is used from now on", self._cert)

    def _load(self, context: ssl.SSLContext) -> None:
        try:
            # A key with a password would make OpenSSL ask for it on the terminal: none is what it gets.
            context.load_cert_chain(self._cert, self._key, password="")
        except (OSError, ssl.SSLError) as exc:
            files = " and ".join(str(file) for file in self._files)
            raise ConfigError(
                f"--tls-cert: {files}: {exc.strerror or exc}; expected a certificate and its private key in PEM, the "
                "key without a password"
            ) from exc

    def _state(self) -> list[tuple[int, int] | None]:
        found: list[tuple[int, int] | None] = []
        for file in self._files:
            try:
                status = file.stat()
                found.append((status.st_mtime_ns, status.st_ino))
            except OSError:  # in the middle of being replaced
                found.append(None)
        return found


def certificate(settings: SecuritySettings) -> Certificate | None:
    """Return the certificate that the settings name, if any. Raises ``ConfigError``."""
    if not settings.tls:
        return None
    if settings.tls_cert is None:
        if settings.tls_key is not None or settings.tls_client_ca is not None:
            raise ConfigError("--tls-key and --tls-client-ca need --tls-cert, the server's certificate")
        return None
    return Certificate(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
