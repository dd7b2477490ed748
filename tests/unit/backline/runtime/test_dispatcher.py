"""Queue, workers and supervisor together, with real worker processes and no HTTP in front of them."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from backline.config.model_folder import read_model_folder
from backline.config.settings import ModelSettings, Settings
from backline.errors import (
    BacklineError,
    DeadlineExceeded,
    ModelLoadFailed,
    PoisonRequest,
    QueueFull,
    ServerDraining,
    WorkerDied,
    WorkerReported,
)
from backline.runtime.call import Call, CallState, Reply
from backline.runtime.payload import Payload
from backline.runtime.poison import PoisonList
from backline.runtime.service import ModelService, running
from backline.runtime.supervisor import ModelState
from backline_worker.channel import LARGE_PAYLOAD_BYTES, Kind

pytestmark = pytest.mark.slow

# What the body says is done: "wait NAME" begins, says so by a file, and goes on once there is another.
MODEL = """
import os
import resource
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))


def wait(name):
    path = os.path.join(HERE, name)
    open(path + ".begun", "a").close()
    while not os.path.exists(path + ".go"):
        time.sleep(0.005)


def load_model(code_dir):
    if os.path.exists(os.path.join(HERE, "slow-load")):
        wait("load")
    return None


def score_unstructured(model, data, query, **kwargs):
    word, _, rest = data.partition(" ")
    if word == "wait":
        wait(rest)
    elif word == "die":
        os._exit(7)
    elif word == "die-once" and not os.path.exists(os.path.join(HERE, "died")):
        open(os.path.join(HERE, "died"), "w").close()
        os._exit(7)
    elif word == "orphan":  # dies, and leaves a child that holds its output open
        subprocess.Popen(["sleep", "3"], start_new_session=True)
        os._exit(7)
    elif word == "memory":
        raise MemoryError
    elif word == "large":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # as good as a full file system
        return data * 100_000
    return "%d %s" % (os.getpid(), data)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "custom.py").write_text(MODEL)
    (tmp_path / "model-metadata.yaml").write_text("name: m\ntype: inference\ntargetType: unstructured\n")
    return tmp_path


@asynccontextmanager
async def service_of(folder: Path, *, ready: bool = True, **options: dict[str, Any]) -> AsyncIterator[ModelService]:
    """Run a service; ``options`` are the sections of the settings that differ."""
    settings = Settings(model=ModelSettings(code_dir=folder))
    for section, values in options.items():
        settings = dataclasses.replace(settings, **{section: dataclasses.replace(getattr(settings, section), **values)})
    async with running(settings, read_model_folder(settings).spec()) as service:
        if ready:
            assert await asyncio.shield(service.supervisor.first_outcome) is ModelState.READY
            await until(lambda: len(ready_pids(service)) == settings.workers.count)
        yield service


def submit(
    service: ModelService,
    text: str,
    *,
    timeout: float | None = None,
    retryable: bool = True,
    request_id: str = "r",
    client: tuple[str, int] | None = None,
) -> Call:
    data = text.encode()
    call = Call(
        header={"operation": "unstructured", "parts": [("X", "text/plain", None, len(data))]},
        payload=Payload(size=len(data), data=data),
        request_id=request_id,
        deadline=None if timeout is None else asyncio.get_running_loop().time() + timeout,
        retryable=retryable,
        client=client,
    )
    service.dispatcher.submit(call)
    return call


def submit_large(service: ModelService, text: str) -> Call:
    """Submit a request whose body lies in a file."""
    sink = service.payloads.sink()
    sink.write(text.encode().ljust(LARGE_PAYLOAD_BYTES))
    call = Call(
        header={"operation": "unstructured", "parts": [("X", "text/plain", None, sink.size)]},
        payload=sink.finish(),
        request_id="r",
        deadline=None,
        retryable=True,
    )
    service.dispatcher.submit(call)
    return call


async def answer(call: Call) -> str:
    """Return what the model made of the request, without the pid."""
    return (await whole_answer(call)).partition(" ")[2]


async def whole_answer(call: Call) -> str:
    reply: Reply = await asyncio.wait_for(call.future, 30)
    return bytes(reply.body).decode()


async def pid_of(call: Call) -> int:
    return int((await whole_answer(call)).partition(" ")[0])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  (what is waited for happens in another process)
            await asyncio.sleep(0.005)


def begun(folder: Path, name: str) -> Awaitable[None]:
    return until((folder / f"{name}.begun").exists)


