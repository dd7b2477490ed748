"""Who may ask: keys that callers must show, compared without telling by time how much of one was right.

Only digests are kept. A key is looked up by its digest, so nothing that takes more or less time depends on the key.
"""

from __future__ import annotations

import hashlib
import logging
import re
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

from backline.api.endpoint import OTHER_ROUTE
from backline.api.error_table import render_error
from backline.errors import BacklineError, ConfigError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from backline.api.error_table import Family
    from backline.observe.observer import Observer

logger = logging.getLogger("backline.api")

_LEAST_CHARACTERS = 16
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_OPENAI_PATHS = ("/chat/completions", "/models", "/v1/")


class Unauthorized(BacklineError):
    """No key, or none that is known."""

    code = "unauthorized"


class KeyFile:
    """The keys in a file, read again whenever it changes.

    One key a line, ``NAME KEY`` or ``KEY`` alone; a key of at least 16 characters, or ``sha256:`` and its digest in
    hexadecimal. Empty lines and lines that begin with ``#`` do not count. Raises ``ConfigError``.
    """

    def __init__(self, path: Path, flag: str = "--api-keys-file") -> None:
        self._path = path
        self._flag = flag
        self._seen = self._state()
        self._names = self._read()

    def name_of(self, key: bytes) -> str | None:
        """Return the name of this key; ``None`` if it is unknown."""
        return self._names.get(hashlib.sha256(key).digest())

    def refresh(self) -> None:
        """Read the file again if it has changed; what cannot be read leaves the keys as they are, and is logged."""
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        try:
            self._names = self._read()
        except ConfigError as exc:
            logger.warning("%s; the keys stay as they were", exc.message)
        else:
            logger.info("%d keys read again from %s", len(self._names), self._path)

    def _state(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> dict[bytes, str]:
        try:
            lines = self._path.read_text().splitlines()
            mode = self._path.stat().st_mode
        except (OSError, UnicodeDecodeError) as exc:
            raise self._problem(str(exc)) from exc
        names: dict[bytes, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.split()
            if not words or words[0].startswith("#"):
                continue
            if len(words) > 2:
                raise self._problem(f"line {number}: expected NAME KEY, or KEY alone")
            name, key = (f"key {number}", words[0]) if len(words) == 1 else (words[0], words[1])
            if given := _DIGEST.fullmatch(key):
                names[bytes.fromhex(given[1])] = name
            elif len(key) < _LEAST_CHARACTERS:
                raise self._problem(
                    f"line {number}: a key needs {_LEAST_CHARACTERS} characters or more; openssl rand -hex 24 makes one"
                )
            else:
                names[hashlib.sha256(key.encode()).digest()] = name
        if not names:
            raise self._problem("there is no key in it, so nobody could ask anything")
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            logger.warning("%s can be read or written by others than its owner; chmod 600 mends that", self._path)
        return names

    def _problem(self, what: str) -> ConfigError:
        return ConfigError(f"{self._flag} {self._path}: {what}")


class Access:
    """Lets requests through that show a key, as ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

    ``open_paths`` need none. The header with the key goes no further: neither to the model nor to a backend. Who is
    refused is told to ``observer``, as no endpoint sees it.
    """

    def __init__(
        self, app: ASGIApp, keys: KeyFile, open_paths: frozenset[str], prefix: str, observer: Observer
    ) -> None:
        self._app = app
        self._observer = observer
        self._keys = keys
        self._open = open_paths
        self._openai = tuple(prefix + path for path in _OPENAI_PATHS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        if scope["type"] == "lifespan" or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        shown = None
        for header in scope["headers"]:
            key = _key_in(header)
            if key is not None and self._keys.name_of(key) is not None:
                shown = header
                break
        if shown is None:
            await self._refuse(scope, receive, send)
            return
        headers = [header for header in scope["headers"] if header is not shown]
        await self._app({**scope, "headers": headers}, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.perf_counter()
        self._observer.request_begun()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: a 403
            self._observer.socket_ended(OTHER_ROUTE, 403)
            return
        error = Unauthorized("show a key of this server: Authorization: Bearer KEY, or X-API-Key: KEY")
        family: Family = "openai" if scope["path"].startswith(self._openai) else "native"
        response = render_error(error, family=family, request_id="none", show_stacktrace=False)
        length = (b"content-length", b"%d" % len(response.body))
        headers = [*response.headers, length, (b"www-authenticate", b'Bearer realm="backline"')]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})
        self._observer.error_answered(OTHER_ROUTE, error, response.status, "none")
        self._observer.request_ended(OTHER_ROUTE, scope["method"], response.status, time.perf_counter() - begun)


def _key_in(header: tuple[bytes, bytes]) -> bytes | None:
    name, value = header
    if name == b"x-api-key":
        return value.strip()
    if name == b"authorization" and value[:7].lower() == b"bearer ":
        return value[7:].strip()
    return None
