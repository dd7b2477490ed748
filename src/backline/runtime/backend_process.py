"""A backend that the server starts by itself: watched while it loads, restarted when it dies, given up at a limit.

::

    LOADING ──ready──▶ READY ──process gone──▶ RECOVERING ──ready──▶ READY
       └──────── more failed starts in a row than allowed ──┴──▶ FAILED

The process leads a group of its own, so that whatever it has started ends with it. Whether it is ready is asked over
HTTP by somebody else (``ReadinessWatch``): that its process runs says nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backline.config.sources import PORT
from backline.errors import BackendFailed, BackendLoading, ConfigError
from backline.observe.worker_log import WorkerLog, WorkerPipe
from backline.runtime import die_with_parent
from backline.runtime.launch import Launched
from backline.runtime.process import WorkerProcess

if TYPE_CHECKING:
    from backline.config.settings import BackendSettings

logger = logging.getLogger("backline.runtime")

_MAX_BACKOFF = 30.0  # seconds
_STABLE_TIME = 10.0  # seconds that a ready backend has to live for its failures to be forgotten
_FIRST_REPORTS = (5.0, 15.0, 30.0)  # seconds after the start at which it is told that it still loads; then each minute
_REPORT_EVERY = 60.0
_LAST_OUTPUT_TIMEOUT = 1.0
_REAP_TIMEOUT = 5.0
_KNOCK_TIMEOUT = 1.0
_SHOWN_LINES = 5


class BackendState(enum.Enum):
    """Where the backend is; see the picture above."""

    LOADING = "loading"
    READY = "ready"
    RECOVERING = "recovering"
    FAILED = "failed"


class ReadinessWatch(Protocol):
    """Who asks the backend whether it is ready."""

    async def wait_ready(self) -> None:
        """Return when the backend, as it is from now on, has said that it is ready."""

    def note_gone(self, reason: str) -> None:
        """The process is gone: whatever was known of its readiness is void."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendPlan:
    """What to start and where it will listen."""

    command: tuple[str, ...]
    host: str
    port: int

    @staticmethod
    def make(settings: BackendSettings, *, host: str, port: int) -> BackendPlan:
        """Return the plan with the port filled in."""
        assert settings.command
        command = tuple(word.replace(PORT, str(port)) for word in settings.command)
        return BackendPlan(command=command, host=host, port=port)


def check_command(settings: BackendSettings) -> None:
    """Raise ``ConfigError`` where there is no such program."""
    if settings.command is not None and shutil.which(settings.command[0]) is None:
        raise ConfigError(
            f"--backend-command: there is no program {settings.command[0]}, or it cannot be run; install it, or give "
            f"its full path (no shell looks at the command)"
        )


