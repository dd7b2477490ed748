"""Who may load when: in turn where memory is short, at once where it is not."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from backline.config.model_folder import read_model_folder
from backline.config.settings import ModelSettings, Settings, WorkerSettings
from backline.runtime import load_gate, memory
from backline.runtime import supervisor as supervisor_module
from backline.runtime.load_gate import LoadGate
from backline.runtime.service import ModelService, running
from backline.runtime.supervisor import NoRoom

MIB = 1 << 20
HOLDS_64_MIB = """
def load_model(code_dir):
    return bytearray(b"x") * (64 << 20)


def score_unstructured(model, data, **kwargs):
    if data == "die":
        import os

        os._exit(9)
    return "fine"
"""


def test_only_the_first_worker_loads_until_one_has_loaded() -> None:
    async def test() -> None:
        gate = LoadGate(available=lambda: None)
        second = asyncio.ensure_future(enter(gate, 2))  # noqa: TID251
        assert await enter(gate, 1)
        gate.leave(1)  # it failed
        assert await enter(gate, 1)
        assert not second.done()
        gate.leave(1, loaded_pid=os.getpid())
        async with asyncio.timeout(10):
            assert await second

    asyncio.run(test())


def test_no_more_load_at_once_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_cores", lambda: 2)

    async def test() -> None:
        gate = await loaded_once(lambda: None)
        waiting = [asyncio.ensure_future(enter(gate, number, serving=1)) for number in (2, 3, 4)]  # noqa: TID251
        async with asyncio.timeout(10):
            assert await waiting[0] and await waiting[1]
        assert not waiting[2].done()
        gate.leave(3, loaded_pid=os.getpid())
        async with asyncio.timeout(10):
            assert await waiting[2]

    asyncio.run(test())


def test_what_those_that_load_have_not_taken_yet_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_cores", lambda: 8)
    monkeypatch.setattr(memory, "private_peak_bytes", lambda pid: 1000 * MIB)
    monkeypatch.setattr(memory, "private_bytes", lambda pid: 100 * MIB)

    async def test() -> None:
        gate = await loaded_once(lambda: 1999 * MIB)  # less than 900 that worker 2 will take, 1,000, and the reserve
        assert await enter(gate, 2, serving=1)
        third = asyncio.ensure_future(enter(gate, 3, serving=1))  # noqa: TID251
        await asyncio.sleep(0)
        assert not third.done()
        third.cancel()

    asyncio.run(test())


def test_the_only_worker_is_started_whatever_memory_there_is() -> None:
    async def test() -> None:
        gate = await loaded_once(lambda: 0)
        assert await enter(gate, 2, serving=0)

    asyncio.run(test())


async def loaded_once(available: Callable[[], int | None]) -> LoadGate:
    gate = LoadGate(available=available)
    assert await enter(gate, 1)
    gate.leave(1, loaded_pid=os.getpid())
    return gate


async def enter(gate: LoadGate, number: int, *, serving: int = 0) -> bool:
    return await gate.enter(number, lambda: None, serving=lambda: serving, given_up=lambda: False)


# --- with real workers


@pytest.mark.slow
def test_workers_that_memory_cannot_hold_wait_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    available = [100 * MIB]
    monkeypatch.setattr(load_gate, "_LOOK_AGAIN", 0.05)
    caplog.set_level(logging.WARNING, "backline.runtime")

    async def test() -> None:
        async with service(tmp_path, workers=3) as model:
            model.supervisor.gate._available = lambda: available[0]
            await until(lambda: bool(caplog.records))
            assert [worker["worker"] for worker in model.supervisor.workers()] == [1]
            need = model.supervisor.gate._need
            assert need is not None and 64 * MIB < need < 200 * MIB
            message = caplog.records[0].getMessage()
            assert "no process is started for worker 2" in message
            assert f"takes up to {memory.in_words(need)}" in message
            assert "100 MiB is available; 1 worker serves" in message
            available[0] = 1 << 40
            await until(lambda: model.supervisor.count_serving() == 3)

    asyncio.run(test())


@pytest.mark.slow
def test_a_worker_that_dies_while_its_replacement_waits_for_memory_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(load_gate, "_LOOK_AGAIN", 3600)
    caplog.set_level(logging.WARNING, "backline.runtime")

    async def test() -> None:
        async with service(tmp_path, workers=1) as model:
            supervisor = model.supervisor
            supervisor.gate._available = lambda: 0
            await until(lambda: supervisor.count_serving() == 1)
            old = supervisor._slots[0].worker
            assert old is not None
            supervisor.recycle(old, "test")
            await until(lambda: bool(caplog.records))
            assert supervisor.count_serving() == 1
            old.kill("the test wants it dead", cause="test")
            await until(lambda: supervisor.count_serving() == 1 and supervisor._slots[0].worker is not old)
            assert supervisor.restarts == 1

    asyncio.run(test())


@pytest.mark.slow
def test_without_room_for_one_more_a_reload_fails_and_recycling_makes_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_gate, "_LOOK_AGAIN", 0.05)
    monkeypatch.setattr(supervisor_module, "_ROOM_TIMEOUT", 0.2)

    async def test() -> None:
        async with service(tmp_path, workers=2) as model:
            supervisor = model.supervisor
            await until(lambda: supervisor.count_serving() == 2)
            available = 0
            supervisor.gate._available = lambda: available
            with pytest.raises(NoRoom):
                await supervisor.reload(dataclasses.replace(supervisor.plan, generation=2))
            assert {worker["generation"] for worker in supervisor.workers()} == {1}
            old = supervisor._slots[1].worker
            assert old is not None
            supervisor.recycle(old, "memory")
            await until(lambda: supervisor.recycled == {"memory": 1})
            assert old not in supervisor.alive
            assert supervisor.count_serving() == 1
            available = 8 << 30
            await until(lambda: supervisor.count_serving() == 2)

    asyncio.run(test())


@asynccontextmanager
async def service(folder: Path, *, workers: int) -> AsyncIterator[ModelService]:
    (folder / "custom.py").write_text(HOLDS_64_MIB)
    (folder / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    settings = dataclasses.replace(
        Settings(), model=ModelSettings(code_dir=folder), workers=WorkerSettings(count=workers)
    )
    spec: dict[str, Any] = read_model_folder(settings).spec()
    async with running(settings, spec) as model:
        yield model


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (nobody tells)
            await asyncio.sleep(0.01)
