"""Runs ``uv``: where it is, with what environment, until it ends or nobody wants its work any more."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from backline.errors import EnvironmentFailed
from backline.runtime.environments.cache import Watch

_TICK = 0.2  # seconds between two looks whether it is still wanted
# They would make uv install somewhere else, or the interpreter import from the server's environment.
_NOT_FOR_UV = (
    "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "PYTHONSTARTUP", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT", "UV_PYTHON",
    "UV_SYSTEM_PYTHON", "UV_TARGET", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__",
)  # fmt: skip


def find_uv() -> str:
    """Return the path of ``uv``: of the extra ``env`` beside us, or on ``PATH``. Raises ``EnvironmentFailed``."""
    name = "uv.exe" if sys.platform == "win32" else "uv"
    beside = Path(sys.executable).with_name(name)
    if beside.is_file():
        return str(beside)
    if importlib.util.find_spec("uv") is not None:
        import uv

        with contextlib.suppress(FileNotFoundError):
            return str(uv.find_uv_bin())
    found = shutil.which("uv")
    if found is None:
        raise EnvironmentFailed(
            "uv, which builds it, is not installed",
            where="the server's environment and PATH",
            mend="pip install 'backline[env]', or install uv, or build an environment yourself and name it with --env",
        )
    return found


def environment() -> dict[str, str]:
    """Return the variables that ``uv`` runs with: ours, index, proxies and ``UV_OFFLINE`` among them."""
    variables = {name: value for name, value in os.environ.items() if name not in _NOT_FOR_UV}
    return {**variables, "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}


def run(
    command: Sequence[str],
    *,
    folder: Path,
    watch: Watch,
    what: str,
    lock: IO[bytes],
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[], None] = lambda: None,
) -> tuple[int, str]:
    """Run a command in ``folder`` and return its exit code and all that it has written.

    ``on_line`` gets each line as it comes; ``what`` says in messages what is being done. Cancellation, the deadline and
    Ctrl-C kill the command with all that it has started. It inherits ``lock``: whoever outlives us keeps it.

    Raises ``BuildCancelled`` or ``EnvironmentFailed``.
    """
    process = subprocess.Popen(  # noqa: S603  (uv, or the environment's own python)
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        pass_fds=() if sys.platform == "win32" else (lock.fileno(),),
    )
    assert process.stdout is not None
    text, unfinished = "", b""
    try:
        with process.stdout, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                watch.check(what)
                on_tick()
                if not selector.select(_TICK):
                    continue
                data = os.read(process.stdout.fileno(), 65_536)
                if not data:
                    break
                *whole, unfinished = (unfinished + data).split(b"\n")
                for line in whole:
                    decoded = line.decode("utf-8", "replace").rstrip()
                    text += decoded + "\n"
                    on_line(decoded)
        text += unfinished.decode("utf-8", "replace")
        while process.poll() is None:  # it has closed its output, and ends at once
            watch.check(what)
            time.sleep(0.01)
    except BaseException:
        _kill(process)
        raise
    return process.returncode, text


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