def let_go(folder: Path, name: str) -> None:
    (folder / f"{name}.go").touch()


def ready_pids(service: ModelService) -> set[int]:
    return {worker["pid"] for worker in service.supervisor.workers() if worker["state"] in ("ready", "busy")}


def assert_nothing_held(service: ModelService) -> None:
    assert service.dispatcher.waiting == 0
    assert service.dispatcher.bytes_in_flight == 0


async def bounded(test: Callable[[], Awaitable[None]]) -> None:
    async with asyncio.timeout(60):
        await test()


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(bounded(test))


def run_as_the_server_does(test: Callable[[], Awaitable[None]]) -> None:
    """On uvloop, which tells of a process's end and takes a late write differently."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bounded(test))


@pytest.mark.parametrize("queue", [0, 1, 3])
def test_as_many_calls_wait_as_the_queue_allows(folder: Path, queue: int) -> None:
    async def test() -> None:
        async with service_of(folder, limits={"queue": queue}) as service:
            assert await answer(submit(service, "free")) == "free"
            first = submit(service, "wait gate")
            waiting = [submit(service, f"number {number}") for number in range(queue)]
            with pytest.raises(QueueFull) as refused:
                submit(service, "one too many")
            assert refused.value.retry_after
            let_go(folder, "gate")
            assert [await answer(call) for call in [first, *waiting]] == [
                "wait gate",
                *(f"number {number}" for number in range(queue)),
            ]
            assert_nothing_held(service)

    run(test)


def test_bytes_count_until_the_call_has_left_its_worker(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, limits={"max_bytes_in_flight": 20}, workers={"cancel_grace": 60.0}) as service:
            left = submit(service, "wait gate")  # 9 bytes
            await begun(folder, "gate")
            service.dispatcher.cancel(left)
            assert service.dispatcher.bytes_in_flight == 9
            with pytest.raises(QueueFull, match="max_bytes_in_flight"):
                submit(service, "x" * 12)
            waits = submit(service, "x" * 11)
            let_go(folder, "gate")
            assert await answer(waits) == "x" * 11
            assert_nothing_held(service)
            assert left.future.cancelled()
            assert left.state is CallState.DONE

    run(test)


def learn(service: ModelService, seconds: float) -> None:
    """Have the dispatcher believe that a call of the model takes so long."""
    for _ in range(50):
        service.dispatcher._pace.observe(1, 1, seconds)


def test_what_could_not_be_answered_before_its_deadline_is_refused_at_once(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            learn(service, 30)
            running = submit(service, "wait gate", timeout=20)  # a free worker tries it all the same
            waiting = submit(service, "first", timeout=100)
            with pytest.raises(QueueFull, match="too near to its deadline in") as refused:
                submit(service, "second", timeout=20)
            assert refused.value.retry_after
            patient = submit(service, "third", timeout=1000)
            let_go(folder, "gate")
            assert [await answer(call) for call in (running, waiting, patient)] == ["wait gate", "first", "third"]
        assert_nothing_held(service)

    run(test)


def test_a_request_that_would_wait_for_too_long_is_refused(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, limits={"max_wait": 1.0}) as service:
            learn(service, 0.1)
            submit(service, "wait gate")
            calls = [submit(service, f"{number}") for number in range(32)]  # so many may always wait
            with pytest.raises(QueueFull, match=r"wait for about 3\.3 s; at most 1 s"):
                submit(service, "one more")
            let_go(folder, "gate")
            assert [await answer(call) for call in calls] == [f"{number}" for number in range(32)]
        assert_nothing_held(service)

    run(test)


def test_one_client_leaves_room_in_the_queue_for_others(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, limits={"queue": 40}) as service:
            running = submit(service, "wait gate", client=("10.0.0.1", 1))
            greedy = [submit(service, "greedy", client=("10.0.0.1", port)) for port in range(32)]
            with pytest.raises(QueueFull):
                submit(service, "one more", client=("10.0.0.1", 99))
            modest = [submit(service, "modest", client=("10.0.0.2", port)) for port in range(8)]
            with pytest.raises(QueueFull):
                submit(service, "one more", client=("10.0.0.2", 99))
            let_go(folder, "gate")
            for call in [running, *greedy, *modest]:
                await answer(call)
            assert not service.dispatcher._queue._by_address, "nothing is kept of clients that are gone"
        assert_nothing_held(service)

    run(test)


def test_no_work_is_begun_that_cannot_be_done_by_its_deadline_while_others_wait(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            submit(service, "wait gate")
            hopeless = submit(service, "hopeless", timeout=20)
            others = [submit(service, word) for word in ("other", "last")]
            learn(service, 30)
            let_go(folder, "gate")
            assert [await answer(call) for call in others] == ["other", "last"]
            with pytest.raises(DeadlineExceeded) as caught:
                await hopeless.future
            assert caught.value.in_queue
        assert_nothing_held(service)

    run(test)


def test_a_worker_is_given_its_next_call_within_a_round_of_the_loop(folder: Path) -> None:
    """However many requests the round has, and however long it lasts."""

    async def test() -> None:
        async with service_of(folder) as service:
            running, waiting = submit(service, "wait gate"), submit(service, "wait next")
            await begun(folder, "gate")
            let_go(folder, "gate")
            deadline = time.monotonic() + 30
            while not (folder / "next.begun").exists():  # and the loop stands still
                service.dispatcher.check_room(None)
                assert time.monotonic() < deadline
            let_go(folder, "next")
            assert [await answer(call) for call in (running, waiting)] == ["wait gate", "wait next"]

    run(test)


def test_a_deadline_in_the_queue_does_not_touch_the_worker(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"timeout_grace": 0.0}) as service:
            busy = submit(service, "wait gate")
            late = submit(service, "late", timeout=0.05)
            after = submit(service, "after")
            with pytest.raises(DeadlineExceeded) as caught:
                await late.future
            assert caught.value.in_queue
            let_go(folder, "gate")
            assert await pid_of(busy) == await pid_of(after)
            assert_nothing_held(service)

    run(test)


def test_a_deadline_while_running_frees_the_worker_by_force(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"timeout_grace": 0.05}) as service:
            (old,) = ready_pids(service)
            late = submit(service, "wait never", timeout=0.1)
            after = submit(service, "after")
            with pytest.raises(DeadlineExceeded) as caught:
                await late.future
            assert not caught.value.in_queue
            assert await pid_of(after) != old
            assert not service.dispatcher.poison
            assert_nothing_held(service)

    run(test)


def test_calls_that_were_given_up_do_not_pile_up_in_the_queue(folder: Path) -> None:
    """While a worker hangs, clients that time out and come again must not fill the server's memory."""

    async def test() -> None:
        async with service_of(folder) as service:
            busy = submit(service, "wait gate")
            await begun(folder, "gate")
            stays = submit(service, "stays")
            for number in range(2000):
                service.dispatcher.cancel(submit(service, f"given up {number}"))
            assert service.dispatcher.waiting == 1
            assert len(service.dispatcher._queue) < 100
            let_go(folder, "gate")
            assert await answer(busy) == "wait gate"
            assert await answer(stays) == "stays"

    run(test)


