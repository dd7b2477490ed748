"""Starts a worker process: command, environment, channel and pipes.

Without asyncio and at once, so that ``backline serve`` can start its first worker before it imports the web framework:
the two then load side by side. ``process.py`` is the event loop's side of what is started here.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import backline_worker
from backline.errors import ConfigError
from backline.runtime.confinement import UNCONFINED, Confinement
from backline.runtime.threads import VARIABLES, bound_threads
from backline_worker import channel
from backline_worker.channel import Kind

# These would make the model's interpreter import from, or behave like, the server's environment.
_OUR_SETTINGS = "BACKLINE_"  # among them what is secret, such as keys
_NOT_THE_MODELS = ("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC")  # a model must not speak for the server
_SERVER_ONLY_VARIABLES = ("PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")

_PACKAGE = Path(backline_worker.__file__).parent
_BOOT = _PACKAGE / "_boot" / "boot.py"
_TOKEN_BYTES = 16


class Process(Protocol):
    """What there is to a process of ours: the part of ``subprocess.Popen`` that is used of it."""

    @property
    def pid(self) -> int:
        """Its id."""

    @property
    def stdout(self) -> IO[bytes] | None:
        """The pipe that it prints to."""

    @property
    def stderr(self) -> IO[bytes] | None:
        """The other one."""

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; ``None`` while it runs."""

    def wait(self) -> int:
        """Wait until it is gone; return the exit code."""


class Launched:
    """A process that has been started, and our end of its channel.

    Resource handling: who has it owns process, pipes and channel, until ``hand_over`` passes them on or ``kill`` ends
    them.
    """

    def __init__(
        self,
        popen: Process,
        *,
        channel: socket.socket | None,
        listener: _Listener | None,
        start: bytes,
        control: socket.socket | None = None,
    ) -> None:
        self.popen = popen
        self.channel = channel
        self.control = control
        """Where one that was started with ``preload`` is asked to fork a worker; it is closed by whoever takes it."""
        self.listener = listener
        """Where the worker connects to, on systems without Unix sockets; ``channel`` is ``None`` then."""
        self.unsent = start
        """What the channel has not taken yet of the first frame."""
        self._owned = True

    def send_start(self) -> None:
        """Write as much of the first frame as the channel takes at once, so that the worker can begin to load."""
        if self.channel is not None:
            # Whoever is gone already is found out by the end of its process.
            with contextlib.suppress(BlockingIOError, ConnectionError):
                self.unsent = self.unsent[self.channel.send(self.unsent) :]

    def hand_over(self) -> Launched:
        """Return it to its new owner: ``kill`` by the old one does nothing any more."""
        self._owned = False
        return self

    def kill(self) -> None:
        """Kill the process and all that it has started, and wait until it is gone; nothing once it is handed over."""
        if not self._owned:
            return
        self._owned = False
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.popen.pid, 9)
        self.close()
        self.popen.wait()

    def close(self) -> None:
        """Close our ends of pipes and channel, those of them that nobody has taken."""
        for each in (self.popen.stdout, self.popen.stderr, self.channel, self.listener, self.control):
            if each is not None:
                with contextlib.suppress(OSError):  # one that is closed already must not take the server along
                    each.close()


