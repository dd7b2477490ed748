"""The listening socket; imports no web framework, so that a port that is taken is told at once."""

from __future__ import annotations

import socket

from backline.errors import ConfigError

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; the caller closes it. Raises ``ConfigError`` where that is not possible.

    Clients may connect from here on: they wait until the server accepts them.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as exc:
        raise ConfigError(
            f"--address {host}:{port}: cannot listen there: {exc.strerror}. "
            "Choose another port, or 0 for any free one; lsof -i shows who has it"
        ) from exc
