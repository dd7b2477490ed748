"""The chats of a worker, which run beside each other and beside the main thread, which predicts.

::

    channel ──▶ reader thread ──predictions──▶ main thread
                     │
                     ├──chat──▶ a thread, where the hook is a plain function (and reads its stream, if it returns one)
                     ├──chat──▶ a task on the hooks' event loop, where it is an async one
                     └──credit, cancel──▶ the chat that it is for

Every chat ends with one frame: ANSWER, ERROR or STREAM_END, also when it is cancelled. An asynchronous hook is
cancelled where it waits, a plain one at its next yield, as Python has no way to stop a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import queue
import threading
import time
from typing import TYPE_CHECKING, Any, Callable, Dict, Mapping, Optional, Union

from .channel import STREAM_WINDOW, Kind, encode_chunk, encode_prefix
from .contract import chat as chat_contract
from .contract import chat_stream
from .errors import ReportedError
from .types import Answer, Request

if TYPE_CHECKING:
    from .model import Model
    from .output import Output
    from .tracing import Tracing

Ending = Union[Answer, ReportedError, None]
"""How a chat ends: with one answer, with an error, or with the end of its stream."""


class Chats:
    """The open chats. The reader thread calls ``begin``, ``grant`` and ``cancel``."""

    def __init__(
        self,
        model: Model,
        output: Output,
        tracing: Tracing,
        *,
        write: Callable[[bytes], None],
        finish: Callable[[int, Ending, Mapping[str, float]], None],
        threads: int,
    ) -> None:
        """``write`` puts a frame on the channel, ``finish`` the last one of a chat; both from any thread."""
        self.model = model
        self.write = write
        self._output = output
        self._tracing = tracing
        self._finish = finish
        self._open: Dict[int, _Chat] = {}
        self._pool = _ThreadPool(threads)
        self._is_async = model.chats_are_async
        self._loop = model.hook_loop.loop

    def begin(self, request_id: int, request: Request) -> None:
        """Start to answer a chat; returns at once."""
        chat = self._open[request_id] = _Chat(self, request_id, request.trace)
        if self._is_async:
            self._to_loop(chat, functools.partial(self._ask_async, chat, request))
        else:
            self._pool.submit(functools.partial(self._answer_in_thread, chat, request))

    def grant(self, request_id: int, size: int) -> None:
        """So many bytes of a stream have left the server."""
        chat = self._open.get(request_id)
        if chat is not None:
            chat.grant(size)

    def cancel(self, request_id: int) -> None:
        """Nobody waits for this chat any more."""
        chat = self._open.get(request_id)
        if chat is not None:
            chat.cancel()

    def end(self, chat: _Chat, ending: Ending) -> None:
        """Send the last frame of a chat."""
        del self._open[chat.id]
        self._finish(chat.id, ending, chat.seconds())

    def in_loop(self, call: Callable[[], Any]) -> None:
        """Call something on the event loop of the hooks."""
        self._loop.call_soon_threadsafe(call)

    # --- plain hooks, in a thread each

    def _answer_in_thread(self, chat: _Chat, request: Request) -> None:
        self._tracing.attach(chat.trace)  # for good: thread and task have a context of their own for each chat
        with self._output.within(chat.id):
            try:
                chat.request = self.model.read_chat(request)
                if chat.is_cancelled():
                    ending: Ending = None
                else:
                    result = self.model.start_chat(chat.request)
                    if inspect.isawaitable(result) or hasattr(result, "__aiter__"):
                        self._to_loop(chat, functools.partial(_give, result))
                        return
                    ending = self._read_stream(chat, result) if chat_contract.is_stream(result) else chat.answer(result)
            except BaseException as exc:
                ending = self.model.chat_failed(exc)
        self.end(chat, ending)

    def _read_stream(self, chat: _Chat, stream: Any) -> Ending:
        try:
            for chunk in stream:
                if chat.is_cancelled():
                    break
                data = chat.take(chunk)
                if data and not chat.has_room():
                    _wait_for_room(chat)
                if chat.is_cancelled():
                    break
                chat.send(data)
            return chat.end_of_stream()
        finally:
            close = getattr(stream, "close", None)
            if callable(close):
                close()

    # --- asynchronous hooks, on the event loop

    def _to_loop(self, chat: _Chat, start: Callable[[], Any]) -> None:
        self.in_loop(functools.partial(chat.start_task, self._answer_on_loop, start))

    async def _ask_async(self, chat: _Chat, request: Request) -> Any:
        chat.request = self.model.read_chat(request)
        return self.model.start_chat(chat.request)

    async def _answer_on_loop(self, chat: _Chat, start: Callable[[], Any]) -> None:
        self._tracing.attach(chat.trace)
        with self._output.within(chat.id):
            try:
                result = await start()
                if inspect.isawaitable(result):
                    result = await result
                if hasattr(result, "__aiter__"):
                    ending = await self._read_async_stream(chat, result)
                elif chat_contract.is_stream(result):  # a plain stream would hold up the loop
                    self._pool.submit(functools.partial(self._go_on_in_thread, chat, result))
                    return
                else:
                    ending = chat.answer(result)
            except BaseException as exc:
                ending = None if chat.is_cancelled() else self.model.chat_failed(exc)
        self.end(chat, ending)

    async def _read_async_stream(self, chat: _Chat, stream: Any) -> Ending:
        try:
            async for chunk in stream:
                data = chat.take(chunk)
                while data and not chat.has_room():
                    await self._wait_for_room(chat)
                if chat.is_cancelled():  # and the hook took no notice
                    break
                chat.send(data)
            return chat.end_of_stream()
        finally:
            await _aclose(stream)

    async def _wait_for_room(self, chat: _Chat) -> None:
        ready = self._loop.create_future()

        def wake() -> None:
            if not ready.done():
                ready.set_result(None)

        if not chat.has_room(functools.partial(self.in_loop, wake)):
            await ready

    def _go_on_in_thread(self, chat: _Chat, stream: Any) -> None:
        self._tracing.attach(chat.trace)
        with self._output.within(chat.id):
            try:
                ending = self._read_stream(chat, stream)
            except BaseException as exc:
                ending = self.model.chat_failed(exc)
        self.end(chat, ending)


class _Chat:
    """One chat: what it is answered with, and how much of that may be on its way."""

    def __init__(self, chats: Chats, request_id: int, trace: Optional[Mapping[str, str]]) -> None:
        self.id = request_id
        self.trace = trace
        self._cancelled = False
        self.request: Optional[chat_contract.ChatRequest] = None
        self._chats = chats
        self._began = time.perf_counter()
        self._first_chunk = 0.0
        self._streaming = False
        self._collector: Optional[chat_stream.Collector] = None
        self._lock = threading.Lock()
        self._room = STREAM_WINDOW
        self._wake: Optional[Callable[[], None]] = None
        self._task: Optional[asyncio.Task[None]] = None

    # --- from the reader thread

    def grant(self, size: int) -> None:
        with self._lock:
            self._room += size
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()

    def cancel(self) -> None:
        self._cancelled = True
        with self._lock:
            wake, self._wake = self._wake, None
        if wake is not None:
            wake()
        if self._task is not None:
            self._chats.in_loop(self._task.cancel)

    # --- from who answers

    def is_cancelled(self) -> bool:
        """Whether nobody waits for it any more."""
        return self._cancelled

    def start_task(self, answer: Callable[..., Any], start: Callable[[], Any]) -> None:
        """Answer in a task; called on the loop."""
        self._task = asyncio.get_running_loop().create_task(answer(self, start))
        if self._cancelled:
            self._task.cancel()

    def has_room(self, wake: Optional[Callable[[], None]] = None) -> bool:
        """Whether a chunk may be sent; where not, ``wake`` is called once when this is to be asked again."""
        with self._lock:
            if self._room > 0 or self._cancelled:
                return True
            self._wake = wake
            return False

    def take(self, chunk: Any) -> bytes:
        """Return what to send for a chunk of the hook's stream; nothing, where the client wants no stream."""
        assert self.request is not None
        if self.request.stream:
            return chat_stream.encode_chunk(chunk, self.request.association)
        if self._collector is None:
            self._collector = chat_stream.Collector()
        self._collector.add(chunk)
        return b""

    def send(self, data: bytes) -> None:
        """Send a piece of the stream; there must be room."""
        if not data:
            return
        with self._lock:
            self._room -= len(data)
        if self._streaming:
            self._chats.write(encode_chunk(self.id, data))
        else:
            self._begin_stream(data)

    def answer(self, result: Any) -> Ending:
        """Send what is not the end for a hook that returned a whole completion, and return the end."""
        assert self.request is not None
        if not self.request.stream:
            return chat_contract.write_completion(result, self.request.association)
        completion = chat_contract.completion_fields(result)
        chunks = chat_stream.completion_to_chunks(completion, with_usage=self.request.with_usage)
        self._begin_stream(b"".join(chat_stream.encode_chunk(chunk, self.request.association) for chunk in chunks))
        return None

    def end_of_stream(self) -> Ending:
        """Return how a stream that the hook has ended is ended for the client."""
        assert self.request is not None
        if self._cancelled:
            return None
        if self._collector is not None or not self.request.stream:
            collector = self._collector or chat_stream.Collector()
            return chat_contract.write_completion(collector.completion(), self.request.association)
        if not self._streaming:
            self._begin_stream(b"")
        return None

    def seconds(self) -> Dict[str, float]:
        """Return how long it took: in all, and to the first chunk of a stream."""
        seconds = {"predict": time.perf_counter() - self._began}
        if self._first_chunk:
            seconds["first_chunk"] = self._first_chunk
        return seconds

    def _begin_stream(self, data: bytes) -> None:
        self._streaming = True
        self._first_chunk = time.perf_counter() - self._began
        header = {"content_type": chat_stream.CONTENT_TYPE}
        self._chats.write(encode_prefix(Kind.STREAM, self.id, header, len(data)) + data)


class _ThreadPool:
    """At most ``size`` threads, made when they are needed. None of them keeps the process from ending."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._idle = threading.Semaphore(0)
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def submit(self, work: Callable[[], None]) -> None:
        self._work.put(work)
        if not self._idle.acquire(blocking=False) and self._left:
            self._left -= 1
            threading.Thread(target=self._run, name="chat", daemon=True).start()

    def _run(self) -> None:
        # Folders from before asyncio.run() ask for the thread's event loop and run it themselves.
        asyncio.set_event_loop(asyncio.new_event_loop())
        while True:
            work = self._work.get()
            # What a chat puts into context variables is gone with it.
            contextvars.copy_context().run(work)
            self._idle.release()


def _wait_for_room(chat: _Chat) -> None:
    ready = threading.Event()
    while not chat.has_room(ready.set):
        ready.wait()
        ready.clear()


async def _give(result: Any) -> Any:
    return result


async def _aclose(stream: Any) -> None:
    """Close an asynchronous generator, or the stream object of a client library."""
    for name in ("aclose", "close"):
        close = getattr(stream, name, None)
        if callable(close):
            closing = close()
            if inspect.isawaitable(closing):
                await closing
            return
