"""Scores an input chunk by chunk on all workers, and puts the pieces together in order.

::

    source ──chunk──▶ dispatcher ──▶ a worker: reads, tells where its last record ends, predicts, encodes into a file
      ▲                                   │ end                                                      │ answer
      └────────── next chunk's start ─────┘         part file, journal ◀── in order: settle, append ─┘

A chunk's answer is *settled* when all chunks before it are: only then is it known which types its columns have. If it
was predicted with others, because a chunk before it was not done yet when it started, it is predicted again. If it
gives a column a type that chunks in the part file were not predicted with, the rest of the input is read for its types
alone, and then all is predicted anew, with types that cannot change any more.
"""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backline.batch.journal import Done, Journal, State
from backline.batch.source import Chunk, Source
from backline.batch.target import PartFile, compressed, rejects_lines
from backline.errors import BacklineError, WorkerDied, WorkerReported
from backline.runtime.call import Call, Reply
from backline.runtime.payload import Payload
from backline_worker import column_types
from backline_worker.channel import Kind

if TYPE_CHECKING:
    from backline.runtime.service import ModelService

_SYNC_SECONDS = 1.0  # how much work a machine that stops may cost
_TEXT_TYPES = ("text/csv", "application/x-ndjson", "application/json")

Progress = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(slots=True, kw_only=True)
class _Work:
    """A chunk that a worker has, or has done."""

    chunk: Chunk
    known: dict[str, str]
    own: dict[str, str]  # the letters that it was found to add, where it is done again
    call: Call
    output: Path
    dropped: bool = False


