"""Whatever goes wrong in an endpoint, the client gets an answer in the documented shape."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from backline.api.endpoint import Endpoint
from backline.api.state import ApiState
from backline.config.model_folder import unusable_folder
from backline.config.settings import Settings
from backline.errors import ConfigError


class Faulty(Endpoint):
    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        raise KeyError("secret of the server")


class Slow(Endpoint):
    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        await asyncio.Event().wait()
        return 200


def make_state(folder: Path) -> ApiState:
    settings = Settings()
    return ApiState(settings, unusable_folder(settings, ConfigError(str(folder))))


async def call(endpoint: Endpoint, sent: list[Any]) -> None:
    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    await endpoint(
        {"type": "http", "method": "GET", "path": "/", "headers": [(b"x-request-id", b"id-1")]}, receive, send
    )


def test_a_fault_of_the_server_is_answered_and_logged_but_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Any] = []
    with caplog.at_level(logging.ERROR, "backline.api"):
        asyncio.run(call(Faulty(make_state(tmp_path)), sent))
    start, body = sent
    content = json.loads(body["body"])
    assert start["status"] == 500
    assert (b"x-request-id", b"id-1") in start["headers"]
    assert content["code"] == "internal_error"
    assert "secret" not in content["message"]
    assert "secret of the server" in caplog.text


@pytest.mark.parametrize("draining", [False, True])
def test_a_cancelled_request_is_answered_only_where_the_server_stops(tmp_path: Path, draining: bool) -> None:
    sent: list[Any] = []
    state = make_state(tmp_path)

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(call(Slow(state), sent))
        await asyncio.sleep(0)
        state.draining = draining
        task.cancel()
        if draining:
            await task
        else:
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    if draining:
        assert sent[0]["status"] == 503
        assert (b"connection", b"close") in sent[0]["headers"]
        assert json.loads(sent[1]["body"])["code"] == "draining"
    else:
        assert not sent
