"""The OpenAI routes that an LLM backend answers: the same bytes as by direct access, at the paths that clients know.

Chat and the list of models belong to the model where it has the hooks for them, and to the backend otherwise.
"""

from __future__ import annotations

import dataclasses
import uuid
from typing import TYPE_CHECKING

from backline.api.endpoint import Endpoint, Headers, OperationUnavailable
from backline.api.proxy_routes import DirectAccess
from backline.errors import BacklineError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.types import Receive, Scope, Send

    from backline.api.state import ApiState
    from backline.proxy.port import BackendAddress
    from backline.proxy.service import Backend

ASSOCIATION_HEADER = b"x-datarobot-association-id"
_ASSOCIATION_HEADERS = (b"datarobot-association-id", ASSOCIATION_HEADER)
_LONGEST_ASSOCIATION = 256

ALWAYS_BACKEND = {"/completions": ("POST",), "/embeddings": ("POST",), "/responses": ("POST",)}
"""Routes that no hook answers, below ``/v1`` and without it, with their methods."""
BELOW = ("/models", "/responses")
"""What has routes below it: ``/models/{id}``, ``/responses/{id}`` and ``/responses/{id}/cancel``."""


class OpenAIRoute(DirectAccess):
    """One route of the backend's OpenAI API: ``path``, below its ``/v1``, is served at ``mount``.

    With ``below`` everything below it is served, too, and with any method. ``associated`` answers carry an association
    id in a header: in the body it would change the backend's bytes, and a stream has no one place for it.
    """

    any_method = False
    family = "openai"

    def __init__(
        self,
        state: ApiState,
        mount: str,
        path: str,
        *,
        methods: Sequence[str] = ("POST",),
        below: bool = False,
        associated: bool = False,
    ) -> None:
        super().__init__(state, mount)
        self.methods = methods
        self.any_method = below
        self._path = path.encode()
        self._below = below
        self._associated = associated

    async def handle(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> int:
        """See ``DirectAccess``."""
        if self._path == b"/models" and not goes_to_backend(self.state):
            if self.state.service is not None:
                self.state.service.supervisor.check_accepting()
            raise self.no_backend()  # the models are those of the hooks, which list them and no more
        return await super().handle(scope, receive, send, request_id)

    def no_backend(self) -> BacklineError:
        """See ``DirectAccess``."""
        return OperationUnavailable(
            "the model does not offer this, and no LLM backend is configured that could answer; start the server with "
            "--backend"
        )

    def place(self, scope: Scope, address: BackendAddress) -> tuple[bytes, bytes, bytes]:
        """See ``DirectAccess``."""
        base = address.openai_path + self._path
        return (scope["raw_path"], self._mount, base) if self._below else (b"", b"", base)

    def request_headers(self, scope: Scope, backend: Backend) -> Headers:
        """See ``DirectAccess``."""
        headers = super().request_headers(scope, backend)
        key = backend.authorization
        if key is not None and not any(name == b"authorization" for name, _ in headers):
            headers.append((b"authorization", key))
        return headers

    def answer_headers(self, scope: Scope, request_id: str) -> Headers:
        """See ``DirectAccess``."""
        added = [(b"x-request-id", request_id.encode())]
        if self._associated:
            added.append((ASSOCIATION_HEADER, _association(scope["headers"])))
        return added


class HookOrBackend(Endpoint):
    """Hands a request to the model where it has a ``chat`` hook, or where there is no backend; else to the backend."""

    def __init__(self, state: ApiState, model: Endpoint, backend: Endpoint) -> None:
        super().__init__(state)
        self._model = model
        self._backend = backend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        await (self._backend if goes_to_backend(self.state) else self._model)(scope, receive, send)


def goes_to_backend(state: ApiState) -> bool:
    """Whether chats are the backend's: there is one, and no model, or one that is loaded and has no ``chat`` hook."""
    if state.backend is None:
        return False
    if state.service is None:
        return True
    ready = state.service.supervisor.model
    return ready is not None and not ready.description["chat"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIRoutes:
    """``exact`` paths, and ``subtrees`` that answer what is below them."""

    exact: Mapping[str, Endpoint]
    subtrees: Mapping[str, Endpoint]


def openai_routes(
    state: ApiState, prefix: str, *, chat: Endpoint, models: Endpoint, share: Callable[[Endpoint], Endpoint]
) -> OpenAIRoutes:
    """Return the routes below ``prefix`` and, as their clients may not know it, without it.

    ``chat`` and ``models`` are the model's own endpoints for these; ``share`` holds clients to their share of one.
    """
    exact: dict[str, Endpoint] = {}
    subtrees: dict[str, Endpoint] = {}
    chat = share(chat)
    to_chat = share(OpenAIRoute(state, "", "/chat/completions", associated=True))
    to_models = OpenAIRoute(state, "", "/models", methods=("GET",))
    for root in dict.fromkeys(f"{each}{version}" for each in (prefix, "") for version in ("", "/v1")):
        exact[f"{root}/chat/completions"] = HookOrBackend(state, chat, to_chat)
        exact[f"{root}/models"] = HookOrBackend(state, models, to_models)
        for path, methods in ALWAYS_BACKEND.items():
            exact[f"{root}{path}"] = share(OpenAIRoute(state, "", path, methods=methods))
        for path in BELOW:
            subtrees[f"{root}{path}"] = OpenAIRoute(state, f"{root}{path}", path, below=True)
    # What the prefix itself begins with, such as /models of /models/shop, is left to the routes below it.
    for routes in (exact, subtrees):
        for path in [path for path in routes if f"{prefix}/".startswith(f"{path}/")]:
            del routes[path]
    return OpenAIRoutes(exact=exact, subtrees=subtrees)


def _association(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Return the caller's association id where it gave one that a header can carry, else a new one."""
    for name, value in headers:
        if name in _ASSOCIATION_HEADERS and value and len(value) <= _LONGEST_ASSOCIATION:
            return value
    return str(uuid.uuid4()).encode()