class _Listener:
    """Loopback TCP for systems without Unix sockets: whoever connects has to show the token first."""

    def __init__(self) -> None:
        import secrets  # late: it takes OpenSSL along, and is rarely needed here

        self.socket = socket.create_server(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.token = secrets.token_hex(_TOKEN_BYTES)

    @property
    def address(self) -> str:
        host, port = self.socket.getsockname()
        return f"tcp:{host}:{port}:{self.token}"

    def close(self) -> None:
        self.socket.close()


def launch(
    python: str,
    spec: Mapping[str, Any],
    confinement: Confinement = UNCONFINED,
    *,
    math_threads: int | None = None,
    preload: bool = False,
) -> Launched:
    """Start a worker for the model ``spec`` under the interpreter ``python``; ``"current"`` is the server's own.

    ``math_threads`` bounds the threads of its numeric libraries. With ``preload`` it becomes a process that forks
    workers (``zygote.py``). It begins to load at once. Raises ``OSError`` when the interpreter cannot be started.
    """
    if preload:
        return _launch_zygote(python, spec, confinement, math_threads)
    start = channel.encode_prefix(Kind.START, 0, {"spec": spec}, 0)
    if not hasattr(socket, "AF_UNIX"):
        listener = _Listener()
        try:
            environment = _environment(math_threads, current=python == "current")
            popen = _spawn(python, listener.address, confinement, environment)
            return Launched(popen, channel=None, listener=listener, start=start)
        except BaseException:
            listener.close()
            raise
    ours, theirs = socket.socketpair()
    try:
        ours.setblocking(False)
        environment = _environment(math_threads, current=python == "current")
        popen = _spawn(python, f"fd:{theirs.fileno()}", confinement, environment, pass_fds=(theirs.fileno(),))
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    launched = Launched(popen, channel=ours, listener=None, start=start)
    launched.send_start()
    return launched


def _launch_zygote(
    python: str, spec: Mapping[str, Any], confinement: Confinement, math_threads: int | None
) -> Launched:
    """Start a process that loads the model with one thread, and whose forks have as many as workers have."""
    environment = _environment(math_threads, current=python == "current")
    threads = {name: environment.get(name) for name in VARIABLES}
    environment.update(dict.fromkeys(VARIABLES, "1"))
    with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
        channels = socket.socketpair()
        controls = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for stack, place in ((ours, 0), (theirs, 1)):
            stack.enter_context(channels[place])
            stack.enter_context(controls[place])
        for each in (channels[0], controls[0]):
            each.setblocking(False)
        passed = (channels[1].fileno(), controls[1].fileno())
        popen = _spawn(python, f"fd:{passed[0]}", confinement, environment, pass_fds=passed)
        header = {"spec": spec, "preload": {"control": passed[1], "threads": threads}}
        start = channel.encode_prefix(Kind.START, 0, header, 0)
        ours.pop_all()
        launched = Launched(popen, channel=channels[0], listener=None, start=start, control=controls[0])
    launched.send_start()
    return launched


@contextlib.contextmanager
def launched_early(
    python: str,
    spec: Mapping[str, Any],
    confinement: Confinement = UNCONFINED,
    *,
    math_threads: int | None = None,
    preload: bool = False,
) -> Iterator[Launched | None]:
    """Start the first worker for the block; one that nobody has taken over is killed at its end.

    ``None`` where it cannot be started: the supervisor will try again, and tell.
    """
    try:
        launched = launch(python, spec, confinement, math_threads=math_threads, preload=preload)
    except OSError:
        yield None
        return
    try:
        yield launched
    finally:
        launched.kill()


def check_preload() -> None:
    """Raise ``ConfigError`` where workers cannot be forked at all."""
    if sys.platform != "linux":
        raise ConfigError("--preload: forking a process that has loaded a model is safe on Linux only; leave it out")


def _spawn(
    python: str,
    connect: str,
    confinement: Confinement,
    environment: Mapping[str, str],
    *,
    pass_fds: tuple[int, ...] = (),
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603  (the operator's interpreter, our own file)
        [*confinement.command, sys.executable if python == "current" else python, str(_BOOT), str(_PACKAGE), connect],
        bufsize=0,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**environment, **confinement.environment},
        pass_fds=pass_fds,
        # Its own session: Ctrl-C reaches the server alone, and a kill reaches the model's own child processes too.
        start_new_session=True,
        **confinement.popen_options,
    )


def _environment(math_threads: int | None, *, current: bool) -> dict[str, str]:
    # The one place where the process environment is handed on: what is no setting of ours is the model's.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OUR_SETTINGS)}
    for name in _NOT_THE_MODELS if current else (*_NOT_THE_MODELS, *_SERVER_ONLY_VARIABLES):
        environment.pop(name, None)
    if math_threads is not None:
        bound_threads(environment, math_threads)
    return environment
