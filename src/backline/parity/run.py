"""A parity run: both servers up, requests replayed, answers compared, flaky ones asked again, all kept in one store.

::

    requests ──▶ store ──replay──▶ reference, candidate ──answers──▶ store ──compare──▶ verdicts
                                       ▲                                        │ different
                                       └──────────────── asked again ◀──────────┘
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from backline.config.kinds import BACKEND_URL
from backline.errors import ConfigError, ParityError
from backline.parity.compare import Rules, compare_answers, unsettled_fields
from backline.parity.desk import StoreDesk, store_desk
from backline.parity.detail import verdict_of, write_detail
from backline.parity.exchange import Call, HeaderPairs
from backline.parity.peer import Peer, connected
from backline.parity.replay import Plan, Progress, Turn, replay, schedule
from backline.parity.served import served
from backline.parity.store import Side, Store, StoredVerdict, StoreFull

_IMPORT_COMMIT = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SideSpec:
    """Which server a side is: the URL of one that runs, a model folder, or a file of recorded answers.

    ``python`` and ``flags`` are for a folder, ``headers`` and ``paths`` as in ``Peer``.
    """

    where: str
    python: str | None = None
    flags: tuple[str, ...] = ()
    headers: HeaderPairs = ()
    paths: tuple[tuple[str, str], ...] = ()

    @property
    def is_url(self) -> bool:
        """Whether it names a running server."""
        return "://" in self.where

    @property
    def is_folder(self) -> bool:
        """Whether it names a model folder."""
        return not self.is_url and Path(self.where).is_dir()

    def describe(self) -> dict[str, Any]:
        """Return what a report says of it; no header, as those are secrets."""
        described: dict[str, Any] = {"where": self.where}
        if self.python is not None:
            described["python"] = self.python
        if self.flags:
            described["flags"] = list(self.flags)
        if self.paths:
            described["paths"] = [list(pair) for pair in self.paths]
        return described


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What to compare. ``again`` is how often the reference is asked again where the candidate differs."""

    reference: SideSpec
    candidate: SideSpec
    calls: Iterable[Call] | None
    """The requests, or ``None`` where they are in the store already."""
    store: Path
    rules: Rules = field(default_factory=Rules)
    plan: Plan = field(default_factory=Plan)
    again: int = 1
    start_timeout: float = 600.0


def check_side(spec: SideSpec, name: str, *, may_be_file: bool) -> None:
    """Raise ``ConfigError`` for a side that cannot be."""
    if spec.is_url:
        try:
            BACKEND_URL.parse(spec.where)
        except ValueError as exc:
            raise ConfigError(f"--{name} {spec.where}: {exc}") from exc
    elif not Path(spec.where).exists():
        raise ConfigError(f"--{name} {spec.where}: there is no such folder{' or file' if may_be_file else ''}; "
                          "a server that runs is named by its URL, as http://127.0.0.1:8080")  # fmt: skip
    elif not spec.is_folder and not may_be_file:
        raise ConfigError(f"--{name} {spec.where}: is a file; the candidate is a URL or a model folder")
    if not spec.is_folder and (spec.python is not None or spec.flags):
        raise ConfigError(
            f"--{name}-python and --{name}-args are for a model folder that is served for the run, and {spec.where} is "
            "none"
        )


async def run_parity(job: Job, progress: Progress) -> int:
    """Do it all, and return the run's number in the store. Raises ``ConfigError``, ``ParityError`` among them."""
    async with store_desk(lambda: Store.create(job.store)) as desk:
        if job.calls is not None:
            await desk.use(_add_calls, job.calls)
        from_file = not job.reference.is_url and not job.reference.is_folder
        calls = await desk.use(_answered if from_file else Store.call_ids)
        if not calls:
            raise ParityError(
                f"{job.reference.where}: no request in it has an answer to compare with" if from_file
                else "there are no requests to replay"
            )  # fmt: skip
        async with contextlib.AsyncExitStack() as stack:
            sides: dict[Side, Peer] = {}
            if not from_file:
                sides["reference"] = await stack.enter_async_context(_side(job.reference, job.start_timeout))
            sides["candidate"] = await stack.enter_async_context(_side(job.candidate, job.start_timeout))
            for peer in sides.values():
                await peer.check()
            run = await desk.use(Store.add_run, "run", _settings(job, len(calls)), time.time())
            turns = schedule(calls, job.plan)
            await replay(desk, run, sides, turns, job.plan, progress)
            if from_file:
                await desk.use(_recorded_as_reference, run, turns)
            different = await _compare(desk, run, sorted(turns), job.rules, progress)
            if different and not from_file:
                await _ask_again(desk, run, sides["reference"], different, job, progress)
            await desk.use(Store.end_run, run, time.time())
        return run


