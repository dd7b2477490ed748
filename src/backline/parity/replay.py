"""Sends recorded requests to both servers and keeps what they answer; compares nothing, so that times are true."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from backline.errors import ParityError
from backline.parity.desk import StoreDesk
from backline.parity.peer import Peer, unreachable
from backline.parity.store import Side, Store

Order = Literal["recorded", "random"]
Progress = Callable[[str, int, int], None]
"""Told the stage, how much is done, and of how much."""

_COMMIT_EVERY = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How requests are replayed. ``timeout`` in seconds for each request; ``seed`` is for the random order."""

    concurrency: int = 4
    repeat: int = 1
    order: Order = "recorded"
    seed: int = 0
    timeout: float = 60.0


Turn = tuple[int, int]
"""Call and round."""


def schedule(calls: Sequence[int], plan: Plan) -> list[Turn]:
    """Return the turns in the order in which they are sent."""
    turns = [(call, round_) for round_ in range(plan.repeat) for call in calls]
    if plan.order == "random":
        random.Random(plan.seed).shuffle(turns)  # noqa: S311 - the same order again, no secret
    return turns


async def replay(
    desk: StoreDesk, run: int, sides: Mapping[Side, Peer], turns: Sequence[Turn], plan: Plan, progress: Progress,
    *, stage: str = "replaying",
) -> None:  # fmt: skip
    """Ask every side every request and add the answers to the store.

    The sides take turns in being first, so that neither has the warmer caches. Raises ``ParityError`` as soon as a side
    cannot be reached; what was answered until then is kept.
    """
    done = 0
    remaining: Iterator[tuple[int, Turn]] = iter(enumerate(turns))

    async def work() -> None:
        nonlocal done
        for number, (call_id, round_) in remaining:
            call = await desk.use(Store.call, call_id)
            assert call is not None
            names = list(sides) if number % 2 == 0 else list(sides)[::-1]
            for side in names:
                answer = await sides[side].ask(call.request, timeout=plan.timeout)
                await desk.use(Store.add_answer, call_id, answer, side=side, run=run, round_=round_)
            done += 1
            if done % _COMMIT_EVERY == 0:
                await desk.use(Store.commit)
            progress(stage, done, len(turns))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(plan.concurrency, len(turns))):
                group.create_task(work())
    except BaseExceptionGroup as errors:
        message = unreachable(errors).message
        raise ParityError(f"{message} ({done} of {len(turns)} requests were replayed before that)") from None
    finally:
        await desk.use(Store.commit)
