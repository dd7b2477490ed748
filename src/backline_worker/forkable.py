"""Whether this process can be forked: what a fork would lose, or would share where each worker needs its own.

A fork copies memory and descriptors, and of all threads only the one that forks. So a lock that another thread holds is
held for ever in the copy, a pool of threads waits for threads that are not there, and two processes that read from one
socket get half of its bytes each. Whoever has loaded a model looks for such things here before it forks workers.

Linux only: all is read from ``/proc``.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import stat
import sys
import threading
from typing import Any, Collection, Dict, Iterator, List, Optional, Tuple

_SQLITE = b"SQLite format 3\0"
_GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/", "/dev/accel", "/dev/habanalabs")

# Of what starts threads in C: a part of the file's name, and how people call it.
_NATIVE = (
    ("onnxruntime", "ONNX Runtime"),
    ("tensorflow", "TensorFlow"),
    ("jaxlib", "JAX"),
    ("libjvm", "the Java VM"),
    ("_catboost", "CatBoost"),
    ("polars", "polars"),
    ("tokenizers", "tokenizers"),
    ("cygrpc", "gRPC"),
    ("libarrow", "pyarrow"),
    ("libtorch_cpu", "PyTorch"),
    ("lib_lightgbm", "LightGBM"),
    ("libxgboost", "XGBoost"),
    ("libmkl", "MKL"),
    ("openblas", "OpenBLAS"),
    ("libgomp", "OpenMP (libgomp)"),
    ("libiomp", "OpenMP (libiomp)"),
    ("libomp", "OpenMP (libomp)"),
)


def obstacles(folder: str, ours: Collection[int]) -> List[str]:
    """Return what makes a fork of this process unsafe, each in words; nothing where it is safe.

    ``folder`` is the model's, whose lines are named; ``ours`` are the worker's own descriptors.
    """
    return [*_threads(folder), *_children(), *_descriptors(ours)]


# --- threads


def _threads(folder: str) -> Iterator[str]:
    known = {thread.native_id: thread for thread in threading.enumerate() if thread.native_id is not None}
    native: List[str] = []
    for entry in os.listdir("/proc/self/task"):
        number = int(entry)
        if number == os.getpid():
            continue
        name = _read("/proc/self/task/{}/comm".format(number)).decode("utf-8", "replace").strip()
        if number in known:
            yield _python_thread(known[number], folder)
        elif name != "jemalloc_bg_thd":  # jemalloc stops and starts it around a fork by itself
            native.append(name)
    if native:
        loaded = _loaded_libraries()
        yield "{} outside Python ({}){}".format(
            "a thread" if len(native) == 1 else "{} threads".format(len(native)),
            ", ".join(sorted(set(native))),
            "; loaded are {}".format(", ".join(loaded)) if loaded else "",
        )


def _python_thread(thread: threading.Thread, folder: str) -> str:
    folder = os.path.join(os.path.realpath(folder), "")
    frame: Any = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001  (the only way to them)
    line = None
    while frame is not None:
        file = os.path.realpath(frame.f_code.co_filename)
        if file.startswith(folder):
            line = "{}:{}".format(file[len(folder) :], frame.f_lineno)  # the outermost is the thread's own function
        frame = frame.f_back
    target = getattr(thread, "_target", None)
    name = getattr(target, "__qualname__", None) or type(thread).__qualname__
    module = getattr(target, "__module__", None) or type(thread).__module__
    return "the thread {!r}, which runs {}.{}{}".format(
        thread.name, module, name, " (now at {})".format(line) if line else ""
    )


def _loaded_libraries() -> List[str]:
    files = set(_mapped_files())
    return [name for part, name in _NATIVE if any(part in os.path.basename(file).lower() for file in files)]


def _mapped_files() -> Iterator[str]:
    for line in _read("/proc/self/maps").decode("utf-8", "surrogateescape").splitlines():
        path = line.partition("/")
        if path[1] and ".so" in path[2]:
            yield "/" + path[2]


# --- processes


def _children() -> Iterator[str]:
    for number in _read("/proc/self/task/{}/children".format(os.getpid())).split():
        command = _read("/proc/{}/cmdline".format(number.decode())).replace(b"\0", b" ").decode("utf-8", "replace")
        yield "the process {} that it has started: {}".format(number.decode(), command.strip()[:200] or "ended already")


# --- descriptors


def _descriptors(ours: Collection[int]) -> Iterator[str]:
    found: Dict[str, List[str]] = {}
    for descriptor, target in open_descriptors(ours):
        kind, words = _judge(descriptor, target)
        if kind:
            found.setdefault(kind, []).append(words)
    if "loop" in found:
        # It wakes itself by a pair of sockets or a pipe, which is nobody else's.
        found.pop("pair", None)
    for several in found.values():
        for words in sorted(set(several)):
            yield words


def open_descriptors(ours: Collection[int] = ()) -> Iterator[Tuple[int, str]]:
    """Return the open descriptors that are not ``ours``, each with what it leads to."""
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # the one of the listing itself
            if int(entry) not in ours:
                yield int(entry), os.readlink("/proc/self/fd/{}".format(entry))


def _judge(descriptor: int, target: str) -> Tuple[str, str]:
    """Return kind and words of what stands in the way; empty where nothing does."""
    if target.startswith("socket:"):
        return _socket(descriptor)
    if target.startswith("pipe:"):
        return "pair", "an open pipe (descriptor {})".format(descriptor)
    if target.startswith("anon_inode:"):
        what = target.partition(":")[2].strip("[]")
        if what == "eventpoll":
            return "loop", "an event loop (epoll): asynchronous code that has run while the model was loaded keeps one"
        return "kernel", "an open {} (descriptor {})".format(what, descriptor)
    if target.startswith(_GPU_DEVICES):
        return "gpu", "a GPU that is in use ({}): the copy could not use it".format(target)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return "", ""
    with contextlib.suppress(OSError):
        if os.pread(descriptor, len(_SQLITE), 0) == _SQLITE:
            return "file", "the open SQLite database {}".format(target)
    try:
        os.close(_open_again(descriptor))
    except OSError as exc:
        return "file", "the open file {}, which cannot be opened once more: {}".format(target, exc.strerror)
    return "", ""


def _socket(descriptor: int) -> Tuple[str, str]:
    try:
        with socket.socket(fileno=os.dup(descriptor)) as found:
            with contextlib.suppress(OSError):
                return _named_socket(found, found.getpeername(), "connected to")
            with contextlib.suppress(OSError):
                return _named_socket(found, found.getsockname(), "at")
    except OSError:
        pass
    return "socket", "an open socket (descriptor {})".format(descriptor)


def _named_socket(found: socket.socket, address: Any, how: str) -> Tuple[str, str]:
    if isinstance(address, tuple) and len(address) >= 2:
        return "socket", "an open network socket {} {}:{}".format(how, address[0], address[1])
    if address:
        return "socket", "an open socket {} {}".format(how, os.fsdecode(address))
    if found.family == socket.AF_UNIX:
        return "pair", "an open pair of sockets (descriptor {})".format(found.fileno())
    return "socket", "an open socket of family {}".format(found.family)


def _open_again(descriptor: int) -> int:
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL) & ~(os.O_CREAT | os.O_EXCL | os.O_TRUNC | os.O_NOFOLLOW)
    return os.open("/proc/self/fd/{}".format(descriptor), flags)


def open_files_again(ours: Collection[int]) -> None:
    """Give a forked process its own place in every file that it has open; processes that share one would move it."""
    for descriptor, _ in list(open_descriptors(ours)):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                continue
            place = os.lseek(descriptor, 0, os.SEEK_CUR)
            inheritable = os.get_inheritable(descriptor)
            again = _open_again(descriptor)
            try:
                os.lseek(again, place, os.SEEK_SET)
                os.dup2(again, descriptor, inheritable=inheritable)
            finally:
                os.close(again)


# --- threads of numeric libraries

_SETTERS = (
    ("openblas", "OPENBLAS_NUM_THREADS", "openblas_set_num_threads"),
    ("openblas", "OPENBLAS_NUM_THREADS", "openblas_set_num_threads64_"),
    ("openblas", "OPENBLAS_NUM_THREADS", "scipy_openblas_set_num_threads"),
    ("openblas", "OPENBLAS_NUM_THREADS", "scipy_openblas_set_num_threads64_"),
    ("libgomp", "OMP_NUM_THREADS", "omp_set_num_threads"),
    ("libiomp", "OMP_NUM_THREADS", "omp_set_num_threads"),
    ("libomp", "OMP_NUM_THREADS", "omp_set_num_threads"),
    ("libmkl_rt", "MKL_NUM_THREADS", "MKL_Set_Num_Threads"),
    ("libblis", "BLIS_NUM_THREADS", "bli_thread_set_num_threads"),
)


def set_math_threads(environment: Dict[str, Optional[str]]) -> None:
    """Put these variables into the environment, and tell the libraries that have read others when they were loaded."""
    for name, value in environment.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    default = _threads_in(environment.get("OMP_NUM_THREADS"))
    wanted = {name: _threads_in(value) or default for name, value in environment.items()}
    if set(wanted.values()) == {1}:
        return  # as they are
    import ctypes

    for path in set(_mapped_files()):
        file = os.path.basename(path).lower()
        for part, variable, function in _SETTERS:
            number = wanted.get(variable)
            if part in file and number:
                with contextlib.suppress(OSError, AttributeError):
                    getattr(ctypes.CDLL(path), function)(ctypes.c_int(number))
    torch: Any = sys.modules.get("torch")
    if torch is not None and default and hasattr(torch, "set_num_threads"):
        torch.set_num_threads(default)


def _threads_in(value: Optional[str]) -> Optional[int]:
    found = re.match(r"\s*(\d+)", value or "")
    return int(found.group(1)) or None if found else None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""
