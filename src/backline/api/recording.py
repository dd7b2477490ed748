"""The recording proxy: passes requests on to one server unchanged and keeps a copy of what both sides said."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from backline.api.connections import Guard, GuardedHttp, allowed_connections
from backline.api.listen import BACKLOG
from backline.api.proxy_routes import DirectAccess
from backline.api.run import DrainingServer, loop_factory
from backline.api.state import ApiState
from backline.api.tee import Copy, Tee
from backline.config.model_folder import no_folder
from backline.config.settings import BackendSettings, LogSettings, ServerSettings, Settings
from backline.observe.logs import logging_to_stderr
from backline.parity.exchange import Answer, Call, Request
from backline.parity.redaction import Redaction
from backline.parity.store import WhenFull
from backline.parity.writer import StoreWriter
from backline.proxy.headers import unchanged_headers
from backline.proxy.service import running_backend

if TYPE_CHECKING:
    from starlette.types import Scope

    from backline.api.endpoint import Headers
    from backline.parity.store import Store
    from backline.proxy.service import Backend

logger = logging.getLogger("backline.parity")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """What to record, and how much of it."""

    target: str
    output: Path
    redaction: Redaction
    max_bytes: int | None = None
    when_full: WhenFull = "oldest"
    max_body: int = 64 << 20
    drain_timeout: float = 30.0


@dataclasses.dataclass(slots=True, kw_only=True)
class Recorded:
    """How it went: calls kept, calls that were not (too large, cut off by their client, too many at a time)."""

    kept: int = 0
    not_kept: int = 0
    dropped_oldest: int = 0
    failure: str | None = None
    interrupted: bool = False


class PassThrough(DirectAccess):
    """Every path, and nothing added: the server behind is not to notice."""

    def __init__(self, state: ApiState) -> None:
        super().__init__(state, "")

    def request_headers(self, scope: Scope, backend: Backend) -> Headers:
        """See ``DirectAccess``."""
        return unchanged_headers(scope["headers"], authority=backend.address.authority)


class Recorder:
    """Makes calls of what passes and hands them to the writer."""

    def __init__(self, recording: Recording, writer: StoreWriter) -> None:
        self.not_kept = 0
        self._redaction = recording.redaction
        self._writer = writer

    def take(self, copy: Copy) -> None:
        """Keep a copy, unless its client has left or it is too large."""
        body = copy.request
        if body is None or not copy.status:
            self.not_kept += 1
            return
        answer_body = copy.answer
        if copy.too_large:
            self.not_kept += 1
            return
        scope, seconds, at = copy.scope, copy.seconds, time.time()
        error = None if answer_body is not None else "the answer was cut off"
        status, headers = copy.status, copy.headers

        def write(store: Store) -> None:
            query = scope["query_string"]
            target = scope["raw_path"].decode("latin-1") + (f"?{query.decode('latin-1')}" if query else "")
            request = Request(
                method=scope["method"],
                target=self._redaction.target(target),
                headers=self._redaction.headers(_texts(scope["headers"])),
                body=body,
            )
            answer = Answer(
                status=status, headers=self._redaction.headers(_texts(headers)), body=answer_body or b"",
                seconds=seconds if error is None else None, error=error,
            )  # fmt: skip
            store.add_call(Call(request=request, answer=answer, at=at))

        self._writer.put(write, copy.size + 4096)


def record(recording: Recording, listener: socket.socket) -> Recorded:
    """Record until a signal; everything that was answered is then in the file. The caller closes the listener."""
    with logging_to_stderr(LogSettings()), asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(_record(recording, listener))


async def _record(recording: Recording, listener: socket.socket) -> Recorded:
    settings = Settings(
        backend=BackendSettings(url=recording.target, sidecar=True, timeout=0, idle_timeout=0),
        server=ServerSettings(drain_timeout=recording.drain_timeout),
    )
    # Opening the file blocks for a moment, before anybody is served.
    writer = StoreWriter(recording.output, max_bytes=recording.max_bytes, when_full=recording.when_full)
    recorder = Recorder(recording, writer)
    try:
        async with running_backend(settings.backend, watched=False) as backend:
            state = ApiState(settings, no_folder(settings), backend=backend)
            app = Tee(PassThrough(state), wanted=lambda _: True, take=recorder.take, limit=recording.max_body)
            guard = Guard(
                limits=settings.limits,
                max_connections=allowed_connections(settings.limits.max_connections),
                probes=frozenset(),
                unhurried=("/",),
            )
            config = uvicorn.Config(
                app,
                # uvicorn calls whatever makes a protocol, though its types ask for a class.
                http=functools.partial(GuardedHttp, guard=guard),  # type: ignore[arg-type]
                h11_max_incomplete_event_size=settings.limits.max_head,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=max(1, int(recording.drain_timeout)),
            )
            server = DrainingServer(config, state, guard)
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            sys.stderr.write(
                f"Listening on http://{shown}:{port}\nRecording {recording.target} to {recording.output}\n"
            )
            sys.stderr.flush()
            await server.serve(sockets=[listener])
    finally:
        await asyncio.to_thread(writer.close)
    return Recorded(
        kept=writer.written,
        not_kept=recorder.not_kept + writer.dropped,
        dropped_oldest=writer.dropped_oldest,
        failure=writer.failure,
        interrupted=server.interrupted,
    )


def _texts(headers: list[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers]
