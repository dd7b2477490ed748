"""What is known of the usual LLM backends, from their public documentation.

NIM: docs.nvidia.com/nim/large-language-models (API reference, observability). vLLM: docs.vllm.ai (OpenAI-compatible
server, metrics). Triton: docs.nvidia.com/deeplearning/triton-inference-server (health, metrics). OpenAI: its API
reference; only what every compatible server has.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BackendKind:
    """One kind of backend. Paths begin at its root, above ``/v1``; ``example`` is a command that starts one.

    ``ready_path`` is answered 2xx by a backend that is ready; with ``asks_for_key`` 401 and 403 say the same of one
    that wants a key. ``metrics`` is a path, with a port before it where it is not that of the API.
    """

    port: int | None
    ready_path: str
    models_path: str | None
    metrics: str | None
    example: str | None
    asks_for_key: bool = False


BACKEND_KINDS = {
    "nim": BackendKind(
        port=8000, ready_path="/v1/health/ready", models_path="/v1/models", metrics="/v1/metrics", example=None
    ),
    "vllm": BackendKind(
        port=8000,
        ready_path="/health",
        models_path="/v1/models",
        metrics="/metrics",
        example="vllm serve MODEL --host 127.0.0.1 --port {port}",
    ),
    "triton": BackendKind(
        port=8000,
        ready_path="/v2/health/ready",
        models_path=None,
        metrics=":8002/metrics",
        example="tritonserver --model-repository=/models --http-port={port}",
    ),
    "openai": BackendKind(
        port=None, ready_path="/v1/models", models_path="/v1/models", metrics=None, example=None, asks_for_key=True
    ),
}