class ChunkedRun:
    """One input on its way through the workers. ``run`` it once."""

    def __init__(
        self,
        service: ModelService,
        source: Source,
        *,
        journal: Journal | None,
        part: PartFile,
        rejects: PartFile | None,
        output_type: str,
        compression: str,
        workers: int,
        progress: Progress,
    ) -> None:
        self._service = service
        self._source = source
        self._journal = journal
        self._part = part
        self._rejects = rejects
        self._output_type = output_type
        self._compression = compression
        self._window = 2 * workers + 2
        self._progress = progress
        self._csv = False
        self._state = State()
        self._predict = True  # false while the input is only read for its types
        self._works: collections.deque[_Work] = collections.deque()
        self._woken = asyncio.Event()
        self._index = 0
        self._unsynced: list[Done] = []
        self._last_sync = time.monotonic()
        self.done: list[Done] = []
        self.rows = 0
        self.rejected = 0

    @property
    def state(self) -> State:
        """The columns' types and what the output is made of, so far."""
        return self._state

    async def run(self) -> None:
        """Score everything; go on where the journal ends.

        Raises ``WorkerReported`` and ``WorkerDied``, which name the rows, or ``OutputFailed``; what was done is in the
        journal then, and in the part file.
        """
        if self._journal is not None:
            self._state = dataclasses.replace(self._journal.state)
            for done in self._journal.done:
                self._count(done)
        last = self.done[-1] if self.done else None
        await self._source.restart(None if last is None else last.end)
        self._index = 0 if last is None else last.index + 1
        try:
            async with asyncio.TaskGroup() as group:
                await self._work(group)
        except BaseExceptionGroup as errors:
            # As it was raised, not wrapped by our task group.
            if len(errors.exceptions) == 1:
                raise errors.exceptions[0] from None
            raise
        finally:
            self._drop_all()
            self._sync()

    async def _work(self, group: asyncio.TaskGroup) -> None:
        syncing: asyncio.Task[None] | None = None
        while True:
            while len(self._works) < self._window and self._source.is_ready():
                self._start(await self._source.take(self._index), {})
            if not self._works:
                if not self._predict:
                    await self._begin_again()
                    continue
                break
            await self._woken.wait()
            self._woken.clear()
            while self._works and self._works[0].call.future.done():
                await self._settle()
            due = time.monotonic() - self._last_sync > _SYNC_SECONDS
            if due and self._unsynced and self._journal is not None and (syncing is None or syncing.done()):
                self._last_sync = time.monotonic()
                syncing = group.create_task(self._sync_beside())

    # --- calls

    def _start(self, chunk: Chunk, own: dict[str, str], *, again: bool = False) -> None:
        known = column_types.add(self._state.types, own, csv=self._csv)
        path = Path(self._service.payloads.new_path())
        job = {
            **chunk.job,
            "op": "chunk",
            "known": known,
            "exact": self._state.exact and not self._predict,
            "final": self._state.final,
            "predict": self._predict,
            "output": str(path),
            "output_type": self._output_type,
            "gzip": self._compression == "gzip",
            "rejects": self._rejects is not None,
            "as_floats": [name for name, kind in self._state.columns if kind == "float64"],
        }
        if chunk.end is not None and "start" in chunk.job:
            job.setdefault("end", chunk.end)
        self._csv = job["format"] == "csv"

        def told(progress: dict[str, Any]) -> None:
            if chunk.end is None and not work.dropped:
                chunk.end = progress["end"]
                self._source.ended(chunk)
                self._woken.set()

        call = Call(
            kind=Kind.SCORE,
            header=job,
            payload=Payload(size=0, data=b""),
            request_id=f"chunk-{chunk.index}",
            deadline=None,
            retryable=True,
            progress=told,
        )
        work = _Work(chunk=chunk, known=known, own=own, call=call, output=path)
        if again:
            self._works[0] = work
        else:
            self._works.append(work)
            self._index = chunk.index + 1
        call.future.add_done_callback(lambda _: self._woken.set())
        self._service.dispatcher.submit(call)

    def _drop_all(self) -> None:
        """Forget the chunks that are on their way."""
        for work in self._works:
            work.dropped = True  # its worker may still send word
            self._service.dispatcher.cancel(work.call)
            self._clean(work, last=True)
        self._works.clear()

    def _clean(self, work: _Work, *, last: bool) -> None:
        work.output.unlink(missing_ok=True)
        work.output.with_name(work.output.name + ".rejects").unlink(missing_ok=True)
        if last and work.chunk.file is not None:
            work.chunk.file.unlink(missing_ok=True)

    # --- in order

    async def _settle(self) -> None:
        """Take the first chunk's answer, or have it done again, or find that all has to be done again."""
        work = self._works[0]
        try:
            reply: Reply = work.call.future.result()
        except WorkerReported as error:
            raise await self._named(work, error) from error
        except WorkerDied as error:
            raise await self._died(work, error) from error
        answer = reply.header
        own = column_types.add(work.own, answer["own"], csv=self._csv)
        types = column_types.add(self._state.types, own, csv=self._csv)
        has_rows = bool(answer["classes"]) and (answer["rows"] or answer["stale"])
        classes = self._classes_after(work, answer, types) if has_rows else self._state.classes
        if answer["stale"] or classes is None:
            self._clean(work, last=False)
            self._start(work.chunk, own, again=True)
            return
        before = self._state.classes
        unclear = not (self._state.exact or self._state.final) and column_types.unclear(types, csv=self._csv)
        self._state.types = types
        self._state.classes = classes
        if self._predict and (unclear or (before and self.rows and classes != before)):
            self._clean(work, last=True)
            await self._read_for_types(work.chunk, exact=unclear)
            return
        if unclear:
            # Read on would only find less than is needed: once more from the start.
            await self._read_for_types(work.chunk, exact=True)
            return
        if self._predict:
            if not await self._append(work, answer):
                await self._begin_again()
                return
        elif self._works:
            self._report(work.chunk)
        self._works.popleft()
        self._clean(work, last=True)

    def _classes_after(self, work: _Work, answer: dict[str, Any], types: dict[str, str]) -> dict[str, str] | None:
        """Return the types of the columns after this chunk; ``None``: it was predicted with others."""
        classes: dict[str, str] = answer["classes"]
        known = self._state.types
        if list(types.items()) == list(known.items()) and self._state.classes:
            return classes if _equal(classes, self._state.classes) else None
        mine = column_types.add(work.known, answer["own"], csv=self._csv)
        return classes if list(mine.items()) == list(types.items()) else None

    async def _read_for_types(self, chunk: Chunk, *, exact: bool) -> None:
        """Go on behind the chunk, or from the start where all letters are needed, without predicting."""
        self._drop_all()
        self._predict = False
        self._unsynced = []  # of no use any more, and the state is no longer that after them
        if exact:
            self._state = State(exact=True)
        self._state.final = False
        self._state.columns = []
        await self._source.restart(None if exact else chunk.end)
        self._index = 0

    async def _begin_again(self) -> None:
        """Predict from the start, with the types that are known now."""
        self._drop_all()
        # Begun again for its columns alone, a run that has not read everything knows no more than before.
        self._state.final = self._state.final or not self._predict
        self._predict = True
        self._state.classes = {}
        self._state.head = None
        self._index = 0
        self.done, self._unsynced = [], []
        self.rows = self.rejected = 0
        if self._journal is not None:
            self._journal.start(dataclasses.replace(self._state))  # first: it must never say more than there is
        self._part.clear()
        if self._rejects is not None:
            self._rejects.clear()
        await self._source.restart(None)

    async def _append(self, work: _Work, answer: dict[str, Any]) -> bool:
        """Put the chunk's output into the part file; ``False``: its columns do not go with those already there."""
        chunk = work.chunk
        if "columns" in answer:
            if not self._take_columns(answer["columns"]):
                return False
            if self._state.head is None:
                self._state.head = answer.get("head", "")
                if self._output_type == "text/csv":
                    head = self._state.head.encode("utf-8", "replace")
                    self._part.write(await asyncio.to_thread(compressed, head, self._compression))
            if self._compression == "zstd":
                content = await asyncio.to_thread(work.output.read_bytes)
                self._part.write(await asyncio.to_thread(compressed, content, "zstd"))
            else:
                self._part.append(work.output, answer["size"])
        if answer["rejected"] and self._rejects is not None:
            line = await self._source.line_at(chunk.start)
            piece = work.output.with_name(work.output.name + ".rejects")
            self._rejects.write(rejects_lines(piece, self.rows + self.rejected, line))
        assert chunk.end is not None
        done = Done(
            index=chunk.index,
            end=chunk.end,
            output_end=self._part.length,
            rejects_end=0 if self._rejects is None else self._rejects.length,
            rows=answer["rows"],
            rejected=answer["rejected"],
            extra_size=answer.get("extra_size", 0),
        )
        self._count(done)
        self._unsynced.append(done)
        self._report(chunk)
        return True

    def _take_columns(self, columns: list[list[str]]) -> bool:
        """Note the output's columns; whole numbers in one chunk and others in another are all written as floats."""
        known = self._state.columns
        if not known:
            self._state.columns = columns
            return True
        if [name for name, _ in known] != [name for name, _ in columns]:
            raise BacklineError(
                "the model returned other columns for some rows than for others: "
                f"{', '.join(name for name, _ in known)}; then {', '.join(name for name, _ in columns)}"
            )
        if self._output_type not in _TEXT_TYPES:
            return True  # they are brought together at the end
        wider = [
            [name, "float64"] if kind != before and {kind, before} <= {"int64", "float64"} else [name, before]
            for (name, before), (_, kind) in zip(known, columns, strict=True)
        ]
        if wider == known:
            return True
        self._state.columns = wider
        return False

    def _count(self, done: Done) -> None:
        self.done.append(done)
        self.rows += done.rows
        self.rejected += done.rejected

    # --- on the disk

    def _sync(self) -> None:
        done, self._unsynced = self._unsynced, []
        if done and self._journal is not None:
            state = dataclasses.replace(self._state)
            self._part.sync()
            if self._rejects is not None:
                self._rejects.sync()
            self._journal.add(done, state)

    async def _sync_beside(self) -> None:
        """Note what is done so far, without holding up what goes on meanwhile."""
        assert self._journal is not None
        journal, done = self._journal, list(self._unsynced)
        state = dataclasses.replace(self._state)
        await asyncio.to_thread(self._part.sync)
        if self._rejects is not None:
            await asyncio.to_thread(self._rejects.sync)
        if self._unsynced[: len(done)] == done:  # else all has begun again
            journal.add(done, state)
            del self._unsynced[: len(done)]

    def _report(self, chunk: Chunk) -> None:
        self._progress(
            {
                "stage": "predict" if self._predict else "types",
                "rows": self.rows + self.rejected,
                "position": self._source.position,
                "of": self._source.size,
            }
        )

    # --- words

    async def _named(self, work: _Work, error: WorkerReported) -> BacklineError:
        """Return the error with the line of the whole input in place of that in the chunk."""
        details = error.details
        if "row" not in details or "record" not in details:
            return error
        row = self.rows + self.rejected + details["row"] + 1
        line = None
        if details.get("line") is not None:
            line = await self._source.line_at(work.chunk.start)
        where = f"row {row}" if line is None else f"line {line + details['line']}"
        record = details["record"]
        shown = record if len(record) <= 100 else record[:100] + "…"
        return WorkerReported(
            error.code,
            f"{where} of the input: {error.message}\n  row:   {shown}\n  mend:  correct it, or score the others with "
            "--rejects FILE",
            error_type=error.error_type,
            details={**details, "line": None if line is None else line + details["line"]},
            traceback=error.traceback,
        )

    async def _died(self, work: _Work, error: WorkerDied) -> BacklineError:
        first = self.rows + self.rejected + 1
        line = await self._source.line_at(work.chunk.start)
        where = f"the rows from row {first} on" if line is None else f"the rows from line {line} on"
        return WorkerDied(f"{where}: {error.message}", while_decoding=error.while_decoding)


def _equal(one: dict[str, str], other: dict[str, str]) -> bool:
    return list(one.items()) == list(other.items())
