"""Tells the service manager how the server is, by systemd's notify protocol (sd_notify(3)).

Whoever starts the server may name a Unix datagram socket in ``NOTIFY_SOCKET``; each message is a datagram of lines.
Where nobody does, all of this is nothing.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterator

from backline.config.outside import notify_socket, watchdog_seconds

logger = logging.getLogger("backline.api")


class ServiceManager:
    """The way to the service manager, or to nobody. Every method returns at once and raises nothing.

    ``beat`` is to be called again and again from the event loop: an event loop that stands still is what the watchdog
    is to find. A side thread would go on telling that all is well.
    """

    def __init__(
        self, link: socket.socket | None = None, address: str = "", watchdog_seconds: float | None = None
    ) -> None:
        self._link = link
        self._address = address
        self._watchdog_seconds = watchdog_seconds
        self._next_beat = 0.0
        self.told_ready = link is None  # nobody has to be told

    def ready(self, status: str) -> None:
        """Tell that the server answers as well as it is going to; once."""
        if not self.told_ready:
            self.told_ready = self._send(f"READY=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Tell that the server stops, and finishes what it has accepted."""
        self._send("STOPPING=1\nSTATUS=finishing what was accepted")

    def beat(self) -> None:
        """Tell that the event loop turns, several times in what the watchdog allows."""
        if self._watchdog_seconds is not None and (now := time.monotonic()) >= self._next_beat:
            self._next_beat = now + self._watchdog_seconds / 3
            self._send("WATCHDOG=1")

    def _send(self, message: str) -> bool:
        if self._link is None:
            return False
        try:
            self._link.sendto(message.encode(), self._address)
        except BlockingIOError:  # its queue is full: beats and READY are tried again
            return False
        except OSError as error:
            shown = self._address.replace("\0", "@")
            logger.warning("NOTIFY_SOCKET=%s cannot be reached: %s; the service manager is told nothing", shown, error)
            self._link, self.told_ready = None, True
            return False
        return True


@contextlib.contextmanager
def notifying() -> Iterator[ServiceManager]:
    """Open the way to the service manager for the block, where there is one."""
    address = notify_socket()
    if address is None or not hasattr(socket, "AF_UNIX"):
        yield ServiceManager()
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.setblocking(False)
        yield ServiceManager(link, address, watchdog_seconds())
