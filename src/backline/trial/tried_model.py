"""A model that is being tried: asked by itself, in one worker, through the dispatcher that a server has."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from backline.errors import BacklineError, DeadlineExceeded, WorkerDied, WorkerReported
from backline.runtime.call import BatchKey, Call
from backline.runtime.payload import Payload
from backline.runtime.service import ModelService, running
from backline.runtime.supervisor import ModelState
from backline.trial.answers import Cells, rows_of
from backline_worker.channel import Kind
from backline_worker.codecs.formats import CSV, JSON

if TYPE_CHECKING:
    from backline.config.model_folder import ModelFolder

_REFUSALS = frozenset(
    [
        "empty_body",
        "decode_failed",
        "unsupported_media_type",
        "unsupported_encoding",
        "decompressed_too_large",
        "missing_part",
        "not_acceptable",
        "schema_mismatch",
    ]
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a request: rows of an answer, its body, or an error."""

    rows: tuple[Cells, ...] | None = None
    body: bytes = b""
    content_type: str = ""
    error: BacklineError | None = None

    @property
    def code(self) -> str:
        """The error's code; empty for an answer."""
        return "" if self.error is None else self.error.code

    @property
    def refused(self) -> bool:
        """Whether the model's side said no in an orderly way: a 4xx to the client."""
        if isinstance(self.error, WorkerReported) and self.code == "user_http_error":
            return int(self.error.details.get("status", 500)) < 500
        return self.code in _REFUSALS

    @property
    def told(self) -> str:
        """What it was, in few words."""
        if self.error is None:
            return "answered"
        first = self.error.message.strip().splitlines()[0] if self.error.message.strip() else self.code
        return first if len(first) <= 300 else f"{first[:300]}..."


class TriedModel:
    """The loaded model. Made by ``tried_model``, which owns the worker."""

    def __init__(self, service: ModelService, seconds: float) -> None:
        assert service.supervisor.model is not None
        self._service = service
        self._seconds = seconds
        self.description: dict[str, Any] = service.supervisor.model.description
        self.load_seconds = service.supervisor.model.load_seconds
        self.calls = 0
        kind = self.description["target_type"]
        self.operation = {"unstructured": "unstructured", "transform": "transform"}.get(kind, "predict")
        if self.description["chat"] and "score" not in self.description["hooks"] and kind != "unstructured":
            self.operation = "chat"

    @property
    def reads_tables(self) -> bool:
        """Whether the model takes rows."""
        return self.operation in ("predict", "transform")

    async def ask(self, body: bytes, content_type: str) -> Outcome:
        """Send one request and wait for its answer."""
        return (await self.ask_together([body], content_type))[0]

    async def ask_together(self, bodies: Sequence[bytes], content_type: str) -> list[Outcome]:
        """Send requests at once, so that those that wait can share a call of the model."""
        calls = [self._submit(body, content_type) for body in bodies]
        return [await self._outcome(call) for call in calls]

    def model_calls(self) -> int:
        """Return how many calls of the model were made; a shared one counts once."""
        return sum(worker["model_calls"] for worker in self._service.supervisor.workers())

    async def offer_schema(self, body: bytes, content_type: str) -> dict[str, Any]:
        """Return the types of the columns and rules that they keep. Raises ``BacklineError``."""
        path = self._service.payloads.new_path() + {CSV: ".csv", JSON: ".json"}.get(content_type, ".jsonl")
        await asyncio.to_thread(_write, path, body)
        job = {"op": "offer", "input": path, "content_type": content_type}
        return (await self._call(Kind.SCORE, job, Payload(size=0, data=b"")).future).header

    def _submit(self, body: bytes, content_type: str) -> Call:
        sink = self._service.payloads.sink()
        sink.write(body)
        payload = sink.finish()
        accept = CSV if self.operation == "transform" else "" if self.operation == "unstructured" else JSON
        header: dict[str, Any] = {"operation": self.operation, "accept": accept}
        header["parts"] = [("X", content_type, None, len(body))]
        if self.operation in ("unstructured", "chat"):
            header.update(headers={"content-type": content_type}, query={})
        key = BatchKey(content_type, None, accept) if self.operation == "predict" and payload.data is not None else None
        return self._call(Kind.REQUEST, header, payload, key)

    def _call(self, kind: Kind, header: dict[str, Any], payload: Payload, key: BatchKey | None = None) -> Call:
        self.calls += 1
        call = Call(
            kind=kind,
            header=header,
            payload=payload,
            request_id=f"trial-{self.calls}",
            deadline=asyncio.get_running_loop().time() + self._seconds,
            retryable=False,  # what kills a worker is to be seen the first time
            batch_key=key,
        )
        self._service.dispatcher.submit(call)
        return call

    async def _outcome(self, call: Call) -> Outcome:
        try:
            reply = await call.future
        except (WorkerReported, WorkerDied, DeadlineExceeded) as exc:
            return Outcome(error=exc)
        body = bytes(reply.body)
        if not self.reads_tables:
            return Outcome(body=body, content_type=reply.content_type)
        try:
            rows = tuple(rows_of(body, reply.content_type))
        except (ValueError, KeyError, TypeError) as exc:
            return Outcome(error=BacklineError(f"the answer ({reply.content_type}) has no rows: {exc}"))
        return Outcome(rows=rows, body=body, content_type=reply.content_type)


def _write(path: str, body: bytes) -> None:
    with open(path, "xb") as file:  # noqa: PTH123  (a name given out by the payload directory)
        file.write(body)


@contextlib.asynccontextmanager
async def tried_model(folder: ModelFolder, *, seconds: float) -> AsyncIterator[TriedModel]:
    """Load the model in one worker, with batching on, for the block. ``seconds`` bounds each request.

    Raises ``ModelLoadFailed``.
    """
    given = folder.settings
    settings = dataclasses.replace(
        given,
        workers=dataclasses.replace(given.workers, count=1),
        batch=dataclasses.replace(given.batch, mode="on", delay=0.0),
        limits=dataclasses.replace(given.limits, queue=max(1024, given.limits.queue), poison_time=0.0),
    )
    async with running(settings, folder.spec()) as service:
        if await asyncio.shield(service.supervisor.first_outcome) is ModelState.FAILED:
            assert service.supervisor.failure is not None
            raise service.supervisor.failure
        yield TriedModel(service, seconds)
