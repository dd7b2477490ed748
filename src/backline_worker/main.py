"""The worker's life: connect, load, say READY, then answer one frame after another until told to stop.

The main thread does everything but chats. That keeps one request's hooks on one thread without interleaving, which
existing model folders rely on, and it makes the PING an honest one: the loop that answers predictions answers it.
Chats run beside it and beside each other, see ``chats.py``; a worker whose model has none pays nothing for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import os
import platform
import queue
import select
import socket
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Tuple, Union

from . import channel, metrics
from .channel import Kind
from .errors import ModelLoadError, OutOfMemory, ReportedError
from .output import Output
from .parent import die_with_parent
from .prometheus_registry import PrometheusRegistry
from .status import StatusPage
from .tracing import Tracing
from .types import Answer, Buffer, ModelSpec, Part, Request

if TYPE_CHECKING:
    from .chats import Chats, Ending

EXIT_LOAD_FAILED = 3
_ENDINGS = frozenset({Kind.ANSWER, Kind.ANSWERS, Kind.ERROR, Kind.STREAM_END})
_TOO_LARGE = "the model does not fit into the worker's memory limit; raise --memory-limit"
_PAUSE = 0.5  # seconds without a request, once, that are used for tidying up after the load
_SWITCH_INTERVAL = 0.0003  # seconds that a thread keeps the interpreter while others want it, beside chats
_PR_SET_NO_NEW_PRIVS = 38


def run(connect: str, *, gc_thresholds: Tuple[int, int, int]) -> int:
    """Serve the model over the channel ``connect`` names, ``fd:N`` or ``tcp:HOST:PORT:TOKEN``; return an exit code.

    ``gc_thresholds`` are those of the garbage collector once the model is loaded, unless the model has set its own.
    """
    while_loading = gc.get_threshold()
    die_with_parent()
    _stay_small()
    connection = _Connection(_owned(_open_socket(connect)))
    output = Output()
    faulthandler.enable(file=2)  # a segfault leaves its Python stack in the log
    connection.send(
        Kind.HELLO, 0, {"pid": os.getpid(), "python": platform.python_version(), "executable": sys.executable}
    )
    start = connection.receive()
    if start is None or start.kind is not Kind.START:
        return 0
    worker = _Worker(connection, output, start.header)
    is_forked = False
    try:
        worker.load()
        if "preload" in start.header:
            is_forked = worker.fork_workers(start.header["preload"])
            if not is_forked:
                return 0
        worker.predict_first()
        if gc.get_threshold() == while_loading:
            gc.set_threshold(*gc_thresholds)
        worker.work()
        code = 0
    except ReportedError as exc:
        output.end()
        connection.send(Kind.LOAD_FAILED, 0, exc.to_record())
        code = EXIT_LOAD_FAILED
    except BaseException:
        if not is_forked:
            raise
        traceback.print_exc()
        code = 1
    if is_forked:
        from .zygote import end_worker

        end_worker(code)
    return code


def _open_socket(connect: str) -> socket.socket:
    scheme, _, rest = connect.partition(":")
    if scheme == "fd":
        connection = socket.socket(fileno=int(rest))
        connection.set_inheritable(False)
    else:
        host, port, token = rest.split(":")
        connection = socket.create_connection((host, int(port)), timeout=30)
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(token.encode())
    return connection


def _owned(connection: socket.socket) -> socket.socket:
    if hasattr(os, "register_at_fork"):
        # A child forked by user code must not hold the channel open after this process is gone.
        os.register_at_fork(after_in_child=connection.close)
    return connection


def _stay_small() -> None:
    """Gain no privileges, as by running sudo, and leave no core file: there are other people's data in it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))


