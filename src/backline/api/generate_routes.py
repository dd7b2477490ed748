"""Predictions of a text-generation model that is an LLM backend: rows in, a text for each of them out.

The server reads no table. A worker takes the prompts out of the rows, the server asks the backend for the texts, by the
connections that it has to it, and a worker writes them in the format that was asked for.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from backline.api.body import ClientDisconnected
from backline.api.model_routes import ModelEndpoint
from backline.errors import DeadlineExceeded
from backline.runtime.call import Call, Reply

if TYPE_CHECKING:
    from starlette.types import Scope

    from backline.api.lookout import OpenRequest


class PredictEndpoint(ModelEndpoint):
    """``/predict`` and its other names."""

    async def ask(self, call: Call, open_request: OpenRequest, scope: Scope) -> Reply:
        """See ``ModelEndpoint``."""
        generator = self.state.generator
        ready = self.state.model.supervisor.model
        if generator is None or ready is None or not ready.description["generates"]:
            return await super().ask(call, open_request, scope)
        if self.state.backend_process is not None:
            self.state.backend_process.check_accepting()
        call.header = {**call.header, "operation": "prompts"}
        call.batch_key = None
        prompts: list[str] = json.loads(bytes((await super().ask(call, open_request, scope)).body))
        authorization = dict(scope["headers"]).get(b"authorization")
        open_request.wait_for_answer(open_request.give_up)
        try:
            async with asyncio.timeout_at(call.deadline):
                texts = await generator.generate(prompts, authorization)
        except TimeoutError:
            raise DeadlineExceeded(
                "the deadline passed before the backend had answered all rows", in_queue=False
            ) from None
        except asyncio.CancelledError:
            if open_request.client_left:
                raise ClientDisconnected from None
            raise
        return await super().ask(self._call_with(texts, call), open_request, scope)

    def _call_with(self, texts: list[str], call: Call) -> Call:
        sink = self.state.model.payloads.sink()
        sink.write(json.dumps(texts).encode())
        payload = sink.finish()
        header: dict[str, Any] = {
            "operation": "texts",
            "accept": call.header.get("accept", ""),
            "parts": [("X", "application/json", None, payload.size)],
        }
        return Call(
            header=header, payload=payload, request_id=call.request_id, deadline=call.deadline, retryable=True,
            client=call.client,
        )  # fmt: skip
