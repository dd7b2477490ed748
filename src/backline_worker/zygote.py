"""A process that has loaded the model and forks workers: ``--preload``.

::

    server ──START──▶ zygote: loads the model, looks whether it can be forked, tries one fork, says READY
       │                 │
       ├──"fork", three descriptors──▶ fork ──▶ middle ──▶ fork ──▶ worker: predicts once, says READY, serves
       │                 │                        │
       ◀──its pid────────┘                        └── ends at once, so the worker becomes the server's own child

The worker's parent is to be the server: it waits for it, learns how it ended, and takes it along when it dies, whatever
has become of the zygote. The server has asked the kernel for that (it is a subreaper).

The zygote itself never predicts. A first prediction starts the threads of numeric libraries, which no fork survives; so
it is made in a forked process, on trial, and the zygote then imports what that has imported.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
import weakref
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from . import forkable
from .errors import ModelLoadError, ReportedError
from .parent import die_with_parent

_HANG = 30.0  # seconds without any work done after which the trial is taken to hang
_PARENT_TIMEOUT = 10.0  # seconds for the middle process to be gone
_DESCRIPTORS = 3  # of a new worker: channel, stdout, stderr


class Zygote:
    """Forks workers; owns the control socket, on which the server asks for them."""

    def __init__(self, settings: Mapping[str, Any], ours: Callable[[], Sequence[int]], folder: str) -> None:
        """``settings`` are those of START. ``ours`` returns the descriptors of this process that are the worker's."""
        self._control = socket.socket(fileno=settings["control"])
        self._control.set_inheritable(False)
        os.register_at_fork(after_in_child=self._control.close)
        self._threads: Dict[str, Optional[str]] = dict(settings["threads"])
        self._ours = ours
        self._folder = folder
        self._server = os.getppid()

    def fileno(self) -> int:
        """Return the descriptor to wait at."""
        return self._control.fileno()

    # --- before the first fork

    def prepare(self, first_prediction: Callable[[], object]) -> None:
        """Find out that workers can be forked, and import what they will need; raises ``ModelLoadError``.

        ``first_prediction`` is called in a process of its own.
        """
        self._check("")
        modules = self._try_out(first_prediction)
        for name in modules:
            if name not in sys.modules:
                # Whatever a module does not like about being imported now, a worker will hear of again.
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
        if modules:
            self._check(" once what its first prediction imports is imported")
        # What is garbage is freed now: a search in the workers would write to every page that they share.
        gc.collect()
        gc.freeze()
        with contextlib.suppress(OSError, AttributeError):  # glibc has it
            ctypes.CDLL(None).malloc_trim(0)

    def _check(self, when: str) -> None:
        found = forkable.obstacles(self._folder, [*self._ours(), self.fileno()])
        if found:
            raise ModelLoadError(
                "--preload is not possible with this model, as a process that has loaded it{} cannot be forked safely. "
                "It has:\n{}\nMake such things when they are first needed rather than while the model is loaded, or "
                "serve it without --preload".format(when, "\n".join("  - {}".format(each) for each in found))
            )

    def _try_out(self, first_prediction: Callable[[], object]) -> List[str]:
        """Predict in a forked process; return which modules that has imported, in their order."""
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            code = 1
            try:
                os.close(reading)
                die_with_parent()
                before = set(sys.modules)
                self._renew()
                result: Dict[str, Any] = {}
                try:
                    first_prediction()
                except ReportedError as exc:
                    result["error"] = exc.to_record()
                result["modules"] = [name for name in list(sys.modules) if name not in before]
                with os.fdopen(writing, "w") as pipe:
                    json.dump(result, pipe)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                _flush()
                os._exit(code)
        os.close(writing)
        try:
            text = self._await_trial(pid, reading)
        finally:
            os.close(reading)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            status = _reap(pid)
        if not text:
            raise ModelLoadError(
                "--preload is not possible with this model: a forked copy of the process that has loaded it {} in its "
                "first prediction. Serve it without --preload; the log may say more".format(_describe_end(status))
            )
        found = json.loads(text.decode())
        if "error" in found:
            raise ModelLoadError(found["error"]["message"], traceback=found["error"]["traceback"])
        modules: List[str] = found["modules"]
        return modules

    def _await_trial(self, pid: int, reading: int) -> bytes:
        """Return what the trial has to say; nothing where it has died. Raises ``ModelLoadError`` where it hangs."""
        pieces: List[bytes] = []
        poll = select.poll()
        poll.register(reading, select.POLLIN)
        worked, since = -1, time.monotonic()
        while True:
            if poll.poll(1000):
                piece = os.read(reading, 1 << 16)
                if not piece:
                    return b"".join(pieces)
                pieces.append(piece)
            ticks = _ticks(pid)
            if ticks != worked:
                worked, since = ticks, time.monotonic()
            elif time.monotonic() - since > _HANG:
                raise ModelLoadError(
                    "--preload is not possible with this model: in a forked copy of the process that has loaded it the "
                    "first prediction hangs; nothing has happened for {:.0f} s. A library that it uses does not "
                    "survive a fork, so serve it without --preload".format(_HANG)
                )

    # --- forking

    def fork(self) -> Optional[socket.socket]:
        """Do what the server asks for on the control socket.

        Returns the worker's channel in the worker; ``None`` in the zygote, which has answered with the worker's pid or
        with what went wrong. Raises ``EOFError`` when the server has gone.
        """
        descriptors = array.array("i")
        space = socket.CMSG_SPACE(_DESCRIPTORS * descriptors.itemsize)
        message, ancillary, _, _ = self._control.recvmsg(64, space)
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
        if not message:
            raise EOFError
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        channel = -1
        try:
            channel, stdout, stderr = descriptors
            answer = self._fork(channel, stdout, stderr)
        except _InWorker:
            return socket.socket(fileno=channel)
        except (OSError, ValueError) as exc:
            answer = "error: {}".format(exc)
        for descriptor in descriptors:
            os.close(descriptor)
        self._control.send(answer.encode())
        return None

    def _fork(self, channel: int, stdout: int, stderr: int) -> str:
        """Fork a worker and return its pid; raises ``_InWorker`` in the worker."""
        reading, writing = os.pipe()
        try:
            # Not os.fork(): the functions that user code has registered for a fork are for the worker, not for the
            # process between, which lives for a moment. PyDLL keeps the interpreter's lock, which C's fork does, too.
            middle = ctypes.PyDLL(None).fork()
            if not middle:
                self._in_middle(writing, stdout, stderr)
            os.close(writing)
            writing = -1
            if middle < 0:
                raise OSError("the system cannot fork the process; is there memory, and room for one more process?")
            pid = os.read(reading, 32)  # its own process group exists by then, so that it can be killed
            _reap(middle)
            if not pid:
                raise OSError("the new process ended at once")
            return pid.decode()
        finally:
            os.close(reading)
            if writing >= 0:
                os.close(writing)

    def _in_middle(self, writing: int, stdout: int, stderr: int) -> None:
        """Fork the worker and end; raises ``_InWorker`` in the worker."""
        code = 1
        try:
            middle = os.getpid()
            if os.fork():
                code = 0
                return
            os.setsid()
            os.write(writing, b"%d" % os.getpid())
            os.dup2(stdout, 1)
            os.dup2(stderr, 2)
            os.close(stdout)
            os.close(stderr)
            self._become_worker(middle)
            code = -1
        except BaseException:
            traceback.print_exc()
        finally:
            if code >= 0:
                os._exit(code)
        raise _InWorker

    def _become_worker(self, middle: int) -> None:
        deadline = time.monotonic() + _PARENT_TIMEOUT
        while os.getppid() == middle and time.monotonic() < deadline:
            time.sleep(0.0002)
        die_with_parent()
        if os.getppid() != self._server:
            raise OSError("the server has gone, or the kernel has not made this process its child")
        self._renew()

    def _renew(self) -> None:
        """Make a process of its own of a forked one."""
        # Workers must not draw the same numbers. For ``random`` Python itself sees to that.
        numpy_random: Any = sys.modules.get("numpy.random")
        if numpy_random is not None:
            numpy_random.seed()
        torch: Any = sys.modules.get("torch")
        if torch is not None and hasattr(torch, "seed"):
            torch.seed()
        forkable.set_math_threads(self._threads)
        forkable.open_files_again(self._ours())
        # What the zygote is to do at its end, such as deleting a temporary folder, is not the worker's to do.
        atexit._clear()  # noqa: SLF001  (multiprocessing does so, too)
        for each in list(getattr(weakref.finalize, "_registry", ())):
            each.atexit = False
        weakref.finalize._registered_with_atexit = False  # type: ignore[attr-defined]  # noqa: SLF001


class _InWorker(BaseException):
    """Raised in a process that has just become a worker, to leave the zygote's frames."""


def end_worker(code: int) -> None:
    """End a forked worker: run what user code has registered for the end since the fork, and nothing of before."""
    with contextlib.suppress(BaseException):
        # Wait for threads that are no daemons, as at any end.
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()  # noqa: SLF001
    _flush()
    os._exit(code)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _reap(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:  # the model has SIGCHLD ignored
        return 0


def _describe_end(status: int) -> str:
    if os.WIFSIGNALED(status):
        return "died of signal {}".format(os.WTERMSIG(status))
    return "exited with code {}".format(os.WEXITSTATUS(status))


def _ticks(pid: int) -> int:
    """Return how much a process has worked, in the kernel's ticks."""
    try:
        with open("/proc/{}/stat".format(pid), "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return -1
    return int(fields[11]) + int(fields[12])
