"""Texts from an LLM backend, one for the prompt of each row: several at a time, the answers in the rows' order."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from backline.errors import BackendBroken, BackendBusy, BackendDown, BackendTooSlow, BacklineError, GenerationFailed
from backline.observe.gen_ai import ChatWatch, operation_of
from backline.observe.tracing import current_request
from backline.proxy.port import BackendRequest

if TYPE_CHECKING:
    from backline.config.settings import GenerationSettings
    from backline.proxy.service import Backend

_MAX_ANSWER_BYTES = 16 << 20
_TRIES = 4
_FIRST_PAUSE = 0.5  # seconds before a second try; each further one is twice as long
_LONGEST_PAUSE = 30.0
_SHOWN = 300  # characters of what the backend says is wrong
_BUSY = (429, 503)  # it has not begun with the request, and says so


class _Busy(Exception):
    """The backend takes no more at the moment; ``after`` is in seconds, where it says so."""

    def __init__(self, problem: BacklineError, after: float | None = None) -> None:
        self.problem = problem
        self.after = after


class TextGenerator:
    """Asks the backend for chat completions."""

    def __init__(self, backend: Backend, settings: GenerationSettings) -> None:
        self._backend = backend
        self._settings = settings
        self._model: str | None = settings.model

    async def generate(self, prompts: Sequence[str], authorization: bytes | None) -> list[str]:
        """Return a text for each prompt.

        The first row that fails ends the whole: what is under way is cancelled, and its connections closed. Raises
        ``GenerationFailed``, which names the row, or ``BackendDown`` and the like where it is no row's fault.
        Cancellation: the same.
        """
        headers = self._headers(authorization)
        texts = [""] * len(prompts)
        rows = iter(enumerate(prompts))

        async def work() -> None:
            for row, prompt in rows:
                try:
                    texts[row] = await self._ask(prompt, model, headers)
                except GenerationFailed as exc:
                    exc.place(row + 1, len(prompts))
                    raise

        with self._backend.busy():
            model = self._model or await self._first_model(headers)
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(min(self._settings.concurrency, len(prompts))):
                        group.create_task(work())
            except BaseExceptionGroup as exceptions:
                raise _first(exceptions) from None
        return texts

    def _headers(self, authorization: bytes | None) -> list[tuple[bytes, bytes]]:
        headers = [
            (b"host", self._backend.address.authority),
            (b"user-agent", b"backline"),
            (b"accept", b"application/json"),
        ]
        key = authorization or self._backend.authorization
        if key is not None:
            headers.append((b"authorization", key))
        return headers

    async def _ask(self, prompt: str, model: str, headers: list[tuple[bytes, bytes]]) -> str:
        settings = self._settings
        messages = [{"role": "user", "content": prompt}]
        if settings.system_prompt is not None:
            messages.insert(0, {"role": "system", "content": settings.system_prompt})
        asked: dict[str, Any] = {**(settings.parameters or {}), "model": model, "messages": messages, "stream": False}
        if settings.max_tokens is not None:
            asked["max_tokens"] = settings.max_tokens
        if settings.temperature is not None:
            asked["temperature"] = settings.temperature
        answer = await self._send("POST", "/chat/completions", headers, json.dumps(asked).encode())
        try:
            choice = answer["choices"][0]
            text = choice["message"].get("content")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise GenerationFailed("the backend's answer is no chat completion: it has no choices[0].message") from None
        if not isinstance(text, str):
            raise GenerationFailed(f"the backend answered without a text (finish_reason {choice.get('finish_reason')})")
        return text

    async def _first_model(self, headers: list[tuple[bytes, bytes]]) -> str:
        """Return the first model that the backend lists, and keep it: it serves one, as a rule."""
        answer = await self._send("GET", "/models", headers, b"")
        try:
            name = answer["data"][0]["id"]
        except (KeyError, IndexError, TypeError):
            name = None
        if not isinstance(name, str):
            raise GenerationFailed("the backend lists no model; name one with --generation-model")
        self._model = name
        return name

    async def _send(self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
        pause = _FIRST_PAUSE
        for left in reversed(range(_TRIES)):
            try:
                with _traced(method, path, self._backend, headers, body) as (sent, tell):
                    answer = await self._send_once(method, path, sent, body)
                    tell(answer)
                    return answer
            except _Busy as busy:
                if not left:
                    raise busy.problem from None
                await asyncio.sleep(min(busy.after if busy.after is not None else pause, _LONGEST_PAUSE))
                pause *= 2
        raise AssertionError("unreachable")

    async def _send_once(self, method: str, path: str, headers: list[tuple[bytes, bytes]], body: bytes) -> Any:
        backend = self._backend
        target = backend.address.openai_path + path.encode()
        sent = [*headers]
        if body:
            sent += [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        try:
            with backend.place():
                async with _limit(backend.settings.timeout, "begin its answer", "--backend-timeout"):
                    answer = await backend.client.send(BackendRequest(method, target, sent, body))
                try:
                    content = bytearray()
                    while not answer.at_end:
                        async with _limit(backend.settings.idle_timeout, "go on", "--backend-idle-timeout"):
                            content += await answer.read()
                        if len(content) > _MAX_ANSWER_BYTES:
                            raise GenerationFailed(f"the backend's answer has more than {_MAX_ANSWER_BYTES} bytes")
                finally:
                    await answer.aclose()
        except BackendDown as exc:
            backend.suspect()
            raise _Busy(exc) from exc
        except BackendBusy as exc:
            raise _Busy(exc, exc.retry_after) from exc
        if not 200 <= answer.status < 300:
            problem = GenerationFailed(f"the backend answered {answer.status}: {_what_is_wrong(bytes(content))}")
            if answer.status in _BUSY:
                raise _Busy(problem, _retry_after(answer.headers))
            raise problem
        try:
            return json.loads(content)
        except ValueError:
            raise BackendBroken("the backend's answer is no JSON") from None


@contextlib.contextmanager
def _traced(
    method: str, path: str, backend: Backend, headers: list[tuple[bytes, bytes]], body: bytes
) -> Iterator[tuple[list[tuple[bytes, bytes]], Callable[[Any], None]]]:
    """Make a span of one request to the backend, where its own request is traced.

    Gives the headers to send, and a function that is told the answer.
    """
    request = current_request.get()
    if request is None or not request.recording:
        yield headers if request is None else request.continued(headers), lambda answer: None
        return
    span = request.tracing.begin_backend(request, method, backend.address.host, backend.address.port)
    status = error = None

    def tell(answer: Any) -> None:
        nonlocal status
        status = 200
        operation = operation_of(path)
        if operation is not None:
            chat = ChatWatch(operation, content=span.chat_content)
            chat.asked(body)
            chat.answered(json.dumps(answer).encode())
            span.describe_chat(chat)

    try:
        yield span.headers(headers), tell
    except _Busy as busy:
        error = busy.problem.code
        raise
    except BacklineError as exc:
        error = exc.code
        raise
    finally:
        span.end(status, error)


@contextlib.asynccontextmanager
async def _limit(seconds: float, what: str, flag: str) -> Any:
    try:
        async with asyncio.timeout(seconds or None):
            yield
    except TimeoutError:
        raise BackendTooSlow(f"the backend did not {what} within {seconds:g} s ({flag})") from None


def _first(exceptions: BaseExceptionGroup[Any]) -> BaseException:
    """Return the exception to tell: rows that were cancelled on its account say nothing."""
    found: BaseException = exceptions.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _what_is_wrong(content: bytes) -> str:
    """Return the message of an error in OpenAI's form, or the start of whatever it is."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return str(json.loads(content)["error"]["message"])[:_SHOWN]
    return content[:_SHOWN].decode("utf-8", "replace") or "with no body"


def _retry_after(headers: Sequence[tuple[bytes, bytes]]) -> float | None:
    for name, value in headers:
        if name.lower() == b"retry-after":
            with contextlib.suppress(ValueError):
                return max(0.0, float(value))
    return None
