"""A model being served: payload directory, dispatcher and supervisor as one thing with one lifetime."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from backline.config.python import is_to_be_built
from backline.errors import ConfigError, ServerDraining
from backline.observe.observer import SILENT
from backline.runtime.confinement import confinement
from backline.runtime.dispatcher import Dispatcher
from backline.runtime.payload import PayloadDirectory
from backline.runtime.supervisor import Supervisor
from backline.runtime.threads import threads_per_worker
from backline.runtime.worker import Worker, WorkerPlan
from backline.runtime.zygote import become_parent

if TYPE_CHECKING:
    from backline.config.settings import Settings
    from backline.observe.observer import Observer
    from backline.runtime.environments.prepare import ModelPython
    from backline.runtime.launch import Launched


class ModelService:
    """What the API and the batch commands talk to. Made by ``running``, which owns everything in it.

    ``loop`` is the event loop that it all runs on: before Python 3.12 asking asyncio for it is a system call each time.
    """

    def __init__(
        self,
        settings: Settings,
        spec: dict[str, Any],
        payloads: PayloadDirectory,
        launched: Launched | None,
        observer: Observer,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.payloads = payloads
        self.dispatcher = Dispatcher(
            settings.limits,
            settings.workers,
            settings.batch,
            on_out_of_memory=self._replace,
            keep_alive=settings.server.stream_keep_alive,
            observer=observer,
        )
        payloads.bound(settings.limits.max_bytes_in_flight, lambda: self.dispatcher.bytes_in_flight)
        self.python: ModelPython | None = None
        if is_to_be_built(settings.workers.python):
            from backline.runtime.environments.prepare import ModelPython  # late: most servers need none of it

            self.python = ModelPython(settings)
        self._later_pythons: list[ModelPython] = []
        confined = confinement(settings.security)
        payloads.belong_to(confined)
        plan = WorkerPlan(
            python=settings.workers.python,
            spec=spec,
            payload_directory=payloads.path,
            math_threads=threads_per_worker(settings.workers),
            confinement=confined,
            preload=settings.workers.preload,
        )
        if settings.workers.preload:
            become_parent()
        self.supervisor = Supervisor(
            plan,
            settings.workers,
            self.dispatcher,
            log_lines_per_second=settings.log.worker_lines_per_second,
            launched=launched,
            python=self.python,
            observer=observer,
        )

    @property
    def idle(self) -> bool:
        """Whether every accepted call is answered."""
        dispatcher = self.dispatcher
        return not dispatcher.waiting and dispatcher.chats.idle and not self.supervisor.has_running_call()

    async def find_python(self, settings: Settings) -> str:
        """Return the interpreter for a model that is to be loaded anew, after building its environment if need be.

        The environment is held until the end of the service. Raises ``EnvironmentFailed``, or ``SettingError``.
        """
        if not is_to_be_built(settings.workers.python):
            return settings.workers.python
        from backline.runtime.environments.prepare import ModelPython  # late: as above

        python = ModelPython(settings)
        self._later_pythons.append(python)
        return await python.wait()

    def close(self) -> None:
        """Let go of the environments of the model."""
        for python in (self.python, *self._later_pythons):
            if python is not None:
                python.close()

    def _replace(self, worker: Worker) -> None:
        self.supervisor.recycle(worker, "memory_limit")


@contextlib.asynccontextmanager
async def running(
    settings: Settings,
    spec: dict[str, Any],
    *,
    problem: ConfigError | None = None,
    launched: Launched | None = None,
    observer: Observer = SILENT,
) -> AsyncIterator[ModelService]:
    """Start the workers and return at once, before they are ready; stop them on leaving.

    With a ``problem`` no worker is started, and everything is answered with it. ``launched`` is a process for this
    ``spec`` that has been started already; it is taken over as that of the first worker. ``observer`` is
    told what happens.

    Cancellation: the workers are killed and waited for.
    """
    payloads = PayloadDirectory()
    try:
        service = ModelService(settings, spec, payloads, launched, observer)
        async with asyncio.TaskGroup() as group:
            group.create_task(service.supervisor.run(problem=problem))
            try:
                yield service
            finally:
                await service.supervisor.stop()
                # Whoever is still there, or comes, waits for nobody.
                service.dispatcher.fail(ServerDraining("the server has stopped", retry_after=1))
                service.close()
    except BaseExceptionGroup as group:
        # What the caller's block raises should reach the caller as it was, not wrapped by our task group.
        if len(group.exceptions) == 1:
            raise group.exceptions[0] from None
        raise
    finally:
        payloads.close()
