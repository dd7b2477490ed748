"""Run as a script: becomes the command in its arguments, which the kernel kills when the server dies.

``die_with_parent.py SERVER_PID COMMAND [ARGUMENT ...]``. The standard library's ``preexec_fn`` would do the same
between fork and exec, where little is safe to do; here it is done in a process of its own, and the wish survives exec.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127  # as shells say it


def main(server_pid: int, command: list[str]) -> int:
    """Become ``command``; returns an exit code only where that is not possible."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != server_pid:
        return 1  # it died before it could be told
    try:
        os.execvp(command[0], command)  # noqa: S606  (the operator's command, and no shell)
    except OSError as exc:
        print(f"cannot run {command[0]}: {exc.strerror}", file=sys.stderr)
        return _NOT_FOUND


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
