"""The server's side of ``--preload``: a process that has loaded the model, and forks workers when asked.

``backline_worker/zygote.py`` is the other side and has the picture. There is one of them for each model that workers
are started for: the present one, and during a reload that of the model to come, too. When it dies the workers go on,
and it is loaded anew, so that the next one is forked in no time again.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import socket
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, cast

from backline.errors import ConfigError, ModelLoadFailed
from backline.observe.worker_log import WorkerLog
from backline.runtime.launch import Launched, check_preload, launch
from backline.runtime.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

    from backline.observe.observer import Observer
    from backline.runtime.worker import Ready, WorkerOwner, WorkerPlan

logger = logging.getLogger("backline.runtime")

_FORK_TIMEOUT = 30.0  # seconds from asking for a worker until its pid is known
_STABLE_TIME = 10.0  # seconds that it has to live to be loaded anew at once when it dies
_STOP_GRACE = 5.0
_REPLY_BYTES = 4096
_PR_SET_CHILD_SUBREAPER = 36


class Host(Protocol):
    """What a zygote needs of the supervisor, which owns it."""

    async def enter(self, zygote: Zygote, *, pid: Callable[[], int | None]) -> int:
        """Wait until there is memory to load in; return the place taken. Raises ``ModelLoadFailed``."""

    async def load(self, worker: Worker, place: int | None) -> tuple[asyncio.Task[None], Ready]:
        """Start the process and wait until it has loaded."""


class Zygote:
    """Keeps one process of a plan loaded that workers are forked from. ``run`` is its life.

    ``take_launched`` gives a process of the plan that was started already, once.
    """

    def __init__(
        self,
        plan: WorkerPlan,
        host: Host,
        observer: Observer,
        take_launched: Callable[[], Launched | None],
        *,
        log_lines_per_second: int,
    ) -> None:
        self.plan = plan
        self.worker: Worker | None = None
        """The process, while there is one."""
        self.loads = 0
        self.load_seconds = 0.0
        self.forks = 0
        self._host = host
        self._owner = _Owner(observer)
        self._log_rate = log_lines_per_second
        self._take_launched = take_launched
        self._control: socket.socket | None = None
        self._life: asyncio.Task[None] | None = None
        self._outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wanted = asyncio.Event()
        self._over = asyncio.Event()
        self._turn = asyncio.Lock()
        self._workers = 0  # that were forked and live
        self._deserted = asyncio.Event()
        self._deserted.set()

    # --- life

    @property
    def is_over(self) -> bool:
        """Whether no further worker will be forked."""
        return self._over.is_set()

    def end(self) -> None:
        """Fork no more workers, and end when the last of them is gone."""
        self._over.set()
        self._wanted.set()

    async def run(self) -> None:
        """Load, and load again when the process dies, until ``end``. Cancelling kills it."""
        while not self.is_over:
            try:
                await self._load()
            except ModelLoadFailed as exc:
                self._outcome.set_exception(exc)
                self._outcome.exception()  # retrieved: whoever waits sees it all the same
                await self._wait_wanted()
            else:
                self._outcome.set_result(None)
                await self._watch()
            self._begin_anew()
        self._outcome.set_exception(ModelLoadFailed("this model is not wanted any more"))
        self._outcome.exception()

    async def _load(self) -> None:
        loaded: Worker | None = None

        def pid() -> int | None:
            return None if loaded is None else loaded.pid

        place = await self._host.enter(self, pid=pid)
        plan = self.plan
        try:
            launched = self._take_launched() or launch(
                plan.python, plan.spec, plan.confinement, math_threads=plan.math_threads, preload=True
            )
        except OSError as exc:
            raise ModelLoadFailed(f"cannot start {plan.python}: {exc}") from exc
        self._control, launched.control = launched.control, None
        owner = cast("WorkerOwner", self._owner)
        loaded = self.worker = Worker(0, plan, owner, self._make_log, launched=launched, is_zygote=True)
        try:
            self._life, ready = await self._host.load(loaded, place)
        except BaseException:
            self._close()
            raise
        self.loads += 1
        self.load_seconds = ready.load_seconds
        logger.info(
            "process %s has loaded the model in %.1f s; workers are forked from it", loaded.pid, ready.load_seconds
        )

    async def _watch(self) -> None:
        """Wait until the process dies, or until it is to end and can."""
        worker, life = self.worker, self._life
        assert worker is not None
        assert life is not None
        since = time.monotonic()
        over = asyncio.ensure_future(self._over.wait())  # noqa: TID251  (cancelled below)
        try:
            await asyncio.wait({life, over}, return_when=asyncio.FIRST_COMPLETED)
            if life.done():
                self._close()
                self._begin_anew()
                if not self.is_over:
                    await self._tell_death(worker, soon=time.monotonic() - since < _STABLE_TIME)
                return
            # What it has made while loading, such as a temporary folder, its workers may still need.
            await self._deserted.wait()
            await worker.stop(_STOP_GRACE)
            await asyncio.wait({life})
        finally:
            over.cancel()
            self._close()

    async def _tell_death(self, worker: Worker, *, soon: bool) -> None:
        logger.warning(
            "process %s, from which workers are forked, is gone: %s; the workers go on, and %s",
            worker.pid,
            worker.death_reason,
            "it is loaded anew when one is needed" if soon else "it is loaded anew",
        )
        if soon:
            await self._wait_wanted()

    def _make_log(self, worker: Worker) -> WorkerLog:
        return WorkerLog("zygote", lines_per_second=self._log_rate, ids_of=worker.recent.get)

    async def _wait_wanted(self) -> None:
        """Wait until a worker is to be forked, or no more are: which may have been said a moment ago."""
        self._wanted.clear()
        if not self.is_over:
            await self._wanted.wait()

    def _begin_anew(self) -> None:
        """Let those who ask from now on wait for the next load."""
        if self._outcome.done():
            self._outcome = asyncio.get_running_loop().create_future()

    def _close(self) -> None:
        self.worker = None
        if self._control is not None:
            self._control.close()
            self._control = None

    # --- for the workers

    async def wait_ready(self) -> None:
        """Wait until workers can be forked. Raises ``ModelLoadFailed`` where the model does not load."""
        if self._outcome.done() and self._outcome.exception() is not None and not self.is_over:
            self._begin_anew()
        self._wanted.set()
        await asyncio.shield(self._outcome)

    def add(self, life: asyncio.Task[None]) -> None:
        """Count a worker that is forked from here until its ``life`` is over."""
        self._workers += 1
        self._deserted.clear()
        life.add_done_callback(self._remove)

    def _remove(self, life: asyncio.Task[None]) -> None:
        del life
        self._workers -= 1
        if not self._workers:
            self._deserted.set()

    async def fork(self) -> Launched:
        """Fork a worker. Raises ``OSError``; where the process is at fault it is dead then, and will be loaded anew."""
        asking = asyncio.ensure_future(self._fork())  # noqa: TID251  (ends by itself, within a bounded time)
        try:
            return await asyncio.shield(asking)
        except asyncio.CancelledError:
            asking.add_done_callback(_discard)
            raise

    async def _fork(self) -> Launched:
        async with self._turn:
            worker, control = self.worker, self._control
            if worker is None or control is None:
                raise OSError("the process that it is to be forked from is gone")
            with contextlib.ExitStack() as ours, contextlib.ExitStack() as theirs:
                channel, their_channel = socket.socketpair()
                ours.enter_context(channel)
                theirs.enter_context(their_channel)
                channel.setblocking(False)
                stdout, their_stdout = _pipe(ours, theirs)
                stderr, their_stderr = _pipe(ours, theirs)
                try:
                    socket.send_fds(control, [b"fork"], [their_channel.fileno(), their_stdout, their_stderr])
                    theirs.close()
                    async with asyncio.timeout(_FORK_TIMEOUT):
                        reply = await asyncio.get_running_loop().sock_recv(control, _REPLY_BYTES)
                except (OSError, TimeoutError) as exc:
                    reply, problem = b"", str(exc) or f"no answer within {_FORK_TIMEOUT:g} s"
                else:
                    problem = "it has ended"
                if not reply:
                    await self._give_up(worker, problem)
                    raise OSError(f"the process that it is to be forked from is gone: {problem}")
                if not reply.isdigit():
                    raise OSError(reply.decode("utf-8", "replace").removeprefix("error: "))
                ours.pop_all()
                self.forks += 1
                return Launched(Forked(int(reply), stdout, stderr), channel=channel, listener=None, start=b"")

    async def _give_up(self, worker: Worker, problem: str) -> None:
        worker.kill(f"it does not fork: {problem}", cause="fork", innocent=True)
        if self._life is not None:
            await asyncio.wait({self._life}, timeout=_STOP_GRACE)

    def describe(self) -> dict[str, Any]:
        """Return what there is to know of it, for ``/stats/``."""
        worker = self.worker
        return {
            "pid": None if worker is None else worker.pid,
            "state": "dead" if worker is None else worker.state.value,
            "generation": self.plan.generation,
            "loads": self.loads,
            "forks": self.forks,
            "private_bytes": 0 if worker is None else worker.private_bytes,
        }


class _Owner:
    """Told by the process, which has no calls, of what was counted while it loaded."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def worker_reported(self, worker: Worker, report: dict[str, Any]) -> None:
        """See ``WorkerOwner``."""
        self._observer.worker_reported(worker.number, report, current=False)


