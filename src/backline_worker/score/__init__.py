"""Scores files in the worker: whole, or one chunk of a file that is larger than memory.

The server says which (``op``) and where the chunk begins; the worker reads its part of the file by itself, finds where
its last record ends and tells that at once, so that the next chunk can start, and leaves its encoded predictions in a
file. The server only moves bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Callable, Dict

if TYPE_CHECKING:
    from ..model import Model

Report = Callable[[Dict[str, Any]], None]


def score_file(model: Model, job: Dict[str, Any], report: Report) -> Dict[str, Any]:
    """Do one job and return what it came to, as JSON. ``report`` sends word before that. Raises ``ReportedError``."""
    operation = job["op"]
    if operation == "whole":
        from .whole import score_whole

        return score_whole(model, job, report)
    if operation == "chunk":
        from .chunk import score_chunk

        return score_chunk(model, job, report)
    if operation == "inspect":
        from .columnar import inspect

        return inspect(job["input"], job["format"])
    if operation == "offer":
        from .offer import offer_schema

        return offer_schema(model, job)
    from .assemble import assemble

    return assemble(job)
