"""``backline score``: a file in, a file of predictions out.

The output is written beside its final name and renamed when it is complete, so there is never half a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.errors import ConfigError
from backline.observe.logs import logging_to_stderr
from backline.runtime.call import Call
from backline.runtime.payload import Payload
from backline.runtime.service import ModelService, running
from backline.runtime.supervisor import ModelState
from backline_worker.channel import Kind

if TYPE_CHECKING:
    from backline.config.model_folder import ModelFolder
    from backline.config.settings import Settings

# By extension of the output. What is read is the worker's to find out, by extension or by content.
_OUTPUT_TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".arrow": "application/vnd.apache.arrow.stream",
}
# Formats that rows are read in: CSV under such a name would mislead whoever opens it.
_NOT_WRITTEN = (".mtx", ".feather", ".gz")

Progress = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """What to score and where to; ``output`` ``None`` is standard output, as CSV."""

    input: Path
    output: Path | None
    content_type: str = ""
    query: str = ""


def score_file(settings: Settings, folder: ModelFolder, job: ScoreJob, progress: Progress) -> dict[str, Any]:
    """Score a file and return the worker's summary.

    ``progress`` gets ``{"stage", "rows", "of"}`` as the work goes on. Raises ``ConfigError`` for paths that cannot be
    used, ``ModelLoadFailed``, ``WorkerReported`` or ``WorkerDied``; no output file is left then.
    """
    output_type = _check(job)
    with logging_to_stderr(settings.log.level):
        return asyncio.run(_score(settings, folder, job, output_type, progress))


def _check(job: ScoreJob) -> str:
    if not job.input.is_file():
        raise ConfigError(f"--input {job.input}: there is no such file")
    if job.output is None:
        return "text/csv"
    if not job.output.parent.is_dir():
        raise ConfigError(f"--output {job.output}: there is no directory {job.output.parent}; make it first")
    if job.output.is_dir():
        raise ConfigError(f"--output {job.output} is a directory; name a file in it")
    if job.output.suffix.lower() in _NOT_WRITTEN:
        message = f"--output {job.output}: predictions are not written as {job.output.suffix}; use .csv or .json"
        raise ConfigError(message)
    return _OUTPUT_TYPES.get(job.output.suffix.lower(), "text/csv")


async def _score(
    settings: Settings, folder: ModelFolder, job: ScoreJob, output_type: str, progress: Progress
) -> dict[str, Any]:
    # One call can keep only one worker busy.
    settings = dataclasses.replace(settings, workers=dataclasses.replace(settings.workers, count=1))
    async with running(settings, folder.spec()) as service:
        if await asyncio.shield(service.supervisor.first_outcome) is ModelState.FAILED:
            assert service.supervisor.failure is not None
            raise service.supervisor.failure
        with _output_file(job.output, service) as part:
            call = Call(
                kind=Kind.SCORE,
                header={
                    "input": str(job.input.absolute()),
                    "output": str(part),
                    "output_type": output_type,
                    "content_type": job.content_type,
                    "query": urllib.parse.parse_qs(job.query, keep_blank_values=True),
                },
                payload=Payload(size=0, data=b""),
                request_id="score",
                deadline=None,
                retryable=True,
                progress=progress,
            )
            service.dispatcher.submit(call)
            reply = await call.future
            return reply.header


@contextlib.contextmanager
def _output_file(output: Path | None, service: ModelService) -> Iterator[Path]:
    """Give a path to write to; on success it becomes ``output`` or goes to standard output, otherwise it is removed."""
    if output is None:
        part = Path(service.payloads.path, "score")
    else:
        part = output.absolute().with_name(f".{output.name}.{os.getpid()}.part")
    try:
        yield part
        if output is None:
            with part.open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        else:
            part.replace(output)
    finally:
        part.unlink(missing_ok=True)