class Forked:
    """A worker that a zygote has forked, and that has become our child: what ``subprocess.Popen`` is to others."""

    def __init__(self, pid: int, stdout: IO[bytes], stderr: IO[bytes]) -> None:
        self.pid = pid
        self.stdout: IO[bytes] | None = stdout
        self.stderr: IO[bytes] | None = stderr
        self._code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal; ``None`` while it runs."""
        return self._wait(os.WNOHANG)

    def wait(self) -> int:
        """Wait until it is gone; return the exit code."""
        code = self._wait(0)
        assert code is not None
        return code

    def _wait(self, options: int) -> int | None:
        if self._code is None:
            try:
                pid, status = os.waitpid(self.pid, options)
            except ChildProcessError:  # somebody in this process waits for every child that there is
                self._code = 0
            else:
                if pid:
                    self._code = os.waitstatus_to_exitcode(status)
        return self._code


def _pipe(ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> tuple[IO[bytes], int]:
    reading, writing = os.pipe()
    theirs.callback(os.close, writing)
    return ours.enter_context(open(reading, "rb", buffering=0)), writing  # noqa: PTH123  (a descriptor)


def _discard(asking: asyncio.Future[Launched]) -> None:
    """End a worker that nobody waits for any more."""
    if not asking.cancelled() and asking.exception() is None:
        asking.result().kill()


# --- the server as the parent of what others have forked


def become_parent() -> None:
    """Ask the kernel to make this process the parent of its descendants whose own parent has ended.

    Raises ``ConfigError`` where it does not.
    """
    check_preload()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        reason = os.strerror(ctypes.get_errno())
        raise ConfigError(f"--preload: the kernel does not let the server adopt the workers that are forked: {reason}")


def bury_orphans() -> None:
    """Wait for those of our children that have ended and that nobody here has started: what models have left behind.

    They are told by their session, which is that of a worker; a child of our own has our session, or leads one.
    """
    session = os.getsid(0)
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, _read(task / "children").split()):
            fields = _read(Path(f"/proc/{pid}/stat")).rpartition(b") ")[2].split()
            if fields[:1] == [b"Z"] and int(fields[3]) not in {session, pid}:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