class _Output(WorkerLog):
    """What the backend writes. Of a line that overwrites itself, as progress bars do, what a terminal would show."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._pipes: list[WorkerPipe] = []

    def reader(self) -> WorkerPipe:
        """See ``WorkerLog``."""
        self._pipes.append(super().reader())
        return self._pipes[-1]

    def lines(self, lines: list[bytes], channel_id: int) -> None:
        """See ``WorkerLog``."""
        super().lines([_shown(line) for line in lines], channel_id)

    def last_lines(self) -> list[str]:
        """Return the last few lines, and those that are not at their end yet."""
        unfinished = [_shown(pipe.unfinished).decode("utf-8", "backslashreplace") for pipe in self._pipes]
        return [line for line in [*self.tail, *unfinished] if line.strip()][-_SHOWN_LINES:]


def _shown(line: bytes) -> bytes:
    return line.rstrip(b"\r").rpartition(b"\r")[2]


class BackendProcess:
    """Owns the backend's process, one after another. ``run`` is its life; made by ``running_backend_process``."""

    def __init__(
        self, plan: BackendPlan, settings: BackendSettings, watch: ReadinessWatch, *, lines_per_second: int
    ) -> None:
        self._plan = plan
        self._settings = settings
        self._watch = watch
        self._rate = lines_per_second
        self._loop = asyncio.get_running_loop()
        self._process: WorkerProcess | None = None
        self._log = self._new_log()
        self._failures = 0
        self._was_ready = False
        self._started = self._loop.time()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self.state = BackendState.LOADING
        self.failure: BackendFailed | None = None
        self.restarts = 0
        self.load_seconds = 0.0
        self.first_outcome: asyncio.Future[BackendState] = self._loop.create_future()

    @property
    def pid(self) -> int | None:
        """The process that runs now."""
        return None if self._process is None else self._process.pid

    @property
    def last_lines(self) -> list[str]:
        """What it wrote last."""
        return self._log.last_lines()

    def check_accepting(self) -> None:
        """Raise ``BackendLoading`` or ``BackendFailed`` unless the backend is up."""
        if self.state is BackendState.READY:
            return
        if self.failure is not None:
            raise self.failure.with_traceback(None)  # or it would keep the frames of every request that it refused
        text = "the backend died and is being started again"
        if self.state is BackendState.LOADING:
            text = f"the backend is still loading, for {self._loop.time() - self._started:.0f} s now"
        raise BackendLoading(f"{text}{_tail(self.last_lines)}", retry_after=1)

    # --- life

    async def run(self) -> None:
        """Start the backend, over and over, until ``stop`` or until it is given up; cancelling kills it."""
        try:
            while not self._stopping.is_set() and self.failure is None:
                await self._run_once()
                if self.failure is None:
                    await self._back_off()
        except Exception:  # a fault of ours must not take the server along
            logger.exception("fault in the server's own code: the backend cannot be supervised")
            self._fail(BackendFailed("a fault in the server's own code; its log has more"))
        finally:
            self._ended.set()

    async def stop(self) -> None:
        """Terminate it, kill it after ``--backend-stop-timeout``, and return when it is gone."""
        self._stopping.set()
        process = self._process
        if process is not None and not process.exited.done():
            logger.info("stopping the backend (pid %s)", process.pid)
            _signal(process, signal.SIGTERM)
            await asyncio.wait([process.exited], timeout=self._settings.stop_timeout)
            if not process.exited.done():
                logger.warning(
                    "the backend did not stop within %g s (--backend-stop-timeout) and is killed",
                    self._settings.stop_timeout,
                )
                _signal(process, signal.SIGKILL)
        await self._ended.wait()

    def kill(self) -> None:
        """Kill it at once: whoever stops the server will not wait. May be called from a signal handler."""
        self._stopping.set()
        if self._process is not None:
            _signal(self._process, signal.SIGKILL)

    async def _run_once(self) -> None:
        """Run one process from its start to its end, and judge that."""
        if await self._somebody_listens():
            self._count_failure(
                f"port {self._plan.port} is in use: something else answers at {self._plan.host}:{self._plan.port}; "
                f"stop it, or choose another port"
            )
            return
        if self._stopping.is_set():
            return
        self._log = self._new_log()
        self._started = self._loop.time()
        try:
            process = self._process = self._start()
        except OSError as exc:
            self._count_failure(f"the backend cannot be started: {exc}")
            return
        reason: str | None = None
        try:
            await process.read_output(self._log.reader(), self._log.reader())
            reason = await self._load(process)
            if reason is None:
                self._note_ready()
                await asyncio.shield(process.exited)
        finally:
            # Also on cancellation; and whatever the backend started must not outlive it.
            _signal(process, signal.SIGKILL)
            await asyncio.wait([process.exited], timeout=_REAP_TIMEOUT)
            await process.end_output(_LAST_OUTPUT_TIMEOUT)
            self._log.close()
            process.close()
            self._process = None
            self._watch.note_gone("its process is gone")
        self._judge(process, reason)

    async def _load(self, process: WorkerProcess) -> str | None:
        """Wait until the backend is ready; return why it is not going to be."""
        waiting = self._watch.wait_ready()
        ready: asyncio.Future[Any] = asyncio.ensure_future(waiting)  # noqa: TID251  (cancelled below)
        limit = self._settings.start_timeout
        reports = iter(_FIRST_REPORTS)
        report = next(reports)
        try:
            while True:
                passed = self._loop.time() - self._started
                pause = max(0.0, min(report, limit) - passed)
                await asyncio.wait({process.exited, ready}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                if process.exited.done():
                    return f"it ended before it was ready: {_describe_exit(process.exited.result())}"
                if ready.done():
                    ready.result()
                    return None
                passed = self._loop.time() - self._started
                if passed >= limit:
                    return (
                        f"it was not ready within {limit:g} s; raise --backend-start-timeout if it needs longer, or "
                        f"look whether --backend-ready-path is the right one"
                    )
                if passed >= report:
                    report = next(reports, report + _REPORT_EVERY)
                    self._report_loading(passed)
        finally:
            ready.cancel()

    def _report_loading(self, seconds: float) -> None:
        if self._stopping.is_set():
            return
        lines = self.last_lines
        last = f": {lines[-1]}" if lines else "; it has written nothing"
        logger.info("backend: still loading after %.0f s%s", seconds, last)

    def _start(self) -> WorkerProcess:
        command = list(self._plan.command)
        logger.info("starting the backend: %s", shlex.join(command))
        if sys.platform == "linux":
            # -I and -S: nothing of the environment may get into the few lines before exec.
            command = [sys.executable, "-I", "-S", str(Path(die_with_parent.__file__)), str(os.getpid()), *command]
        popen = subprocess.Popen(  # noqa: S603  (the operator's command, and no shell)
            command,
            bufsize=0,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Its own session: Ctrl-C reaches the server alone, which stops the backend once nobody needs it any more.
            start_new_session=True,
        )
        return WorkerProcess(Launched(popen, channel=None, listener=None, start=b""))

    async def _somebody_listens(self) -> bool:
        """Whether the place is taken: another server there would be taken for the backend, and be called ready."""
        try:
            async with asyncio.timeout(_KNOCK_TIMEOUT):
                _, writer = await asyncio.open_connection(self._plan.host, self._plan.port)
        except (OSError, TimeoutError):
            return False
        writer.transport.abort()
        return True

    def _note_ready(self) -> None:
        self.load_seconds = self._loop.time() - self._started
        self._was_ready = True
        self.state = BackendState.READY
        logger.info("the backend (pid %s) is ready after %.1f s", self.pid, self.load_seconds)
        if not self.first_outcome.done():
            self.first_outcome.set_result(BackendState.READY)

    def _judge(self, process: WorkerProcess, reason: str | None) -> None:
        """Count a process that has ended: ``reason`` says why it never got ready."""
        if self._stopping.is_set():
            return
        self.restarts += 1
        if reason is None:
            died = _describe_exit(process.returncode)
            lived = self._loop.time() - self._started - self.load_seconds
            logger.warning("the backend (pid %s) is gone: %s", process.pid, died)
            if lived > _STABLE_TIME:
                self._failures = 0
                self.state = BackendState.RECOVERING
                return
            reason = f"it dies soon after it is ready: {died}"
        self._count_failure(f"the backend does not stay up: {reason}{_tail(self._log.tail)}")

    def _count_failure(self, message: str) -> None:
        if self._stopping.is_set():
            return
        self._failures += 1
        if self._failures > self._settings.max_restarts:
            self._fail(BackendFailed(message))
            return
        self.state = BackendState.RECOVERING if self._was_ready else BackendState.LOADING
        logger.warning("backend, failure %d in a row: %s", self._failures, message)

    def _fail(self, failure: BackendFailed) -> None:
        self.failure = failure
        self.state = BackendState.FAILED
        if self._was_ready:
            logger.error("the backend is given up: %s", failure.message)
        if not self.first_outcome.done():
            self.first_outcome.set_result(BackendState.FAILED)

    async def _back_off(self) -> None:
        # The first retry is immediate, as with workers.
        delay = 0.0 if self._failures <= 1 else self._settings.restart_backoff * 2 ** (self._failures - 2)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(delay, _MAX_BACKOFF)):
                await self._stopping.wait()

    def _new_log(self) -> _Output:
        return _Output("backend", lines_per_second=self._rate, ids_of=lambda _: None)

    def describe(self) -> dict[str, Any]:
        """Return what there is to know, for ``/info/`` and ``/stats/``."""
        return {
            "state": self.state.value,
            "pid": self.pid,
            "restarts": self.restarts,
            "failure": None if self.failure is None else self.failure.message,
            "lastLines": self.last_lines,
        }


@contextlib.asynccontextmanager
async def running_backend_process(
    plan: BackendPlan, settings: BackendSettings, watch: ReadinessWatch, *, lines_per_second: int
) -> AsyncIterator[BackendProcess]:
    """Start the backend and return at once, before it is ready; stop it on leaving, kill it on cancellation."""
    backend = BackendProcess(plan, settings, watch, lines_per_second=lines_per_second)
    try:
        async with asyncio.TaskGroup() as group:
            life = group.create_task(backend.run())
            try:
                yield backend
            except asyncio.CancelledError:
                life.cancel()
                raise
            await backend.stop()
    except BaseExceptionGroup as exceptions:
        # What the caller's block raises should reach the caller as it was, not wrapped by our task group.
        if len(exceptions.exceptions) == 1:
            raise exceptions.exceptions[0] from None
        raise


def _signal(process: WorkerProcess, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def _describe_exit(code: int | None) -> str:
    if code is None:
        return "it cannot be killed"
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def _tail(lines: Any) -> str:
    return "\nLast output of the backend:\n" + "\n".join(f"  {line}" for line in lines) if lines else ""
