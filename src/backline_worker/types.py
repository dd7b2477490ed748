"""The shapes that cross module borders in the worker, named once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence, Union

Buffer = Union[bytes, bytearray, memoryview]


@dataclass(frozen=True)
class Part:
    """One named piece of a request body: ``X`` for the data, or a further multipart field.

    ``content_type`` is the raw header value with its parameters, lower-cased by no one, or ``""`` when none was sent.
    ``data`` may be a read-only view of a mapped file: it is valid only until the request is answered.
    """

    name: str
    content_type: str
    data: Buffer
    filename: Optional[str] = None


@dataclass(frozen=True)
class Request:
    """One request as the server hands it on; the body has not been looked at.

    ``operation`` is one of ``predict``, ``unstructured``, ``transform``, ``chat``, ``models``, ``prompts``, ``texts``.
    ``headers`` has lower-cased names; the last of repeated headers wins.
    ``query`` maps a name to its last value; ``query_lists`` keeps all of them. ``trace`` holds headers that continue
    the trace of the request, where it has one.
    """

    operation: str
    parts: Sequence[Part]
    content_encoding: str = ""
    accept: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    query_lists: Mapping[str, List[str]] = field(default_factory=dict)
    trace: Optional[Mapping[str, str]] = None

    @property
    def query(self) -> Dict[str, str]:
        return {name: values[-1] for name, values in self.query_lists.items() if values}


@dataclass(frozen=True)
class Answer:
    """A complete answer: what the client gets as its body, with its content type."""

    content_type: str
    body: Buffer
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelSpec:
    """What the server tells a worker about the model, as plain JSON (``from_json``).

    ``metadata`` is ``model-metadata.yaml`` as parsed by the server, or ``{}``. Class labels are already resolved
    (flags and environment over metadata), always strings. ``runtime_parameter_values`` is the parsed
    ``--runtime-params-file``. ``example`` is a file with rows to warm up with, or ``None``. ``threads`` is how many
    chats of a plain hook are answered at a time, ``chats`` how many of an asynchronous one. ``generates``: the server
    has an LLM backend, which generates the texts where nothing in the folder does, from the prompts in
    ``prompt_column``; only then ``code_dir`` may be ``""``, for no folder at all.
    """

    code_dir: str
    target_type: Optional[str] = None
    target_name: Optional[str] = None
    positive_class_label: Optional[str] = None
    negative_class_label: Optional[str] = None
    class_labels: Sequence[str] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)
    runtime_parameter_values: Mapping[str, Any] = field(default_factory=dict)
    example: Optional[str] = None
    max_decompressed_bytes: int = 1 << 30
    memory_limit_bytes: Optional[int] = None
    unknown_columns: str = "ignore"  # or "refuse"
    strict_validation: bool = True
    read_input_data_as_path: bool = False
    latitude_column: str = "latitude"
    longitude_column: str = "longitude"
    threads: int = 1
    chats: int = 1
    generates: bool = False
    prompt_column: str = "promptText"

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> ModelSpec:
        """Build from the server's JSON object; unknown keys are an error, as both sides are one distribution."""
        return cls(**values)