@contextlib.asynccontextmanager
async def _side(spec: SideSpec, start_timeout: float) -> AsyncIterator[Peer]:
    async with contextlib.AsyncExitStack() as stack:
        url = spec.where
        if spec.is_folder:
            url = await stack.enter_async_context(
                served(
                    Path(spec.where),
                    python=spec.python,
                    flags=spec.flags,
                    headers=spec.headers,
                    start_timeout=start_timeout,
                )
            )
        yield await stack.enter_async_context(connected(url, headers=spec.headers, paths=spec.paths))


def _settings(job: Job, calls: int) -> dict[str, Any]:
    plan = job.plan
    return {
        "reference": job.reference.describe(),
        "candidate": job.candidate.describe(),
        "rules": job.rules.to_json(),
        "concurrency": plan.concurrency,
        "repeat": plan.repeat,
        "order": plan.order,
        "requests": calls,
        "again": job.again,
    }


def _add_calls(store: Store, calls: Iterable[Call]) -> None:
    try:
        for number, call in enumerate(calls, 1):
            store.add_call(call)
            if number % _IMPORT_COMMIT == 0:
                store.commit()
        store.commit()
    except StoreFull as exc:
        raise ParityError(exc.message) from exc


def _answered(store: Store) -> list[int]:
    return [number for number in store.call_ids() if store.answer(number, side="recorded") is not None]


def _recorded_as_reference(store: Store, run: int, turns: Sequence[Turn]) -> None:
    for call, round_ in turns:
        answer = store.answer(call, side="recorded")
        assert answer is not None
        store.add_answer(call, answer, side="reference", run=run, round_=round_)
    store.commit()


async def _compare(desk: StoreDesk, run: int, turns: Sequence[Turn], rules: Rules, progress: Progress) -> list[Turn]:
    """Compare every pair of answers; return those that differ."""
    different: list[Turn] = []
    for done, turn in enumerate(turns, 1):
        if not await desk.use(judge, run, turn, rules):
            different.append(turn)
        progress("comparing", done, len(turns))
    await desk.use(Store.commit)
    return different


def judge(store: Store, run: int, turn: Turn, rules: Rules) -> bool:
    """Compare what both sides answered in a turn, keep the verdict, and return whether nothing differs for sure.

    Answers that the reference gave when it was asked again tell what of it is flaky.
    """
    call, round_ = turn
    reference = store.answer(call, side="reference", run=run, round_=round_)
    candidate = store.answer(call, side="candidate", run=run, round_=round_)
    assert reference is not None
    assert candidate is not None
    found = compare_answers(reference, candidate, rules)
    unsettled: set[str] = set()
    if not found.is_same:
        for again in store.answers(call, side="again", run=run, round_=round_):
            unsettled |= unsettled_fields(reference, again, rules)
    verdict = verdict_of(found, unsettled)
    stored = StoredVerdict(call=call, round=round_, verdict=verdict, detail=write_detail(found, unsettled))
    store.set_verdict(run, stored)
    return verdict != "different"


async def _ask_again(
    desk: StoreDesk, run: int, reference: Peer, different: Sequence[Turn], job: Job, progress: Progress
) -> None:
    for _ in range(job.again):
        await replay(desk, run, {"again": reference}, different, job.plan, progress, stage="asking again")
    for turn in different:
        await desk.use(judge, run, turn, job.rules)
    await desk.use(Store.commit)
