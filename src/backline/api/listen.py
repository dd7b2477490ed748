"""The listening socket; imports no web framework, so that a port that is taken is told at once."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from backline.config.kinds import parse_address
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


@contextlib.contextmanager
def listen_admin(address: str) -> Iterator[socket.socket]:
    """Listen at ``unix:PATH``, for the user of the server alone, or at ``HOST:PORT``; for the block.

    A socket file that a dead server has left is replaced. Raises ``ConfigError`` where it is not possible.
    """
    scheme, _, path = address.partition(":")
    try:
        if scheme == "unix":
            with _unix_listener(Path(path)) as listener:
                yield listener
            return
        host, port = parse_address(address)
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            yield listener
    except OSError as exc:
        raise ConfigError(f"--admin-address {address}: cannot listen there: {exc.strerror or exc}") from exc


@contextlib.contextmanager
def _unix_listener(path: Path) -> Iterator[socket.socket]:
    _remove_left_over(path)
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        try:
            listener.listen(BACKLOG)
            yield listener
        finally:
            path.unlink(missing_ok=True)


def _remove_left_over(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise ConfigError(f"--admin-address unix:{path}: there is a file, which is no socket; name another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as other:
        try:
            other.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
        else:
            raise ConfigError(f"--admin-address unix:{path}: another server listens there")
