"""What the server says when it starts: what it found, where it listens, and a line to try."""

from __future__ import annotations

import shlex
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from backline.config.settings import Settings
    from backline.errors import BackendFailed, ConfigError, ModelLoadFailed
    from backline.runtime.supervisor import Supervisor


def listening_text(settings: Settings, url: str) -> str:
    """Return the line for a server that listens, and whose model or backend is still to come."""
    parts = [] if settings.backend.sidecar else [f"loading {settings.model.code_dir}"]
    if settings.backend.url is not None:
        if settings.backend.command is not None:
            parts.append(f"starting {PurePath(settings.backend.command[0]).name}")
        parts.append(f"/directAccess and /nim lead to {settings.backend.url}")
    return f"Listening on {url}  ({'; '.join(parts)})"


def ready_text(settings: Settings, supervisor: Supervisor, url: str) -> str:
    """Return the lines for a model that is ready."""
    ready = supervisor.model
    assert ready is not None
    model = ready.description
    artifact = model.get("artifact")
    library = " ".join(filter(None, (model.get("library"), model.get("library_version"))))
    what = " with ".join(filter(None, (artifact, f"hooks {', '.join(model['hooks'])}" if model.get("hooks") else None)))
    labels = model.get("class_labels")
    target = model["target_type"] + (f" ({', '.join(labels)})" if labels else "")
    lines = [
        f"Ready after {ready.load_seconds:.1f} s",
        f"  model    {what or _unnamed(settings, model)}{f' ({library})' if library else ''}",
        f"  target   {target}",
        f"  python   {model['python']} ({supervisor.python})",
        f"  workers  {settings.workers.count}",
        f"  docs     {url}/docs",
        f"  try      {try_line(settings, supervisor, url)}",
    ]
    lines += [f"  warning  {warning}" for warning in model.get("warnings", ())]
    return "\n".join(lines)


def _unnamed(settings: Settings, model: Mapping[str, Any]) -> str:
    return f"the backend at {settings.backend.url}" if model["generates"] else "custom code"


def try_line(settings: Settings, supervisor: Supervisor, url: str) -> str:
    """Return a command line that gets an answer from this very model."""
    ready = supervisor.model
    assert ready is not None
    target_type = ready.description["target_type"]
    warm_up = ready.warm_up
    if target_type == "unstructured":
        example = settings.model.example
        data = f"--data-binary @{shlex.quote(str(example))}" if example else "-d 'hello'"
        return f"curl {url}/predictUnstructured/ -H 'Content-Type: text/plain' {data}"
    if ready.description["generates"]:
        rows = shlex.quote(f"{settings.generation.prompt_column}\nSay hello.\n")
        return f"curl {url}/predict/ -H 'Content-Type: text/csv' --data-binary {rows}"
    route = "transform" if target_type == "transform" else "predict"
    if settings.model.example is not None:
        return f"curl {url}/{route}/ -F {shlex.quote(f'X=@{settings.model.example}')}"
    if warm_up is not None:
        body = shlex.quote(warm_up["body"])
        return f"curl {url}/{route}/ -H 'Content-Type: {warm_up['content_type']}' --data-binary {body}"
    if ready.description.get("chat"):
        body = '{"model": "any", "messages": [{"role": "user", "content": "hello"}]}'
        return f"curl {url}/chat/completions -H 'Content-Type: application/json' -d '{body}'"
    return f"curl {url}/info/"


def failure_text(failure: ModelLoadFailed | ConfigError | BackendFailed, *, stays_up: bool) -> str:
    """Return the lines for a model that could not be loaded, or a backend that did not get ready."""
    text = f"Error: {failure.message}"
    traceback = getattr(failure, "traceback", None)
    if traceback:
        text += f"\n{traceback.rstrip()}"
    if stays_up:
        text += "\nThe server stays up and answers 513 with this message."
    return text
