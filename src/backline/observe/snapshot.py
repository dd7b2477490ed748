"""What is only looked at when somebody asks: the state of queue, workers and backend, as plain values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSeen:
    """A worker at this moment; memory and processor time are ``None`` where the system does not tell."""

    number: int
    pid: int | None
    state: str
    resident_bytes: int | None = None
    proportional_bytes: int | None = None
    cpu_seconds: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelSeen:
    """The model behind the server at this moment. ``state`` is one of ``states``."""

    state: str
    states: tuple[str, ...]
    waiting: int
    waiting_limit: int
    held_bytes: int
    held_limit: int
    configured: int
    worker_states: tuple[str, ...]
    workers: tuple[WorkerSeen, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendSeen:
    """The LLM backend at this moment."""

    ready: bool
    in_flight: int
    limit: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All of it. ``model`` is ``None`` for a sidecar, ``backend`` and ``shadow`` where there is none."""

    version: str
    model_name: str
    target_type: str
    predictor: str
    model: ModelSeen | None
    backend: BackendSeen | None
    shadow: Mapping[str, int] | None = None
    """How many requests had which outcome."""
