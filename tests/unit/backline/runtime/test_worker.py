"""What a worker's process may send: everything that it should not costs its own life, and nothing else."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backline.config.settings import LimitSettings, WorkerSettings
from backline.observe.worker_log import WorkerLog
from backline.runtime.call import Call, Reply
from backline.runtime.chats import Chats
from backline.runtime.payload import Payload
from backline.runtime.worker import Results, Worker, WorkerPlan, WorkerState
from backline_worker import channel
from backline_worker.channel import Kind

READY = {"description": {"rows_independent": False}, "warm_up": None, "load_seconds": 0.1}


class Transport(asyncio.Transport):
    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass


class Anybody:
    def admit(self, call: Call) -> None:
        pass

    def release(self, call: Call) -> None:
        pass

    def next_id(self) -> int:
        return 8


class Owner:
    def __init__(self) -> None:
        self.results: Results = []
        self.chats = Chats(
            LimitSettings(), WorkerSettings(), admission=Anybody(), replace=lambda worker: None, keep_alive=0
        )

    def calls_finished(self, worker: Worker, results: Results, seconds: float) -> None:
        self.results += results

    def worker_reported(self, worker: Worker, report: dict[str, Any]) -> None:
        pass

    def calls_lost(self, worker: Worker, calls: list[Call], stage: str) -> None:
        pass


def encoded(kind: Kind, header: dict[str, Any], request_id: int = 0) -> bytes:
    return channel.encode_prefix(kind, request_id, header, 0)


def with_worker(folder: Path, test: Callable[[Worker, Owner], None]) -> None:
    """Call ``test`` with a worker that loads; there is no process behind it."""

    async def main() -> None:
        plan = WorkerPlan(python="current", spec={}, payload_directory=str(folder))
        owner = Owner()

        def make_log(worker: Worker) -> WorkerLog:
            return WorkerLog(worker.number, lines_per_second=1, ids_of=worker.recent.get)

        worker = Worker(1, plan, owner, make_log)
        worker.connection_made(Transport())
        test(worker, owner)

    asyncio.run(main())


def busy(worker: Worker) -> Call:
    worker.data_received(encoded(Kind.READY, READY))
    call = Call(header={}, payload=Payload(size=0, data=b""), request_id="r", deadline=None, retryable=True)
    call.id = 7
    worker.start([call])
    return call


@pytest.mark.parametrize(
    "frame",
    [
        b"\xff" * 24,
        encoded(Kind.READY, READY),
        encoded(Kind.PING, {}),
        encoded(Kind.ANSWER, {}, request_id=8),
        encoded(Kind.ANSWERS, {}, request_id=7),
        encoded(Kind.ERROR, {"code": "x"}, request_id=7),
        encoded(Kind.ANSWER, {"file": 3}, request_id=7),
        channel.PREFIX.pack(channel.VERSION, Kind.ANSWER, 0, 100_000, 7, 0) + b"[" * 100_000,
        channel.PREFIX.pack(channel.VERSION, Kind.ANSWER, 0, channel.MAX_HEADER_BYTES + 1, 7, 0),
    ],
    ids=["garbage", "READY", "PING", "other id", "ANSWERS", "half a record", "no file", "deep", "oversize"],
)
def test_a_frame_that_cannot_be_is_the_end_of_its_worker(tmp_path: Path, frame: bytes) -> None:
    def test(worker: Worker, owner: Owner) -> None:
        call = busy(worker)
        worker.data_received(frame)
        assert worker.death_reason is not None
        assert "broke the channel" in worker.death_reason
        assert worker.calls == [call]
        assert not worker.is_free()
        assert owner.results == []

    with_worker(tmp_path, test)


@pytest.mark.parametrize("header", [{}, {**READY, "more": 1}], ids=["too little", "too much"])
def test_a_worker_whose_readiness_makes_no_sense_is_never_ready(tmp_path: Path, header: dict[str, Any]) -> None:
    def test(worker: Worker, owner: Owner) -> None:
        worker.data_received(encoded(Kind.READY, header))
        assert worker.state is WorkerState.LOADING
        assert worker.death_reason is not None

    with_worker(tmp_path, test)


def test_a_worker_that_did_not_load_cannot_become_ready(tmp_path: Path) -> None:
    def test(worker: Worker, owner: Owner) -> None:
        worker.data_received(encoded(Kind.LOAD_FAILED, {"message": "no", "traceback": None}))
        worker.data_received(encoded(Kind.READY, READY))
        assert not worker.is_free()
        assert worker.ready.exception() is not None

    with_worker(tmp_path, test)


def test_answers_are_taken_from_the_payload_directory_only(tmp_path: Path) -> None:
    """Or a model's process could have any file of the server's sent out, and unlinked."""
    inside, other = tmp_path / "payloads", tmp_path / "other"
    for folder in (inside, other):
        folder.mkdir()
        (folder / "answer-1-1").write_bytes(b"hello")
    (inside / "answer-1-2").symlink_to(other / "answer-1-1")
    os.mkfifo(inside / "answer-1-3")  # to be opened without waiting for who writes

    def test_for(path: Path | str, taken: bool) -> Callable[[Worker, Owner], None]:
        def test(worker: Worker, owner: Owner) -> None:
            call = busy(worker)
            worker.data_received(encoded(Kind.ANSWER, {"file": {"path": str(path), "length": 5}}, request_id=7))
            if taken:
                ((answered, reply),) = owner.results
                assert answered is call
                assert isinstance(reply, Reply)
                assert bytes(reply.body) == b"hello"
            else:
                assert owner.results == []
                assert worker.death_reason is not None

        return test

    for path in (
        other / "answer-1-1",
        inside / "answer-1-2",
        inside / "answer-1-3",
        inside / "answer-1-4",
        f"{inside}/answer-1-1/../../other/answer-1-1",
    ):
        with_worker(inside, test_for(path, taken=False))
    assert (other / "answer-1-1").exists()
    with_worker(inside, test_for(inside / "answer-1-1", taken=True))
    assert not (inside / "answer-1-1").exists()
