"""``backline score``: a file in, a file of predictions out.

Where rows are independent and the format can be read in parts, the file is scored in chunks on several workers, in
bounded memory, and a run that was cut short can go on (``run``, ``journal``). Else it is read whole by one worker. The
output is written beside its final name and renamed when it is complete, so there is never half a file.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import backline
from backline.batch.identity import file_identity, folder_identity
from backline.batch.journal import Journal, State
from backline.batch.run import ChunkedRun
from backline.batch.source import TEXTS, CompressedText, Input, Source, TextFile, UnitFile, examine
from backline.batch.target import PartFile, assemble_json, copy_out, give_name, output_format, telling
from backline.batch.workers import looks_across_rows, one_thread_each, sensible_count
from backline.errors import ConfigError
from backline.observe.logs import logging_to_stderr
from backline.runtime.call import Call
from backline.runtime.payload import Payload
from backline.runtime.service import ModelService, running
from backline.runtime.supervisor import ModelState
from backline_worker.channel import Kind
from backline_worker.codecs.formats import CSV, JSON, JSON_LINES

if TYPE_CHECKING:
    from backline.config.model_folder import ModelFolder
    from backline.config.settings import Settings

_NO_HURRY = 86_400.0  # seconds: a chunk that is not needed any more is no reason to kill its worker

Progress = Callable[[dict[str, Any]], None]
Tell = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ScoreJob:
    """What to score and where to; ``output`` ``None`` is standard output, as CSV.

    ``resume`` goes on with a run that was cut short. ``rejects`` is a file for rows that cannot be scored.
    ``workers_given``: the number of workers was asked for, so it is not to be chosen here.
    """

    input: Path
    output: Path | None
    content_type: str = ""
    query: str = ""
    resume: bool = False
    rejects: Path | None = None
    workers_given: bool = True


def score_file(
    settings: Settings, folder: ModelFolder, job: ScoreJob, progress: Progress, tell: Tell = lambda text: None
) -> dict[str, Any]:
    """Score a file and return a summary: ``rows``, ``rejected``, ``resumed_rows``.

    ``progress`` gets ``{"stage", "rows", "position", "of"}`` as the work goes on, ``tell`` what people should know.
    Raises ``ConfigError`` for paths that cannot be used, ``ModelLoadFailed``, ``WorkerReported``, ``WorkerDied`` or
    ``OutputFailed``. No output is left under its name then; what a chunked run has done is kept for ``resume``.
    """
    output_type, compression = _check(job)
    scoring = _Scoring(settings, folder, job, output_type, compression)
    scoring.progress, scoring.tell = progress, tell
    with logging_to_stderr(settings.log):
        return asyncio.run(scoring.run())


def _check(job: ScoreJob) -> tuple[str, str]:
    if not job.input.is_file():
        raise ConfigError(f"--input {job.input}: there is no such file")
    if job.resume and job.output is None:
        raise ConfigError("--resume: there is nothing to go on with without --output FILE")
    for flag, path in (("--output", job.output), ("--rejects", job.rejects)):
        if path is None:
            continue
        if not path.parent.is_dir():
            raise ConfigError(f"{flag} {path}: there is no directory {path.parent}; make it first")
        if path.is_dir():
            raise ConfigError(f"{flag} {path} is a directory; name a file in it")
        if path.absolute() == job.input.absolute() or (flag == "--rejects" and job.output == path):
            raise ConfigError(f"{flag} {path} is another file of this run; name one of its own")
    return (CSV, "") if job.output is None else output_format(job.output)


class _Scoring:
    """One run of the command."""

    progress: Progress
    tell: Tell

    def __init__(
        self, settings: Settings, folder: ModelFolder, job: ScoreJob, output_type: str, compression: str
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._job = job
        self._output_type = output_type
        self._compression = compression
        self._part_path, self._journal_path = _hidden(job.output, "part"), _hidden(job.output, "journal")
        self._rejects_path = _hidden(job.rejects, "part")
        # CSV and JSON lines are what their pieces are.
        self._whole_path = None if output_type in (CSV, JSON_LINES) else _hidden(job.output, "whole")

    async def run(self) -> dict[str, Any]:
        job = self._job
        given = examine(job.input, job.content_type)
        independent = self._settings.batch.mode == "on"
        count = self._settings.workers.count
        if not given.chunked or (looks_across_rows(self._settings.model.code_dir) and not independent):
            count = 1
        elif not job.workers_given:
            count = sensible_count(self._settings.model.code_dir, independent=independent)
        settings = dataclasses.replace(
            self._settings,
            workers=dataclasses.replace(self._settings.workers, count=count, cancel_grace=_NO_HURRY),
            # Each call is a chunk as large as it should be.
            batch=dataclasses.replace(self._settings.batch, mode="off", delay=0.0),
            limits=dataclasses.replace(self._settings.limits, queue=max(1024, self._settings.limits.queue)),
        )
        # Identities before user code has run: it may write into its folder.
        identity = self._identity() if given.chunked and job.output is not None else {}
        if given.chunked:
            one_thread_each()
        async with running(settings, self._folder.spec()) as service:
            if await asyncio.shield(service.supervisor.first_outcome) is ModelState.FAILED:
                assert service.supervisor.failure is not None
                raise service.supervisor.failure
            assert service.supervisor.model is not None
            description = service.supervisor.model.description
            whole = _why_whole(given, description, independent=independent)
            source: Source | None = None
            if not whole:
                source = await self._source(service, given)
            if source is None:
                return await self._score_whole(service, whole)
            with contextlib.closing(source):
                return await self._score_chunks(service, source, identity, count)

    # --- whole

    async def _score_whole(self, service: ModelService, why: str) -> dict[str, Any]:
        job = self._job
        if job.rejects is not None:
            raise ConfigError(f"--rejects: rows cannot be told apart here, {why or 'the format is read whole'}")
        if self._compression:
            raise ConfigError(
                f"--output {job.output}: the output is written in one piece here, {why}; use a name without .gz or .zst"
            )
        if self._journal_path is not None and self._journal_path.exists():
            self.tell("what is left of a run that was cut short is of no use: this file is scored in one piece")
        with _output_file(job.output, service) as part:
            reply = await self._call(
                service,
                {
                    "op": "whole",
                    "input": str(job.input.absolute()),
                    "output": str(part),
                    "output_type": self._output_type,
                    "content_type": job.content_type,
                    "query": urllib.parse.parse_qs(job.query, keep_blank_values=True),
                },
            )
            return {"rejected": 0, **reply}

    async def _call(self, service: ModelService, header: dict[str, Any]) -> dict[str, Any]:
        call = Call(
            kind=Kind.SCORE,
            header=header,
            payload=Payload(size=0, data=b""),
            request_id="score",
            deadline=None,
            retryable=True,
            progress=self.progress,
        )
        service.dispatcher.submit(call)
        return (await call.future).header

    # --- in chunks

    async def _source(self, service: ModelService, given: Input) -> Source | None:
        """Return the input in chunks; ``None`` where it has to be read whole after all."""
        size = self._settings.score.chunk_size
        scratch = Path(service.payloads.path)
        if given.format in TEXTS:
            if given.compression:
                return CompressedText(given, chunk_bytes=size, scratch=scratch, new_path=service.payloads.new_path)
            return TextFile(given, chunk_bytes=size, scratch=scratch)
        job = {"op": "inspect", "input": str(given.path.absolute()), "format": given.chunked}
        found = await self._call(service, job)
        return UnitFile(given, found["units"]) if "units" in found else None

    async def _score_chunks(
        self, service: ModelService, source: Source, identity: dict[str, Any], workers: int
    ) -> dict[str, Any]:
        with contextlib.ExitStack() as stack:
            journal = self._open_journal(stack, identity)
            if journal is not None and journal.complete:
                self._give_names()
                journal.remove()
                rows = sum(done.rows for done in journal.done)
                return {"rows": rows, "rejected": sum(d.rejected for d in journal.done), "resumed_rows": rows}
            part, rejects = self._open_parts(stack, journal)
            resumed = 0 if journal is None else sum(done.rows for done in journal.done)
            if resumed:
                self.tell(f"going on behind the {resumed:,} rows that are done")
            run = ChunkedRun(
                service,
                source,
                journal=journal,
                part=part,
                rejects=rejects,
                output_type=self._output_type,
                compression=self._compression,
                workers=workers,
                progress=self.progress,
            )
            try:
                await run.run()
            except BaseException:
                if journal is not None and not journal.done:
                    self._remove(journal)
                elif journal is not None:
                    rows = sum(done.rows for done in journal.done)
                    self.tell(f"{rows:,} rows are done and kept; the same command with --resume goes on behind them")
                raise
            if not run.rows and not run.rejected:
                # Not a single row: who reads it whole says what is wrong with it.
                if journal is not None:
                    self._remove(journal)
                return await self._score_whole(service, "")
            await self._assemble(service, run, part)
            if self._job.output is None:
                copy_out(part.path, sys.stdout.buffer)
            if rejects is not None:
                rejects.sync()
            if journal is not None:
                journal.finish()
            self._give_names()
            if journal is not None:
                journal.remove()
            return {"rows": run.rows, "rejected": run.rejected, "resumed_rows": resumed}

    def _open_journal(self, stack: contextlib.ExitStack, identity: dict[str, Any]) -> Journal | None:
        """Return the journal as it was left, or begun anew; ``None``: the output goes to standard output."""
        if self._journal_path is None or self._part_path is None:
            return None
        with telling(self._journal_path):
            journal = Journal(self._journal_path, identity)
        stack.callback(journal.close)
        if self._job.resume and journal.load():
            if self._job.rejects is None and any(done.rejected for done in journal.done):
                raise ConfigError("--resume: that run wrote rejects; name the file again with --rejects")
            return journal
        if self._job.resume:
            self.tell("there is nothing to go on with: no run of this output was cut short; all is scored")
        elif self._part_path.exists():
            self.tell(
                f"{self._part_path} is left of a run that was cut short; it is removed and all is scored anew "
                "(--resume would have gone on with it)"
            )
        with telling(self._journal_path):
            journal.start(State())
        return journal

    def _open_parts(self, stack: contextlib.ExitStack, journal: Journal | None) -> tuple[PartFile, PartFile | None]:
        """Return the files that output and rejects are written to, as long as the journal says."""
        last = journal.done[-1] if journal is not None and journal.done else None
        path = self._part_path
        if path is None:
            # It goes to standard output once it is complete; shared memory would be too small for it.
            path = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="backline-score-")), "part")
        with telling(path):
            part = PartFile(path, 0 if last is None else last.output_end)
        stack.callback(part.close)
        rejects = None
        if self._rejects_path is not None:
            with telling(self._rejects_path):
                rejects = PartFile(self._rejects_path, 0 if last is None else last.rejects_end)
            stack.callback(rejects.close)
        return part, rejects

    async def _assemble(self, service: ModelService, run: ChunkedRun, part: PartFile) -> None:
        """Where the output is more than its pieces, write it beside the part file."""
        if self._whole_path is None:
            return
        pieces = _pieces(run)
        if self._output_type == JSON:
            await asyncio.to_thread(assemble_json, part.path, self._whole_path, pieces, run.state.head or "", run.rows)
            return
        job = {
            "op": "assemble",
            "input": str(part.path),
            "pieces": [[start, end] for start, end, _ in pieces],
            "output": str(self._whole_path),
            "output_type": self._output_type,
        }
        await self._call(service, job)
        with telling(self._whole_path), self._whole_path.open("rb") as file:
            await asyncio.to_thread(os.fsync, file.fileno())

    def _give_names(self) -> None:
        """Give output and rejects their names; what was done of this before a crash is not done again."""
        job = self._job
        left = self._rejects_path
        if left is not None and job.rejects is not None and left.exists():
            give_name(left, job.rejects)
        if job.output is None or self._part_path is None:
            return
        ready = self._whole_path or self._part_path
        if ready.exists():
            give_name(ready, job.output)
        self._part_path.unlink(missing_ok=True)

    def _remove(self, journal: Journal) -> None:
        """Leave nothing: nothing was done."""
        for path in (self._part_path, self._rejects_path, self._whole_path):
            if path is not None:
                path.unlink(missing_ok=True)
        journal.remove()

    def _identity(self) -> dict[str, Any]:
        job = self._job
        own = [job.input, job.output, job.rejects]
        spec = {**self._folder.spec(), "code_dir": ""}
        return {
            "backline": backline.__version__,
            "input": file_identity(job.input),
            "model": folder_identity(self._settings.model.code_dir, without=[path for path in own if path is not None]),
            "options": _digest([spec, self._settings.workers.python, self._settings.batch.mode, job.content_type]),
            "output": [self._output_type, self._compression, self._settings.score.chunk_size],
        }


def _hidden(path: Path | None, suffix: str) -> Path | None:
    return None if path is None else path.absolute().with_name(f".{path.name}.{suffix}")


def _digest(value: Any) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def _pieces(run: ChunkedRun) -> list[tuple[int, int, int]]:
    """Return start, end and bytes of extra output of each piece that is not empty."""
    starts = [0, *(done.output_end for done in run.done)]
    spans = ((start, done.output_end, done.extra_size) for start, done in zip(starts, run.done, strict=False))
    return [span for span in spans if span[1] > span[0]]


def _why_whole(given: Input, description: dict[str, Any], *, independent: bool) -> str:
    """Return why the file is read as one table; empty where it is scored in chunks."""
    if description["target_type"] == "unstructured":
        return "the model is unstructured"
    if not given.chunked:
        return f"{given.format.value} is read whole"
    if "read_input_data" in description["hooks"]:
        return "the model's read_input_data reads the file"
    if not description["rows_independent"] and not independent:
        return 'the model\'s rows are not known to be independent; mode = "on" under [batch] in backline.toml says so'
    return ""


@contextlib.contextmanager
def _output_file(output: Path | None, service: ModelService) -> Iterator[Path]:
    """Give a path to write to; on success it becomes ``output`` or goes to standard output, otherwise it is removed."""
    part = Path(service.payloads.path, "score") if output is None else _hidden(output, f"{os.getpid()}.part")
    assert part is not None
    try:
        yield part
        if output is None:
            copy_out(part, sys.stdout.buffer)
        else:
            with telling(part), part.open("rb") as file:
                os.fsync(file.fileno())
            give_name(part, output)
    finally:
        part.unlink(missing_ok=True)