class _Connection:
    """Blocking frames over a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._decoder = channel.FrameDecoder()
        self._frames: List[channel.Frame] = []
        self._lock: Optional[threading.Lock] = None
        self._registry = PrometheusRegistry()
        self._registry_lock = threading.Lock()

    def fileno(self) -> int:
        """Return the descriptor of the channel."""
        return self._socket.fileno()

    def renew(self, sock: socket.socket) -> None:
        """Go on over another socket: this process was forked from one that goes on over the one of before."""
        self._socket = _owned(sock)
        metrics.report_gauges_again()
        self._registry.report_gauges_again()

    def share(self) -> None:
        """From now on several threads send."""
        self._lock = threading.Lock()

    def write(self, *pieces: Buffer) -> None:
        """Write whole frames."""
        if self._lock is not None:
            with self._lock:
                for piece in pieces:
                    self._socket.sendall(piece)
        else:
            for piece in pieces:
                self._socket.sendall(piece)

    def receive(self) -> Optional[channel.Frame]:
        """Wait for the next frame; ``None`` when the server has gone."""
        while not self._frames:
            try:
                data = self._socket.recv(1 << 18)
            except ConnectionError:
                return None
            if not data:
                return None
            self._frames = self._decoder.feed(data)
        return self._frames.pop(0)

    def has_input(self, timeout: float) -> bool:
        """Wait for ``timeout`` seconds at most; return whether there is something to receive."""
        if self._frames:
            return True
        # Not select.select: it takes no descriptor over 1,023, and a server with many clients hands out such.
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(timeout * 1000))

    def send(self, kind: Kind, request_id: int, header: Dict[str, Any], payload: Buffer = b"") -> None:
        prefix = channel.encode_prefix(kind, request_id, header, len(payload))
        if kind in _ENDINGS:
            # In one write with the answer, so that what was counted for it is known when it is, and never without it.
            prefix = self._metrics() + prefix
        if len(payload) < 1 << 16:
            self.write(prefix + payload)
        else:
            self.write(prefix, payload)

    def report(self) -> None:
        """Send what user code has counted, also if it is nothing."""
        header = self._report(now=True) or {"families": []}
        with contextlib.suppress(ConnectionError):  # nobody is left to be told
            self.write(channel.encode_prefix(Kind.METRICS, 0, {**header, "asked": True}, 0))

    def _metrics(self) -> bytes:
        header = self._report(now=False)
        return channel.encode_prefix(Kind.METRICS, 0, header, 0) if header else b""

    def _report(self, *, now: bool) -> Optional[Dict[str, Any]]:
        report = metrics.take_report()
        if "prometheus_client" in sys.modules:
            with self._registry_lock:
                more = self._registry.take_report(now=now)
            if more:
                report = report or {"families": []}
                report["families"] += more
        return report


class _Worker:
    """The model and the loop around it."""

    def __init__(self, connection: _Connection, output: Output, start: Dict[str, Any]) -> None:
        self._connection = connection
        self._output = output
        self._spec = ModelSpec.from_json(start["spec"])
        self._tracing = Tracing()
        self._started = time.monotonic()
        self._tidy = False
        self._warm_up: Optional[Dict[str, Any]] = None

    def load(self) -> None:
        """Load the model; raises ``ReportedError`` with what the operator must know."""
        if self._spec.memory_limit_bytes:
            _limit_memory(self._spec.memory_limit_bytes)
        try:
            from .model import Model

            self._model = Model.load(self._spec)
        except MemoryError as exc:
            raise ModelLoadError(_TOO_LARGE) from exc

    def predict_first(self) -> None:
        """Warm the model up; raises ``ReportedError``, as ``load``."""
        try:
            self._warm_up = self._model.warm_up()
        except MemoryError as exc:
            raise ModelLoadError(_TOO_LARGE) from exc

    def work(self) -> None:
        """Say READY, answer until told to stop."""
        problem = self._tracing.open()
        if problem is not None:
            print(problem, file=sys.stderr)
        # What loading left behind is permanent: keep the collector from walking it on every full collection. What of it
        # is garbage is found in the first pause (``_tidy_up``), as the search takes long with large libraries.
        gc.freeze()
        if self._attach():
            self._serve()
        self._tracing.close()
        self._output.end()

    def fork_workers(self, settings: Mapping[str, Any]) -> bool:
        """Be the process that others are forked from. Returns ``True`` in each of them, and ``False`` at its end.

        Raises ``ReportedError`` where it cannot be forked, or its copies do not predict.
        """
        from .zygote import Zygote

        def ours() -> Tuple[int, ...]:
            return (self._connection.fileno(), *self._output.descriptors)

        zygote = Zygote(settings, ours, self._spec.code_dir)
        zygote.prepare(self.predict_first)
        if not self._attach():
            return False
        self._connection.report()  # what was counted while the model was loaded was counted once
        poll = select.poll()
        poll.register(self._connection, select.POLLIN)
        poll.register(zygote, select.POLLIN)
        while True:
            for descriptor, _ in poll.poll():
                if descriptor != zygote.fileno():
                    if not self._hear():
                        return False
                    continue
                try:
                    channel = zygote.fork()
                except (EOFError, ConnectionError):
                    return False
                if channel is not None:
                    self._connection.renew(channel)
                    self._output.reopen()
                    self._started, self._tidy = time.monotonic(), True
                    return True

    def _hear(self) -> bool:
        """Handle what has come for a process that others are forked from; return ``False`` when it is to end."""
        while True:
            frame = self._connection.receive()
            if frame is None or frame.kind is Kind.STOP:
                return False
            if frame.kind is Kind.PING:
                self._connection.send(Kind.PONG, frame.request_id, {})
            if not self._connection.has_input(0):
                return True

    def _attach(self) -> bool:
        """Take what the server had to prepare for the requests, and report READY; ``False`` when it has gone."""
        frame = self._connection.receive()
        if frame is None or frame.kind is not Kind.ATTACH:
            return False
        self._payload_directory = frame.header["payload_directory"]
        self._status = StatusPage(frame.header["status_page"])
        self._output.end()
        ready = {
            "description": self._model.description,
            "warm_up": self._warm_up,
            "load_seconds": time.monotonic() - self._started,
        }
        self._connection.send(Kind.READY, 0, ready)
        return True

    def _serve(self) -> None:
        """Answer frames until STOP or until the server closes the channel."""
        self._loop(
            _BesideChats(self._connection, self._open_chats(), self._status) if self._model.chats else self._connection
        )

    def _open_chats(self) -> Chats:
        from .chats import Chats

        self._connection.share()
        self._output.share()
        write, threads = self._connection.write, self._spec.threads
        return Chats(self._model, self._output, self._tracing, write=write, finish=self._finish_chat, threads=threads)

    def _loop(self, frames: Union[_Connection, _BesideChats]) -> None:
        while True:
            if not self._tidy and not frames.has_input(_PAUSE):
                _tidy_up()
                self._tidy = True
            frame = frames.receive()
            if frame is None:
                return
            if frame.kind is Kind.STOP:
                self._connection.report()
                return
            if frame.kind is Kind.REQUEST:
                self._answer(frame)
            elif frame.kind is Kind.BATCH:
                self._answer_batch(frame)
            elif frame.kind is Kind.REPORT:
                self._connection.report()
            elif frame.kind is Kind.PING:
                self._connection.send(Kind.PONG, frame.request_id, {})
            elif frame.kind is Kind.SCORE:
                self._score(frame)

    def _answer(self, frame: channel.Frame) -> None:
        clock = _StageClock(self._status, frame.request_id)
        self._output.begin(frame.request_id)
        clock("decode")
        token = self._tracing.attach(frame.header.get("trace"))
        try:
            answer = self._call(frame, clock)
        except Exception as exc:  # a fault of ours must cost this request only, not the worker
            self._report(frame.request_id, _to_error(exc))
        else:
            self._output.end()
            self._send_answer(frame.request_id, answer, clock.stop())
        finally:
            self._tracing.detach(token)
        self._output.begin(0)

    def _send_answer(self, request_id: int, answer: Answer, seconds: Mapping[str, float]) -> None:
        header: Dict[str, Any] = {"content_type": answer.content_type, "seconds": seconds}
        if answer.headers:
            header["headers"] = dict(answer.headers)
        payload = answer.body
        if len(payload) >= channel.LARGE_PAYLOAD_BYTES:
            name = "answer-{}-{}".format(os.getpid(), request_id)
            with contextlib.suppress(OSError):  # no room in shared memory: then it travels in the frame
                path = channel.write_file(self._payload_directory, name, payload)
                header["file"] = {"path": path, "length": len(payload)}
                payload = b""
        self._connection.send(Kind.ANSWER, request_id, header, payload)

    def _finish_chat(self, request_id: int, ending: Ending, seconds: Mapping[str, float]) -> None:
        if isinstance(ending, Answer):
            self._send_answer(request_id, ending, seconds)
        elif ending is None:
            self._connection.send(Kind.STREAM_END, request_id, {"seconds": seconds})
        else:
            self._connection.send(Kind.ERROR, request_id, ending.to_record())

    def _call(self, frame: channel.Frame, clock: _StageClock) -> Answer:
        request = _to_request(frame)
        operations = {
            "predict": self._model.predict,
            "unstructured": self._model.unstructured,
            "transform": self._model.transform,
            "chat": self._model.chat,
            "prompts": self._model.prompts,
            "texts": self._model.texts,
            "models": self._model.supported_models,
        }
        return operations[request.operation](request, clock)

    def _answer_batch(self, frame: channel.Frame) -> None:
        from .batch import answer_batch

        clock = _StageClock(self._status, frame.request_id)
        self._output.begin(frame.request_id)
        token = self._tracing.attach(frame.header.get("trace"))
        outcomes = answer_batch(self._model, _to_requests(frame), clock)
        self._tracing.detach(token)
        self._output.end()
        answers: List[Any] = []  # of each request: its body's size, or its error record
        content_type = ""
        bodies = []
        for outcome in outcomes:
            if isinstance(outcome, Answer):
                content_type = outcome.content_type
                answers.append(len(outcome.body))
                bodies.append(outcome.body)
            else:
                answers.append(_to_error(outcome).to_record())
        header = {"content_type": content_type, "seconds": clock.stop(), "answers": answers}
        self._connection.send(Kind.ANSWERS, frame.request_id, header, b"".join(bodies))
        self._output.begin(0)

    def _score(self, frame: channel.Frame) -> None:
        from .score import score_file

        self._output.begin(frame.request_id)
        self._status.write(frame.request_id, "predict")

        def report(progress: Dict[str, Any]) -> None:
            self._connection.send(Kind.PROGRESS, frame.request_id, progress)

        try:
            summary = score_file(self._model, frame.header, report)
        except Exception as exc:
            self._report(frame.request_id, _to_error(exc))
        else:
            self._output.end()
            self._connection.send(Kind.ANSWER, frame.request_id, summary)
        self._output.begin(0)

    def _report(self, request_id: int, error: ReportedError) -> None:
        self._output.end()
        self._connection.send(Kind.ERROR, request_id, error.to_record())


class _BesideChats:
    """The frames of the main thread; a thread of its own reads the channel and gives the chats what is theirs."""

    def __init__(self, connection: _Connection, chats: Chats, status: StatusPage) -> None:
        self._connection = connection
        self._chats = chats
        self._status = status
        self._frames: queue.SimpleQueue[Optional[channel.Frame]] = queue.SimpleQueue()
        self._next: Optional[channel.Frame] = None
        # A prediction holds the interpreter for milliseconds: by default the chats' threads would wait 5 ms for it, and
        # then all write at once what has gathered, before its answer can be sent.
        sys.setswitchinterval(_SWITCH_INTERVAL)
        threading.Thread(target=self._read, name="channel", daemon=True).start()

    def has_input(self, timeout: float) -> bool:
        """Wait for ``timeout`` seconds at most; return whether there is something to receive."""
        try:
            frame = self._frames.get(timeout=timeout)
        except queue.Empty:
            return False
        if frame is None:
            self._frames.put(None)
        self._next = frame
        return True

    def receive(self) -> Optional[channel.Frame]:
        """Wait for the next frame; ``None`` when the server has gone."""
        frame, self._next = self._next, None
        return self._frames.get() if frame is None else frame

    def _read(self) -> None:
        frame: Optional[channel.Frame] = None
        try:
            while True:
                frame = self._connection.receive()
                if frame is None:
                    break
                if frame.kind is Kind.REQUEST and frame.header["operation"] == "chat":
                    self._status.write_last_chat(frame.request_id)
                    self._chats.begin(frame.request_id, _to_request(frame))
                elif frame.kind is Kind.CREDIT:
                    self._chats.grant(frame.request_id, frame.header["bytes"])
                elif frame.kind is Kind.CANCEL:
                    self._chats.cancel(frame.request_id)
                else:
                    self._frames.put(frame)
        finally:
            self._frames.put(None)  # also after a fault of ours: without its reader the worker is of no use


class _StageClock:
    """Times the stages of one request and notes them on the status page; handed to the model as ``stage``."""

    def __init__(self, status: StatusPage, request_id: int) -> None:
        self._status = status
        self._request_id = request_id
        self._seconds: Dict[str, float] = {}
        self._stage = ""
        self._since = 0.0

    def __call__(self, stage: str) -> None:
        now = time.perf_counter()
        if self._stage:
            self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
        self._status.write(self._request_id, stage)

    def stop(self) -> Dict[str, float]:
        """Return seconds by stage."""
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + time.perf_counter() - self._since
        return self._seconds


def _to_request(frame: channel.Frame) -> Request:
    header = frame.header
    payload = channel.take_payload(frame)
    view = memoryview(payload)
    parts = []
    offset = 0
    for name, content_type, filename, length in header["parts"]:
        parts.append(Part(name, content_type, view[offset : offset + length], filename))
        offset += length
    return Request(
        operation=header["operation"],
        parts=parts,
        content_encoding=header.get("content_encoding", ""),
        accept=header.get("accept", ""),
        headers=header.get("headers", {}),
        query_lists=header.get("query", {}),
        trace=header.get("trace"),
    )


def _to_requests(frame: channel.Frame) -> List[Request]:
    """Take a BATCH apart: predictions with one part each, which differ in nothing but its content."""
    header = frame.header
    view = memoryview(frame.payload)
    requests = []
    offset = 0
    for length in header["sizes"]:
        part = Part("X", header["part_type"], view[offset : offset + length], header["filename"])
        requests.append(Request(operation="predict", parts=[part], accept=header["accept"]))
        offset += length
    return requests


def _to_error(exc: Exception) -> ReportedError:
    """Return the error to report for whatever ended a call."""
    if isinstance(exc, ReportedError):
        return exc
    error: ReportedError
    if isinstance(exc, MemoryError):
        error = OutOfMemory("the worker ran out of memory; send fewer rows or raise --memory-limit")
    else:
        text = "{} in the worker: {}".format(type(exc).__name__, exc)
        trace = "".join(traceback.format_exception(type(exc), exc, exc.__traceback__))
        error = ReportedError(text, traceback=trace)
    error.__cause__ = exc
    return error


def _tidy_up() -> None:
    """Free what loading needed and the model does not, and give it back to the system."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError, AttributeError):  # glibc has it
        ctypes.CDLL(None).malloc_trim(0)


def _limit_memory(limit: int) -> None:
    """Bound the private memory of this process, so that an allocation too large raises ``MemoryError`` here.

    RLIMIT_DATA counts what is really private and writable (since Linux 4.7); RLIMIT_AS would also count mapped files
    and reserved address space, of which numeric libraries take gigabytes without using them.
    """
    try:
        import resource
    except ImportError:
        return
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
