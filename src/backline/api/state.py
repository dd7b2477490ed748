"""What every endpoint shares while the server runs."""

from __future__ import annotations

import dataclasses
import itertools
import re
import secrets
import time
from typing import TYPE_CHECKING

from backline.api.lookout import Lookout
from backline.observe.metrics import Metrics

if TYPE_CHECKING:
    from backline.api.extension import Extension
    from backline.config.model_folder import ModelFolder
    from backline.config.settings import Settings
    from backline.observe.loop_watch import LoopWatch
    from backline.observe.observer import Observer
    from backline.parity.shadow import Shadow
    from backline.proxy.generate import TextGenerator
    from backline.proxy.service import Backend
    from backline.runtime.backend_process import BackendProcess
    from backline.runtime.reload import Reloader
    from backline.runtime.service import ModelService

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")


@dataclasses.dataclass(slots=True)
class ApiState:
    """Settings and folder from the start; the rest while the application's lifespan lasts.

    ``service`` is the model, which a sidecar does not have; ``backend`` is what ``--backend`` names, if anything, and
    ``backend_process`` its process where it is ours; ``generator`` answers rows with it.
    ``leaving``: the server was told to stop, so it is not ready; it still takes requests, until it is ``draining``.
    Both are set by ``run.py`` only, and nobody else keeps a note of it.
    ``extension`` is what the operator's own file has added, and ``loop_watch`` looks after it.
    """

    settings: Settings
    folder: ModelFolder
    service: ModelService | None = None
    backend: Backend | None = None
    backend_process: BackendProcess | None = None
    generator: TextGenerator | None = None
    extension: Extension | None = None
    loop_watch: LoopWatch | None = None
    reloader: Reloader | None = None
    shadow: Shadow | None = None
    leaving: bool = False
    draining: bool = False
    metrics: Metrics = dataclasses.field(default_factory=Metrics)
    routes: dict[str, str] = dataclasses.field(default_factory=dict)  # from each exact path to its route's template
    lookout: Lookout = dataclasses.field(default_factory=Lookout)
    started: float = dataclasses.field(default_factory=time.time)
    # A random start and a counter: unique ids without the cost of a random number each.
    _id_prefix: str = dataclasses.field(default_factory=lambda: secrets.token_hex(6))
    _ids: itertools.count[int] = dataclasses.field(default_factory=itertools.count)

    @property
    def observer(self) -> Observer:
        """Who is told what happens."""
        return self.metrics

    @property
    def model_name(self) -> str:
        """What the model is called in metrics: the name that its metadata gives, or that of its directory."""
        if self.settings.backend.sidecar:
            return ""
        return str(self.folder.raw_metadata.get("name") or self.settings.model.code_dir.resolve().name)

    @property
    def model(self) -> ModelService:
        """The running service; there is one whenever a request can arrive."""
        assert self.service is not None
        return self.service

    @property
    def idle(self) -> bool:
        """Whether every accepted request is answered, and no body is on its way."""
        return (
            (self.service is None or self.service.idle)
            and (self.backend is None or self.backend.idle)
            and not self.lookout.reading
        )

    def request_id(self, given: bytes | None) -> str:
        """Return the client's ``X-Request-ID`` if it is harmless, else a new one."""
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode("ascii")
        return f"{self._id_prefix}-{next(self._ids):x}"
