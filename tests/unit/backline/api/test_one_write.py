"""Answers leave in one write where nothing stands between, and in the usual way where something does."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from starlette.types import Message
from uvicorn.protocols.http.flow_control import FlowControl

from backline.api.endpoint import respond
from backline.api.one_write import CorkableTransport, corkable, sender_at_once


class Recorder:
    """A transport that notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[bytes | str] = []

    def write(self, data: bytes) -> None:
        self.done.append(data)

    def close(self) -> None:
        self.done.append("close")

    def is_closing(self) -> bool:
        return "close" in self.done

    def get_extra_info(self, name: str) -> str:
        return f"info of {name}"


class Cycle:
    """What uvicorn's cycle does with an answer, as far as writes go."""

    def __init__(self, transport: CorkableTransport, *, keep_alive: bool = True) -> None:
        self.transport = transport
        self.keep_alive = keep_alive
        self.flow = FlowControl(cast("asyncio.Transport", transport))

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.transport.write(b"head ")
        else:
            self.transport.write(message["body"])
            if not self.keep_alive:
                self.transport.close()


def corkable_transport() -> tuple[CorkableTransport, Recorder]:
    recorder = Recorder()
    return CorkableTransport(cast("asyncio.Transport", recorder)), recorder


def test_an_answer_is_written_in_one_piece() -> None:
    transport, recorder = corkable_transport()
    asyncio.run(respond(Cycle(transport).send, 200, [], b"body", "id"))
    assert recorder.done == [b"head body"]
    transport.write(b"later")
    assert recorder.done == [b"head body", b"later"]


def test_an_answer_that_ends_the_connection_is_written_before_it_is_closed() -> None:
    transport, recorder = corkable_transport()
    asyncio.run(respond(Cycle(transport, keep_alive=False).send, 200, [], b"body", "id"))
    assert recorder.done == [b"head body", "close"]


def test_what_a_failing_answer_has_written_is_not_kept_back() -> None:
    transport, recorder = corkable_transport()

    class Failing(Cycle):
        async def send(self, message: Message) -> None:
            await super().send(message)
            if message["type"] == "http.response.body":
                raise ConnectionError

    async def main() -> None:
        try:
            await respond(Failing(transport).send, 200, [], b"body", "id")
        except ConnectionError:
            recorder.done.append("raised")

    asyncio.run(main())
    assert recorder.done == [b"head body", "raised"]


def test_a_middleware_that_wraps_send_sees_both_messages() -> None:
    transport, recorder = corkable_transport()
    cycle = Cycle(transport)
    seen: list[str] = []

    async def send(message: Message) -> None:
        seen.append(message["type"])
        await cycle.send(message)

    assert corkable(send) is None
    asyncio.run(respond(send, 200, [], b"body", "id"))
    assert seen == ["http.response.start", "http.response.body"]
    assert recorder.done == [b"head ", b"body"]


def test_a_piece_is_sent_without_a_task_unless_its_client_does_not_keep_up() -> None:
    transport, recorder = corkable_transport()
    cycle = Cycle(transport)
    send_at_once = sender_at_once(cycle.send)
    assert send_at_once is not None
    piece = {"type": "http.response.body", "body": b"piece", "more_body": True}
    assert send_at_once(piece)
    cycle.flow.pause_writing()
    assert not send_at_once(piece)
    cycle.flow.resume_writing()
    assert send_at_once(piece)
    assert recorder.done == [b"piece", b"piece"]


def test_a_failing_send_is_left_to_the_task() -> None:
    transport, recorder = corkable_transport()

    class Failing(Cycle):
        async def send(self, message: Message) -> None:
            raise ConnectionError

    send_at_once = sender_at_once(Failing(transport).send)
    assert send_at_once is not None
    assert not send_at_once({"type": "http.response.body", "body": b"piece"})
    assert recorder.done == []


def test_past_a_middleware_nothing_is_sent_at_once() -> None:
    cycle = Cycle(corkable_transport()[0])

    async def send(message: Message) -> None:
        await cycle.send(message)

    assert sender_at_once(send) is None


def test_whatever_else_is_asked_of_it_the_transport_itself_answers() -> None:
    transport, recorder = corkable_transport()
    info: Any = transport.get_extra_info("peername")
    assert info == "info of peername"
    assert not transport.is_closing()
    recorder.close()
    assert transport.is_closing()
