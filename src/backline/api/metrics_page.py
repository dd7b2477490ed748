"""``/metrics``: what Prometheus reads. It goes through no queue, so it answers whatever the load."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from backline import __version__
from backline.api.endpoint import Endpoint, respond
from backline.observe.processes import look_at
from backline.observe.snapshot import BackendSeen, ModelSeen, Snapshot, WorkerSeen
from backline.runtime.supervisor import ModelState
from backline.runtime.worker import WorkerState

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from backline.api.state import ApiState
    from backline.observe.exposition import Exposition
    from backline.runtime.service import ModelService

_REPORT_TIMEOUT = 0.1  # seconds
_WORKER_STATES = tuple(state.value for state in WorkerState if state is not WorkerState.DEAD)


class MetricsPage(Endpoint):
    """``/metrics`` and, for those who know it from NIM, ``/v1/metrics``: text, or OpenMetrics where ``Accept`` asks."""

    observed = False

    def __init__(self, state: ApiState) -> None:
        super().__init__(state)
        self._exposition: Exposition | None = None
        self._turn = asyncio.Lock()

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See the class."""
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        loop = asyncio.get_running_loop()
        # prometheus-client takes 30 ms to import: in a thread, and only where somebody scrapes.
        module: Any = await loop.run_in_executor(None, importlib.import_module, "backline.observe.exposition")
        if self._exposition is None:
            self._exposition = module.Exposition(self.state.metrics)
        if self.state.service is not None:
            async with self._turn:
                await self.state.service.supervisor.collect_reports(_REPORT_TIMEOUT)
        workers = [] if self.state.service is None else self.state.service.supervisor.workers()
        seen = await loop.run_in_executor(None, _look_at_all, workers)
        assert self._exposition is not None
        page, content_type = self._exposition.render(self._snapshot(seen), accept.decode("latin-1"))
        return await respond(send, 200, [(b"content-type", content_type.encode())], page, request_id)

    def _snapshot(self, workers: tuple[WorkerSeen, ...]) -> Snapshot:
        state, folder = self.state, self.state.folder
        service, backend = state.service, state.backend
        description = (
            {} if service is None or service.supervisor.model is None else service.supervisor.model.description
        )
        return Snapshot(
            version=__version__,
            model_name=state.model_name,
            target_type=description.get("target_type") or folder.spec().get("target_type") or "",
            predictor=description.get("library") or ("custom code" if description.get("hooks") else ""),
            model=None if service is None else self._model(service, workers),
            backend=None
            if backend is None
            else BackendSeen(
                ready=backend.unready is None, in_flight=backend.in_flight, limit=backend.settings.connections
            ),
            shadow=None if state.shadow is None else state.shadow.counts(),
        )

    def _model(self, service: ModelService, workers: tuple[WorkerSeen, ...]) -> ModelSeen:
        settings = self.state.settings
        return ModelSeen(
            state=service.supervisor.state.value,
            states=tuple(state.value for state in ModelState),
            waiting=service.dispatcher.waiting,
            waiting_limit=settings.limits.queue,
            held_bytes=service.dispatcher.bytes_in_flight,
            held_limit=settings.limits.max_bytes_in_flight,
            configured=settings.workers.count,
            worker_states=_WORKER_STATES,
            workers=workers,
        )


def _look_at_all(workers: list[dict[str, Any]]) -> tuple[WorkerSeen, ...]:
    return tuple(
        look_at(WorkerSeen(number=worker["worker"], pid=worker["pid"], state=worker["state"])) for worker in workers
    )
