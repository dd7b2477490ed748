"""Which routes are mirrored to the shadow, and what of a request it is handed."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from backline.api.tee import Copy, Tee
from backline.parity.shadow import MAX_BODY, MIRRORED, Mirrored

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

    from backline.parity.shadow import Shadow

_PATHS = frozenset(
    {
        "/predict", "/predictions", "/invocations", "/predictUnstructured", "/predictionsUnstructured", "/transform",
        "/chat/completions", "/v1/chat/completions", "/v1/completions", "/v1/embeddings",
    }
)  # fmt: skip


def mirrored(endpoint: ASGIApp, path: str, shadow: Shadow | None) -> ASGIApp:
    """Return the endpoint, with its requests mirrored where there is a shadow and they are what it is for."""
    if shadow is None or path not in _PATHS:
        return endpoint
    return Tee(
        endpoint,
        wanted=functools.partial(_is_wanted, shadow),
        take=functools.partial(_hand_over, shadow),
        limit=MAX_BODY,
    )


def _is_wanted(shadow: Shadow, scope: Scope) -> bool:
    # Not what comes from a shadow's agent: two servers that shadow each other would ask for ever.
    return scope["method"] == "POST" and all(name != MIRRORED for name, _ in scope["headers"]) and shadow.takes_one()


def _hand_over(shadow: Shadow, copy: Copy) -> None:
    request, answer = copy.request, copy.answer
    if copy.too_large:
        shadow.too_large()
    elif request is not None and answer is not None:  # else the client has left
        scope = copy.scope
        shadow.offer(
            Mirrored(
                method=scope["method"], raw_path=scope["raw_path"], query=scope["query_string"],
                headers=scope["headers"], request=request, status=copy.status, answer_headers=copy.headers,
                answer=answer, seconds=copy.seconds, at=time.time(),
            )
        )  # fmt: skip
