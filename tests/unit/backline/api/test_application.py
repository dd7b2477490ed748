"""The short way to an endpoint is taken where nobody wants to see the request on its way, and only there."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from backline.api.application import Application


class Echo:
    """Answers with the keys that the layers above have put into the scope."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": ",".join(sorted(scope)).encode()})


class Mark:
    """A middleware that leaves its mark."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "marked": True}, receive, send)


def make_app() -> Application:
    echo = Echo()
    return Application(routes=[Route("/echo", echo)], endpoints={"/echo": echo})


def ask(app: Application, path: str) -> tuple[int, bytes]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "GET", "path": path, "headers": [], "query_string": b"", "root_path": ""}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], sent[1]["body"]


def test_an_endpoint_is_reached_without_routing() -> None:
    status, keys = ask(make_app(), "/echo")
    assert status == 200
    assert b"router" not in keys.split(b",")


def test_a_subtree_answers_what_is_below_it_without_routing_and_nothing_beside_it() -> None:
    echo = Echo()
    app = Application(routes=[Mount("/tree", echo)], endpoints={}, subtrees={"/tree": echo})
    for path in ("/tree/", "/tree/a/b"):
        status, keys = ask(app, path)
        assert status == 200
        assert b"router" not in keys.split(b",")
    assert ask(app, "/trees/a")[0] == 404


def test_a_subtree_is_reached_through_a_middleware_that_wants_to_see_its_requests() -> None:
    echo = Echo()
    app = Application(routes=[Mount("/tree", echo)], endpoints={}, subtrees={"/tree": echo})
    app.add_middleware(Mark)
    assert b"marked" in ask(app, "/tree/a")[1].split(b",")


def test_other_paths_are_routed_as_ever() -> None:
    assert ask(make_app(), "/nowhere")[0] == 404
    assert ask(make_app(), "/docs")[0] == 200


def test_a_middleware_sees_the_requests_of_the_endpoints() -> None:
    app = make_app()
    app.add_middleware(Mark)
    status, keys = ask(app, "/echo")
    assert status == 200
    assert {b"marked", b"router"} <= set(keys.split(b","))
