"""Chat completions: answered whole, or streamed as server-sent events, as OpenAI's clients expect them."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from typing import TYPE_CHECKING, cast

from backline.api.body import ClientDisconnected
from backline.api.endpoint import Headers, respond
from backline.api.error_table import render_error
from backline.api.lookout import OpenRequest
from backline.api.model_routes import ModelEndpoint, reply_headers
from backline.api.observed import note_error, observation_of
from backline.api.one_write import corkable, sender_at_once
from backline.errors import BacklineError, ServerDraining
from backline.observe.observer import CLIENT_LEFT
from backline.observe.usage import TAIL_BYTES, find_usage
from backline.runtime.call import Call
from backline.runtime.chats import ChatStream

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from backline.api.state import ApiState
    from backline.observe.observer import StreamObserver
    from backline.runtime.call import Reply
    from backline.runtime.chats import Chats

logger = logging.getLogger("backline.api")

_DONE = b"data: [DONE]\n\n"
_KEEP_ALIVE = b": keep-alive\n\n"
_STREAM_HEADERS = [
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # nginx would hold it back otherwise
]


class ChatEndpoint(ModelEndpoint):
    """``/chat/completions`` of a model with a ``chat`` hook; many at a time on each worker."""

    def __init__(self, state: ApiState) -> None:
        super().__init__(state, "chat", raw=True, with_request=True, retryable=False, family="openai")

    async def answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See ``ModelEndpoint``."""
        begun = time.perf_counter()
        service = self.state.model
        model = service.supervisor.model
        if model is None or not model.description.get("chats"):
            return await super().answer(scope, receive, send, request_id)
        header, deadline = self.header(scope)
        loop = service.loop
        open_request = OpenRequest(receive, asyncio.current_task(loop), deadline)
        self.state.lookout.open(open_request, loop)
        call: Call | None = None
        chats = service.dispatcher.chats
        try:
            body = await self.read(scope, receive, open_request)
            header["parts"] = [(part.name, part.content_type, part.filename, part.length) for part in body.parts]
            call = Call(
                header=header,
                payload=body.payload,
                request_id=request_id,
                deadline=deadline,
                retryable=False,
                loop=loop,
            )
            observation = observation_of(scope)
            if observation is not None:
                observation.asks_model(call)
            outcome = await self._ask(chats, call, open_request)
            if isinstance(outcome, ChatStream):
                stream = self.observer.stream_opened(self.route(scope), begun)
                try:
                    end = await _Events(outcome, scope, send, request_id, self, stream).pass_on(open_request)
                finally:
                    stream.closed()
                self._count_tokens(scope, end)
                return CLIENT_LEFT if open_request.client_left else 200
        except ClientDisconnected:
            return CLIENT_LEFT
        finally:
            self.state.lookout.close(open_request)
            if call is not None:
                chats.cancel(call)
        if observation is not None:
            observation.seconds = outcome.seconds
        self._count_tokens(scope, bytes(outcome.body[-TAIL_BYTES:]))
        return await respond(send, 200, reply_headers(outcome), outcome.body, request_id)

    def _count_tokens(self, scope: Scope, tail: bytes) -> None:
        tokens = find_usage(tail)
        if tokens is not None:
            self.observer.tokens_used(self.route(scope), *tokens)

    async def _ask(self, chats: Chats, call: Call, open_request: OpenRequest) -> Reply | ChatStream:
        chats.submit(call)
        open_request.wait_for_answer(functools.partial(chats.cancel, call))
        try:
            outcome = await cast("asyncio.Future[Reply | ChatStream]", call.future)
        except asyncio.CancelledError:
            if open_request.client_left:
                raise ClientDisconnected from None
            raise
        return outcome


class _Events:
    """One streamed answer on its way to the client."""

    def __init__(
        self,
        stream: ChatStream,
        scope: Scope,
        send: Send,
        request_id: str,
        endpoint: ChatEndpoint,
        observer: StreamObserver,
    ) -> None:
        self._stream = stream
        self._scope = scope
        self._send = send
        self._request_id = request_id
        self._endpoint = endpoint
        self._state = endpoint.state
        self._observer = observer
        self._send_at_once = sender_at_once(send)
        self._before = b""  # the last event that has gone out, or more

    async def pass_on(self, open_request: OpenRequest) -> bytes:
        """Send head, events and end, and return the last event or more.

        An error in the middle is an event, as the status is out by then.
        """
        stream, send = self._stream, self._send
        transport = corkable(send)
        if transport is not None:
            # Head and first event leave together; where the hook waits in between, the head in this turn of the loop.
            transport.cork()
            asyncio.get_running_loop().call_soon(transport.uncork)
        headers: Headers = [
            (b"content-type", stream.content_type.encode("latin-1")),
            *_STREAM_HEADERS,
            (b"x-request-id", self._request_id.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._send_at_once is not None:
            stream.offer_to(self._take)
        last = b""
        try:
            while not stream.ended:
                last = await stream.read()
                if last:
                    self._note(last)
                if not stream.ended:
                    await send({"type": "http.response.body", "body": last or _KEEP_ALIVE, "more_body": True})
                    last = b""
            if open_request.client_left:
                return b""
            rest = stream.rest()
            if rest:
                self._observer.piece_sent()
            last += rest
            stream.check()
            end = _DONE
        except BacklineError as exc:
            end = self._error_event(exc)
        except asyncio.CancelledError:
            if not self._state.draining:
                raise
            # The server's own doing, at the end of the drain time; this is the end of the task, too.
            end = self._error_event(ServerDraining("the server stopped before the stream was over", retry_after=1))
        await send({"type": "http.response.body", "body": last + end})
        return (self._before + last)[-TAIL_BYTES:]

    def _take(self, event: bytes) -> bool:
        """Send an event without the task; see ``ChatStream.offer_to``."""
        assert self._send_at_once is not None
        if not self._send_at_once({"type": "http.response.body", "body": event, "more_body": True}):
            return False
        self._note(event)
        return True

    def _note(self, event: bytes) -> None:
        self._before = event
        self._observer.piece_sent()

    def _error_event(self, exc: BacklineError) -> bytes:
        note_error(self._scope, exc)
        logger.error(
            "stream broken off: %s: %s",
            exc.code,
            exc.message,
            extra={"request_id": self._request_id, "trace": getattr(exc, "traceback", None)},
        )
        show = self._state.settings.server.show_stacktrace
        error = render_error(exc, family="openai", request_id=self._request_id, show_stacktrace=show)
        self._endpoint.observer.error_answered(self._endpoint.route(self._scope), exc, 200, self._request_id)
        return b"data: " + error.body + b"\n\n"
