"""What the model's process is kept from: the server's user, and the network.

That it gets no new privileges and leaves no core dump holds for every worker and is seen to by the worker itself.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from typing import TYPE_CHECKING, Any

from backline.errors import ConfigError

if TYPE_CHECKING:
    from backline.config.settings import SecuritySettings


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """A user of this machine."""

    name: str
    uid: int
    gid: int
    home: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """How a worker is started apart from the server; the default is not at all."""

    user: User | None = None
    command: tuple[str, ...] = ()
    """What runs the interpreter, put before it."""

    @property
    def popen_options(self) -> dict[str, Any]:
        """Further arguments for ``subprocess.Popen``."""
        return {} if self.user is None else {"user": self.user.uid, "group": self.user.gid, "extra_groups": []}

    @property
    def environment(self) -> dict[str, str]:
        """Variables that are different for the worker."""
        if self.user is None:
            return {}
        return {"HOME": self.user.home, "USER": self.user.name, "LOGNAME": self.user.name}

    def give(self, path: str) -> None:
        """Make a file or directory of ours the worker's own, where it is another user."""
        if self.user is not None:
            os.chown(path, self.user.uid, self.user.gid)


UNCONFINED = Confinement()


def confinement(settings: SecuritySettings) -> Confinement:
    """Return what the settings ask for. Raises ``ConfigError`` where this machine or this user cannot do it."""
    user = None if settings.worker_user is None else _user(settings.worker_user)
    return Confinement(user=user, command=() if settings.worker_network else _without_network(user))


def _user(name: str) -> User:
    try:
        import pwd
    except ImportError:
        raise ConfigError("--worker-user: this system has no users to change to") from None
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(f"--worker-user {name}: there is no such user; useradd --system makes one") from None
    if os.geteuid() not in {0, entry.pw_uid}:
        raise ConfigError(f"--worker-user {name}: only root can run the model as another user")
    if os.geteuid() == entry.pw_uid:
        raise ConfigError(
            f"--worker-user {name}: the server runs as {name} itself; name another user, or run it as root"
        )
    return User(name=name, uid=entry.pw_uid, gid=entry.pw_gid, home=entry.pw_dir)


def _without_network(user: User | None) -> tuple[str, ...]:
    unshare = shutil.which("unshare")
    if unshare is None:
        raise ConfigError("--no-worker-network: unshare is not on PATH; on Linux it comes with util-linux")
    if os.geteuid() == 0 and user is None:
        return (unshare, "--net", "--")
    # Who is not root needs a namespace of users for it, in which he stays who he is.
    return (unshare, "--user", "--map-current-user", "--net", "--")
