"""Routes about the server itself: alive, ready, what it serves and how it is doing. None of them does I/O."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING, Any

from backline import __version__
from backline.api.endpoint import Endpoint, respond_json
from backline.api.openai_routes import goes_to_backend
from backline.errors import BacklineError, ModelLoading, ServerDraining
from backline.observe.processes import resident_bytes
from backline.runtime.supervisor import ModelState

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from backline.api.state import ApiState

_OK = {"message": "OK"}


class BackendUnready(BacklineError):
    """The backend does not say of itself that it is ready."""

    code = "backend_unready"


def check_ready(state: ApiState) -> None:
    """Raise what speaks against it that a request sent now would be answered."""
    if state.leaving:
        raise ServerDraining("the server is shutting down", retry_after=1)
    if state.service is not None:
        supervisor = state.service.supervisor
        supervisor.check_accepting()
        if supervisor.state is ModelState.RECOVERING:
            raise ModelLoading("all workers died and are being replaced; requests wait for them", retry_after=1)
        workers = state.settings.workers
        serving, wanted = supervisor.count_serving(), min(workers.min_ready, workers.count)
        if serving < wanted:
            raise ModelLoading(f"{serving} of {wanted} workers are ready (--min-ready)", retry_after=1)
    if state.backend_process is not None:
        state.backend_process.check_accepting()
    backend = state.backend
    if backend is not None and backend.unready is not None:
        raise BackendUnready(f"the backend {backend.address.url} is not ready: {backend.unready}")


def is_ready(state: ApiState) -> bool:
    """Whether ``/readyz`` says 200."""
    try:
        check_ready(state)
    except BacklineError:
        return False
    return True


class Alive(Endpoint):
    """``/`` and ``/livez``: the event loop answers, whatever the model does."""

    observed = False

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See the class."""
        return await respond_json(send, 200, _OK, request_id)


class ReadyProbe(Endpoint):
    """``/ping``, ``/health``, ``/readyz``: 200 when a request sent now would be answered; 503 or 513 with why not."""

    observed = False
    logs_errors = False  # they ask every second, and to be told no is what they are for

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See the class."""
        check_ready(self.state)
        return await respond_json(send, 200, _OK, request_id)


class Stats(Endpoint):
    """``/stats``: memory of the server and its workers, queue, counts and the last errors."""

    observed = False

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See the class."""
        service, backend = self.state.service, self.state.backend
        workers = [] if service is None else service.supervisor.workers()
        for worker in workers:
            worker["resident_bytes"] = resident_bytes(worker["pid"]) or 0
        server_bytes = resident_bytes(os.getpid()) or 0
        total = server_bytes + sum(worker["resident_bytes"] for worker in workers)
        content: dict[str, Any] = {
            "mem_info": {
                "server_resident_bytes": server_bytes,
                "total_resident_bytes": total,
                "total_mb": round(total / 2**20, 1),
            },
            "workers": workers,
            "uptime_seconds": round(time.time() - self.state.started, 1),
            "last_errors": [error._asdict() for error in self.state.metrics.last_errors],
        }
        if service is not None:
            dispatcher = service.dispatcher
            content["restarts"] = service.supervisor.restarts
            content["recycled"] = service.supervisor.recycled
            content["queue"] = {"waiting": dispatcher.waiting, "bytes_in_flight": dispatcher.bytes_in_flight}
            content["chats"] = {"waiting": dispatcher.chats.waiting, "open": dispatcher.chats.open}
            content["model_state"] = service.supervisor.state.value
            if self.state.settings.workers.preload:
                content["preloaded"] = service.supervisor.zygotes()
        if backend is not None:
            content["backend"] = {"in_flight": backend.in_flight, "ready": backend.unready is None}
            process = self.state.backend_process
            if process is not None:
                content["backend"] |= {
                    "pid": process.pid,
                    "state": process.state.value,
                    "restarts": process.restarts,
                    "resident_bytes": 0 if process.pid is None else resident_bytes(process.pid),
                }
        return await respond_json(send, 200, content, request_id)


class Info(Endpoint):
    """``/info``: the model and the server; keys in the documented legacy spelling and in camelCase."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See the class."""
        return await respond_json(send, 200, self._content(), request_id)

    def _content(self) -> dict[str, Any]:
        supervisor = None if self.state.service is None else self.state.service.supervisor
        folder = self.state.folder
        model = supervisor.model.description if supervisor and supervisor.model else {}
        target_type = model.get("target_type") or folder.spec().get("target_type")
        predictor = model.get("library") or ("custom code" if model.get("hooks") else None)
        metadata = dict(folder.raw_metadata)
        failure = supervisor.failure if supervisor else None
        backend, process = self.state.backend, self.state.backend_process
        return {
            "server": "backline",
            "version": __version__,
            "language": "python",
            "predictor": predictor,
            "target_type": target_type,
            "targetType": target_type,
            "code_dir": str(self.state.settings.model.code_dir),
            "codeDir": str(self.state.settings.model.code_dir),
            "model metadata": metadata,
            "modelMetadata": metadata,
            "inputSchema": metadata.get("inputSchema"),
            "model": model,
            "modelState": supervisor.state.value if supervisor else None,
            "failure": failure.message if failure else None,
            "reload": self.state.reloader.describe() if self.state.reloader else None,
            "python": platform.python_version(),
            "workers": self.state.settings.workers.count if supervisor else 0,
            "extension": self._extension(),
            "backend": None if backend is None else {**backend.describe(), "process": process and process.describe()},
            "shadow": None if self.state.shadow is None else self.state.shadow.describe(),
        }

    def _extension(self) -> dict[str, Any] | None:
        extension, watch = self.state.extension, self.state.loop_watch
        if extension is None:
            return None
        return {**extension.describe(), "event_loop_blocked": None if watch is None else watch.describe()}


class Capabilities(Endpoint):
    """``/capabilities``: formats in and out, and which operations the model offers."""

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See the class."""
        service = self.state.service
        model = service.supervisor.model.description if service and service.supervisor.model else {}
        content = {
            "supported_payload_formats": model.get("input_formats", []),
            "supported_response_formats": model.get("output_formats", []),
            "supported_methods": {
                "chat": bool(model.get("chat")) or goes_to_backend(self.state),
                "directAccess": self.state.backend is not None,
            },
        }
        return await respond_json(send, 200, content, request_id)