def test_calls_are_answered_in_the_order_of_their_coming_and_a_retried_one_first(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            order: list[str] = []
            calls = [submit(service, text) for text in ("die-once", "a", "b", "c")]
            for call in calls:
                call.future.add_done_callback(
                    lambda future: order.append(bytes(future.result().body).decode().partition(" ")[2])
                )
            await asyncio.gather(*(call.future for call in calls))
            await asyncio.sleep(0)
            assert order == ["die-once", "a", "b", "c"]

    run(test)


def test_large_and_small_requests_take_turns(folder: Path) -> None:
    async def main() -> list[str]:
        async with service_of(folder) as service:
            hold = submit(service, "wait hold")
            await begun(folder, "hold")
            done: list[str] = []
            calls = [hold]
            for name in ("heavy 1", "heavy 2", "heavy 3", "small 1", "small 2", "small 3"):
                call = submit_large(service, name) if name.startswith("heavy") else submit(service, name)
                call.future.add_done_callback(functools.partial(lambda name, _: done.append(name), name))
                calls.append(call)
            (folder / "hold.go").touch()
            for call in calls:
                await asyncio.wait_for(call.future, 30)
            return done

    assert asyncio.run(main()) == ["heavy 1", "small 1", "heavy 2", "small 2", "heavy 3", "small 3"]


def test_a_call_that_must_not_be_repeated_fails_with_its_worker(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            with pytest.raises(WorkerDied, match="exited with code 7"):
                await submit(service, "die-once", retryable=False).future
            assert not service.dispatcher.poison
            assert await answer(submit(service, "die-once")) == "die-once"

    run(test)


@pytest.mark.parametrize("poison_time", [300.0, 0.0])
def test_what_killed_two_workers_is_refused_for_the_poison_time(folder: Path, poison_time: float) -> None:
    async def test() -> None:
        async with service_of(folder, limits={"poison_time": poison_time}) as service:
            with pytest.raises(WorkerDied, match="twice"):
                await submit(service, "die now").future
            if poison_time:
                with pytest.raises(PoisonRequest) as refused:
                    submit(service, "die now")
                assert refused.value.retry_after
                assert 0 < refused.value.retry_after <= poison_time
            else:
                with pytest.raises(WorkerDied):
                    await submit(service, "die now").future
            assert await answer(submit(service, "other")) == "other"
            assert_nothing_held(service)

    run(test)


def test_a_worker_out_of_memory_serves_until_its_replacement_is_ready(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backline.runtime.supervisor._STOP_GRACE", 0.02)

    async def test() -> None:
        async with service_of(folder) as service:
            (old,) = ready_pids(service)
            (folder / "slow-load").touch()
            with pytest.raises(WorkerReported) as caught:
                await submit(service, "memory").future
            assert caught.value.code == "out_of_memory"
            await begun(folder, "load")
            assert service.supervisor.state is ModelState.READY
            assert await pid_of(submit(service, "meanwhile")) == old
            busy = submit(service, "wait gate")
            await begun(folder, "gate")
            let_go(folder, "load")
            await until(lambda: old not in ready_pids(service) and bool(ready_pids(service)))
            (new,) = ready_pids(service)
            assert await pid_of(submit(service, "after")) == new
            await asyncio.sleep(0.2)  # ten times what a worker is given to stop in
            assert not busy.future.done()  # the old one finishes what it has in hand
            let_go(folder, "gate")
            assert await pid_of(busy) == old
            await until(lambda: not os.path.exists(f"/proc/{old}"))
            assert service.supervisor.restarts == 0

    run(test)


def test_a_replacement_that_does_not_load_leaves_the_old_worker_in_service(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"max_restarts": 0}) as service:
            (old,) = ready_pids(service)
            (folder / "custom.py").write_text("raise RuntimeError('edited meanwhile')\n")
            with pytest.raises(WorkerReported):
                await submit(service, "memory").future
            await until(lambda: len(service.supervisor.workers()) == 2)
            await until(lambda: len(service.supervisor.workers()) == 1)
            assert await pid_of(submit(service, "still there")) == old
            assert service.supervisor.state is ModelState.READY

    run(test)


def test_calls_wait_while_all_workers_are_being_replaced(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            (folder / "slow-load").touch()
            died = submit(service, "die-once")
            await begun(folder, "load")
            assert service.supervisor.state is ModelState.RECOVERING
            service.supervisor.check_accepting()
            waits = submit(service, "waits")
            late = submit(service, "late", timeout=0.05)
            with pytest.raises(DeadlineExceeded):
                await late.future
            let_go(folder, "load")
            assert await answer(died) == "die-once"
            assert await answer(waits) == "waits"

    run(test)


def test_calls_that_wait_are_told_when_no_worker_will_come(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"max_restarts": 1, "restart_backoff": 0.01}) as service:
            (folder / "custom.py").write_text("import os\nos._exit(5)\n")
            died = submit(service, "die")
            waits = submit(service, "waits")
            for call in (died, waits):
                with pytest.raises(ModelLoadFailed, match="exited with code 5"):
                    await asyncio.wait_for(call.future, 30)
            assert service.supervisor.state is ModelState.FAILED
            with pytest.raises(ModelLoadFailed):
                submit(service, "later")
            with pytest.raises(ModelLoadFailed):
                service.supervisor.check_accepting()
            assert_nothing_held(service)

    run(test)


def test_a_load_over_the_start_timeout_is_a_failed_start(folder: Path) -> None:
    async def test() -> None:
        (folder / "slow-load").touch()
        options = {"start_timeout": 1.0, "max_restarts": 0}
        async with service_of(folder, ready=False, workers=options) as service:
            assert await asyncio.shield(service.supervisor.first_outcome) is ModelState.FAILED
            assert service.supervisor.failure is not None
            assert "--start-timeout" in service.supervisor.failure.message
            assert not service.supervisor.workers()

    run(test)


def test_whoever_still_waits_when_the_workers_are_stopped_is_told(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            submit(service, "wait gate")
            waiting = submit(service, "waiting")
        with pytest.raises(ServerDraining):
            await answer(waiting)
        with pytest.raises(ServerDraining) as refused:
            submit(service, "new")
        assert refused.value.retry_after

    run(test)


def test_every_call_that_is_refused_gives_its_payload_back(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            service.dispatcher.fail(ServerDraining("it stops", retry_after=1))
            file = tmp_path / "payload"
            file.write_bytes(b"x")
            call = Call(
                header={}, payload=Payload(size=1, path=str(file)), request_id="r", deadline=None, retryable=True
            )
            with pytest.raises(BacklineError):
                service.dispatcher.submit(call)
            assert not file.exists()
            assert call.state is CallState.DONE

    run(test)


def test_a_service_can_be_stopped_at_every_moment_of_its_start(folder: Path) -> None:
    """Between making a worker, spawning it, connecting and loading there is no moment at which stopping hangs."""

    async def test() -> None:
        for turns in (0, 1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30):
            async with asyncio.timeout(15), service_of(folder, ready=False, workers={"count": 2}) as service:
                for _ in range(turns):
                    await asyncio.sleep(0)
            assert not service.supervisor.workers(), turns
        # In time, too: here the moments that lie between two processes are hit.
        for milliseconds in (1, 3, 10, 30, 100, 300):
            async with asyncio.timeout(15), service_of(folder, ready=False) as service:
                await asyncio.sleep(milliseconds / 1000)
            assert not service.supervisor.workers(), milliseconds

    run(test)


def test_a_worker_that_loads_is_stopped_without_waiting_for_it(folder: Path) -> None:
    async def test() -> None:
        (folder / "slow-load").touch()
        started = asyncio.get_running_loop().time()
        async with service_of(folder, ready=False):
            await begun(folder, "load")
            started = asyncio.get_running_loop().time()
        assert asyncio.get_running_loop().time() - started < 3

    run(test)


@pytest.mark.parametrize("retryable", [True, False])
def test_a_call_that_was_not_begun_is_given_to_another_worker_whatever_it_is(folder: Path, retryable: bool) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            (pid,) = ready_pids(service)
            os.kill(pid, signal.SIGSTOP)
            call = submit(service, "hello", retryable=retryable)
            os.kill(pid, signal.SIGKILL)
            assert await answer(call) == "hello"

    run(test)


def test_a_call_that_no_worker_survives_to_begin_with_is_given_up(folder: Path) -> None:
    """Such as one whose frame the worker cannot read: it must not be tried for ever."""

    async def test() -> None:
        options = {"restart_backoff": 0.0, "max_restarts": 100}
        async with service_of(folder, workers=options) as service:
            call = Call(
                header={"operation": "unstructured", "parts": [], "accept": "x" * (17 << 20)},
                payload=Payload(size=0, data=b""),
                request_id="r",
                deadline=None,
                retryable=True,
            )
            service.dispatcher.submit(call)
            with pytest.raises(WorkerDied, match="before they could begin"):
                await asyncio.wait_for(call.future, 30)
            assert await answer(submit(service, "next")) == "next"

    run(test)


def test_requests_that_kill_workers_one_after_another_do_not_fail_the_model(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"max_restarts": 1}) as service:
            for number in range(3):
                with pytest.raises(WorkerDied):
                    await submit(service, f"die {number}").future
            assert await answer(submit(service, "next")) == "next"

    run(test)


def test_a_file_that_kills_two_workers_is_not_scored_for_ever(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"max_restarts": 100, "restart_backoff": 0.0}) as service:
            (tmp_path / "in.txt").write_text("die")
            job = {
                "op": "whole",
                "input": str(tmp_path / "in.txt"),
                "output": str(tmp_path / "out"),
                "output_type": "text/csv",
            }
            call = Call(
                kind=Kind.SCORE,
                header=job,
                payload=Payload(size=0, data=b""),
                request_id="score",
                deadline=None,
                retryable=True,
            )
            service.dispatcher.submit(call)
            with pytest.raises(WorkerDied, match="twice"):
                await asyncio.wait_for(call.future, 30)
            assert service.supervisor.restarts <= 2

    run(test)


def test_a_payload_that_the_model_has_removed_does_not_hold_up_its_error(folder: Path, tmp_path: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            file = tmp_path / "payload"
            file.write_bytes(b"wait gate")
            call = Call(
                header={"operation": "unstructured", "parts": [("X", "text/plain", None, 9)]},
                payload=Payload(size=9, path=str(file)),
                request_id="r",
                deadline=None,
                retryable=False,
            )
            call.kills = 1
            service.dispatcher.submit(call)
            await begun(folder, "gate")
            file.unlink()
            for pid in ready_pids(service):
                os.kill(pid, signal.SIGKILL)
            with pytest.raises(WorkerDied):
                await asyncio.wait_for(call.future, 30)
            assert await answer(submit(service, "next")) == "next"
            assert_nothing_held(service)

    run(test)


def test_an_answer_for_which_shared_memory_has_no_room_comes_all_the_same(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            assert await whole_answer(submit(service, "large")) == "large" * 100_000
            assert not any(name.startswith("answer-") for name in os.listdir(service.payloads.path))
            assert service.supervisor.restarts == 0

    run(test)


def test_a_client_that_leaves_a_batch_does_not_take_it_from_the_others(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"cancel_grace": 0.05}) as service:
            (pid,) = ready_pids(service)
            left, stays = submit(service, "wait gate"), submit(service, "other")
            await begun(folder, "gate")
            # Made a batch by hand, as only tables are joined by themselves.
            (worker,) = [slot.worker for slot in service.supervisor._slots if slot.worker is not None]
            worker.calls = [left, stays]
            service.dispatcher._leave_queue(stays)
            stays.state, stays.worker = CallState.RUNNING, worker
            service.dispatcher.cancel(left)
            await asyncio.sleep(0.3)
            assert ready_pids(service) == {pid}
            stays.state = CallState.ABANDONED
            service.dispatcher._abandon(stays, 0.05, "its client left", cause="client_left", spare_others=True)
            await until(lambda: pid not in ready_pids(service))

    run(test)


def test_a_failed_model_does_not_keep_the_requests_that_it_refused(folder: Path) -> None:
    async def test() -> None:
        (folder / "custom.py").write_text("raise RuntimeError('no model')\n")
        async with service_of(folder, ready=False) as service:
            assert await asyncio.shield(service.supervisor.first_outcome) is ModelState.FAILED
            for _ in range(20):
                for refuse in (service.supervisor.check_accepting, lambda: submit(service, "x")):
                    with pytest.raises(ModelLoadFailed) as caught:
                        refuse()
                    depth, entry = 0, caught.value.__traceback__
                    while entry is not None:
                        depth, entry = depth + 1, entry.tb_next
                    assert depth < 10

    run(test)


def test_workers_that_were_replaced_are_forgotten(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"count": 2}) as service:

            def in_their_places() -> set[int | None]:
                return {slot.worker.pid for slot in service.supervisor._slots if slot.worker is not None}

            for _ in range(3):
                before = in_their_places()
                with pytest.raises(WorkerReported):
                    await submit(service, "memory").future
                await until(lambda before=before: in_their_places() != before)  # type: ignore[misc]
            assert len(service.dispatcher._free) <= 3

    run(test)


def test_a_service_can_be_stopped_while_a_dead_worker_is_being_cleared_away(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder) as service:
            submit(service, "orphan")
            await until(lambda: [worker["state"] for worker in service.supervisor.workers()] == ["draining"])

    run_as_the_server_does(test)


def test_the_pipes_of_a_dead_worker_are_closed_whoever_holds_their_other_ends(folder: Path) -> None:
    async def test() -> None:
        async with service_of(folder, workers={"cancel_grace": 60.0}) as service:
            (pid,) = ready_pids(service)
            before = len(os.listdir("/proc/self/fd"))
            with pytest.raises(WorkerDied):
                await submit(service, "orphan", retryable=False).future
            await until(lambda: bool(ready_pids(service) - {pid}))
            assert len(os.listdir("/proc/self/fd")) <= before

    run_as_the_server_does(test)


def test_the_poison_list_forgets_with_time_and_keeps_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    poison = PoisonList(10.0)
    assert not poison
    poison.add(b"a")
    assert poison
    assert poison.seconds_left(b"a") == 10.0
    assert poison.seconds_left(b"b") == 0.0
    now += 6
    poison.add(b"a")  # again: the time starts anew
    now += 6
    assert poison.seconds_left(b"a") == 4.0
    now += 4
    assert poison.seconds_left(b"a") == 0.0
    assert not poison
    for number in range(3000):
        poison.add(b"%d" % number)
    assert poison.seconds_left(b"2999") == 10.0
    assert poison.seconds_left(b"0") == 0.0
