"""The backend as the application sees it: how many requests are under way, which of them stand still, is it ready.

One watchdog looks at every request ten times a second, and once a second when it has lasted, while there are any. So a
request pays for no timer and no task of its own, and one that streams pays nothing for each piece but a counter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from backline.config.backend_kinds import BACKEND_KINDS
from backline.errors import BackendBusy, BackendDown, BackendError, BackendTooSlow, BacklineError, ClientTooSlow
from backline.proxy import websocket
from backline.proxy.choose import make_client
from backline.proxy.port import BackendAddress, BackendClient, BackendRequest

if TYPE_CHECKING:
    from backline.config.settings import BackendSettings

logger = logging.getLogger("backline.proxy")

_TICK = 0.1  # seconds; also the longest time until it is looked whether the client is still there
_PARTS = 10  # of the requests whose clients are watched: each is looked at once a second, and never all in one go
_READY_INTERVAL = 5.0  # seconds between two looks at a backend that is ready
_UNREADY_INTERVAL = 1.0
_SOON = 0.05  # seconds until the second look after something has happened; each further pause is twice as long
_READY_TIMEOUT = 5.0
_MAX_READY_BODY = 64 << 10


class Exchange:
    """One request under way, and its task, which ``end`` cancels.

    Whoever moves a piece of a body, either way, adds one to ``moved``. ``answered``: the answer has begun.
    ``uploading``: the request's body is not here yet; ``waits_for_client`` while it is the client who keeps us waiting.
    """

    __slots__ = (
        "_seen",
        "_since",
        "_task",
        "_wait_left",
        "_watch",
        "answered",
        "client_left",
        "failure",
        "moved",
        "uploading",
        "waits_for_client",
    )

    def __init__(self, task: asyncio.Task[Any], now: float, wait_left: Callable[[], Awaitable[None]]) -> None:
        self._task = task
        self._since = now
        self._seen = 0
        self._wait_left = wait_left
        self._watch: asyncio.Task[None] | None = None
        self.moved = 0
        self.answered = False
        self.uploading = False
        self.waits_for_client = False
        self.client_left = False
        self.failure: BacklineError | None = None

    def end(self, failure: BacklineError | None = None) -> None:
        """Cancel the request: ``failure`` says why; without one, the client has left."""
        if not self.client_left and self.failure is None:
            self.failure = failure
            self.client_left = failure is None
            self._task.cancel()

    def check(self, now: float, backend: Backend) -> None:
        """End the request if it has stood still for too long; begin to look whether its client leaves."""
        if self.moved != self._seen:
            self._seen, self._since = self.moved, now
        else:
            limit = (
                backend.settings.idle_timeout if self.answered or self.waits_for_client else backend.settings.timeout
            )
            if limit and now - self._since > limit:
                self.end(self._stalled(backend))
        if self._watch is None and not self.uploading:
            self._watch = backend.group.create_task(self._watch_client())

    @property
    def is_watched(self) -> bool:
        """Whether it will be heard of when its client leaves."""
        return self._watch is not None

    def _stalled(self, backend: Backend) -> BacklineError:
        settings = backend.settings
        if self.waits_for_client and not self.answered:
            return ClientTooSlow(
                f"the request's body stopped coming for {settings.idle_timeout:g} s (--backend-idle-timeout); the "
                "request to the backend is given up"
            )
        if self.answered:
            return BackendTooSlow(
                f"the answer of the backend {backend.address.url} stood still for {settings.idle_timeout:g} s "
                "(--backend-idle-timeout)"
            )
        return BackendTooSlow(
            f"the backend {backend.address.url} did not begin its answer within {settings.timeout:g} s "
            "(--backend-timeout)"
        )

    async def _watch_client(self) -> None:
        try:
            await self._wait_left()
        except Exception:  # it must not take the group, and with it the server, along
            logger.exception("fault in the server's own code: a client cannot be watched")
        self.end()

    def give_up_upload(self, failure: BacklineError) -> None:
        """End the request if it waits for its client to send the rest of the body."""
        if self.waits_for_client and not self.answered:
            self.end(failure)

    def stop_watching(self) -> None:
        if self._watch is not None:
            self._watch.cancel()


class Backend:
    """One backend and the requests under way to it. Made by ``running_backend``, which owns everything in it."""

    def __init__(
        self, settings: BackendSettings, client: BackendClient, group: asyncio.TaskGroup, api_key: str | None
    ) -> None:
        assert settings.url is not None
        self.settings = settings
        self.address = BackendAddress.parse(settings.url)
        self.client = client
        self.authorization = None if api_key is None else b"Bearer " + api_key.encode()
        """What goes with requests that bring no key of their own; not with direct access."""
        self.group = group
        self.unready: str | None = "it has not been asked yet"
        """Why the backend is not ready, or ``None`` when it is."""
        self._loop = asyncio.get_running_loop()
        self._exchanges: set[Exchange] = set()
        self._unwatched: set[Exchange] = set()  # those whose clients are not watched yet
        self._round: list[Exchange] = []  # the others, as they were when this round of looks began
        self._part = 0
        self._sockets = 0
        self._busy = 0
        self._timer: asyncio.TimerHandle | None = None
        self._look = asyncio.Event()
        self._ready = asyncio.Event()
        self._awaited = settings.command is not None
        self._pause = _UNREADY_INTERVAL
        self._starts = 0  # of the backend, as far as we are told: an answer of the one before counts for nothing

    @property
    def idle(self) -> bool:
        """Whether no request is under way; WebSockets do not count, as they end only when somebody ends them."""
        return not self._exchanges and not self._busy

    @property
    def in_flight(self) -> int:
        """Requests and WebSockets that have a connection to the backend, or are about to."""
        return len(self._exchanges) + self._sockets

    def admit(self, wait_left: Callable[[], Awaitable[None]]) -> Exchange:
        """Take on a request of the current task; ``release`` it. Raises ``BackendBusy``.

        ``wait_left`` returns when the client has left; it is called when the request takes longer than a moment and its
        body is here.
        """
        self._check_room()
        task = asyncio.current_task()
        assert task is not None
        exchange = Exchange(task, self._loop.time(), wait_left)
        self._exchanges.add(exchange)
        self._unwatched.add(exchange)
        if self._timer is None:
            self._timer = self._loop.call_later(_TICK, self._tick)
        return exchange

    def release(self, exchange: Exchange) -> None:
        """Forget a request, answered or not."""
        self._exchanges.discard(exchange)
        self._unwatched.discard(exchange)
        exchange.stop_watching()

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place for a WebSocket, or a request that nobody watches, in the block. Raises ``BackendBusy``."""
        self._check_room()
        self._sockets += 1
        try:
            yield
        finally:
            self._sockets -= 1

    def give_up_uploads(self, failure: BacklineError) -> None:
        """End the requests that wait for the rest of their bodies: it may never come."""
        for exchange in tuple(self._exchanges):
            exchange.give_up_upload(failure)

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """Note during the block that a request of several parts is under way; each part has its own ``place``."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1

    async def wait_ready(self) -> None:
        """Return when the backend, as it is from now on, has said that it is ready."""
        self._awaited = True
        self._pause = _SOON
        self._look.set()
        await self._ready.wait()

    def note_gone(self, reason: str) -> None:
        """The backend's process is gone: whatever was known of its readiness is void."""
        self._starts += 1
        self.unready = reason
        self._ready.clear()

    def suspect(self) -> None:
        """Look at once whether the backend is ready: a request has found it down."""
        if self.unready is None:
            self._look.set()

    def _check_room(self) -> None:
        if self.in_flight >= self.settings.connections:
            raise BackendBusy(
                f"{self.in_flight} requests are under way to the backend (--backend-connections); come back later",
                retry_after=1,
            )

    def _tick(self) -> None:
        now = self._loop.time()
        for exchange in tuple(self._unwatched):
            exchange.check(now, self)
            if exchange.is_watched:
                self._unwatched.discard(exchange)
        self._part = (self._part + 1) % _PARTS
        if self._part == 0:
            self._round = list(self._exchanges - self._unwatched)
        for exchange in self._round[self._part :: _PARTS]:
            if exchange in self._exchanges:
                exchange.check(now, self)
        if not self._exchanges:
            self._round.clear()
        self._timer = self._loop.call_later(_TICK, self._tick) if self._exchanges else None

    async def watch_readiness(self) -> None:
        """Ask the backend, over and over, whether it is ready; never returns."""
        first = True
        while True:
            self._look.clear()
            starts = self._starts
            unready = await self._ask_ready()
            if starts != self._starts:
                continue
            changed = first or (unready is None) is not (self.unready is None)
            if changed and not self._awaited:  # who waits for it will tell
                if unready is None:
                    logger.info("the backend %s is ready", self.address.url)
                else:
                    logger.warning("the backend %s is not ready: %s", self.address.url, unready)
            first = False
            self.unready = unready
            if unready is None:
                self._awaited = False
                self._ready.set()
            else:
                self._ready.clear()
            pause = _READY_INTERVAL if unready is None else self._pause
            self._pause = min(_UNREADY_INTERVAL, self._pause * 2)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._look.wait()

    async def _ask_ready(self) -> str | None:
        kind = BACKEND_KINDS.get(self.settings.kind or "")
        asked = self.settings.ready_path
        path = asked or (kind.ready_path if kind else "/")
        base = self.address.root_path if kind and not asked else self.address.base_path
        target = base + b"/" + path.lstrip("/").encode()
        headers = [(b"host", self.address.authority), (b"user-agent", b"backline"), (b"accept", b"*/*")]
        if self.authorization is not None:
            headers.append((b"authorization", self.authorization))
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                answer = await self.client.send(BackendRequest("GET", target, headers))
                try:
                    size = 0
                    while not answer.at_end and size < _MAX_READY_BODY:
                        size += len(await answer.read())
                finally:
                    await answer.aclose()
        except TimeoutError:
            return f"GET {path} was not answered within {_READY_TIMEOUT:g} s"
        except BackendDown as exc:
            return exc.message
        except BackendError as exc:
            return f"GET {path}: {exc.message}"
        except Exception as exc:  # it must not take the group, and with it the server, along
            logger.exception("fault in the server's own code: the backend cannot be asked whether it is ready")
            return f"GET {path}: {type(exc).__name__} in the server; its log has more"
        good = 200 <= answer.status < 300
        if kind and not asked:
            good = good or (kind.asks_for_key and answer.status in (401, 403))
        elif not asked:
            good = answer.status < 500
        return None if good else f"GET {path} was answered {answer.status}"

    def describe(self) -> dict[str, Any]:
        """Return what there is to know, for ``/info/``."""
        kind = BACKEND_KINDS.get(self.settings.kind or "")
        url = f"{self.address.scheme}://{self.address.authority.decode()}{self.address.root_path.decode()}"
        metrics = kind.metrics if kind else None
        if metrics and metrics.startswith(":"):
            url = f"{self.address.scheme}://{self.address.host}"
        return {
            "url": self.address.url,
            "kind": self.settings.kind,
            "unready": self.unready,
            "metrics": f"{url}{metrics}" if metrics else None,
        }

    def close(self) -> None:
        """Stop watching; what is under way is cancelled by who owns its task."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@contextlib.asynccontextmanager
async def running_backend(
    settings: BackendSettings, *, api_key: str | None = None, watched: bool = True
) -> AsyncIterator[Backend]:
    """Open the pooled client for the block, and where it is ``watched`` ask the backend whether it is ready."""
    assert settings.url is not None
    address = BackendAddress.parse(settings.url)
    websocket.prepare(address)
    client = make_client(settings, address)
    try:
        async with asyncio.TaskGroup() as group:
            backend = Backend(settings, client, group, api_key)
            readiness = group.create_task(backend.watch_readiness()) if watched else None
            try:
                yield backend
            finally:
                if readiness is not None:
                    readiness.cancel()
                backend.close()
    except BaseExceptionGroup as exceptions:
        # What the caller's block raises should reach the caller as it was, not wrapped by our task group.
        if len(exceptions.exceptions) == 1:
            raise exceptions.exceptions[0] from None
        raise
    finally:
        await client.aclose()
