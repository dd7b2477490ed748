"""The load is what was asked for, every answer is counted, and time that nobody asked in is not left out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from backline.bench.load import Generator, Measured, Target, to_wire
from backline.bench.result import Result, compare, read_result, step_of
from backline.errors import ConfigError
from backline.report.statistics import quantile

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
CLOSING = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"


@contextlib.asynccontextmanager
async def server(answer: Callable[[int], Any]) -> AsyncIterator[str]:
    """Answer request number n with ``await answer(n)``; ``None`` closes the connection."""
    count = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(4)
                count += 1
                content = await answer(count)
                if content is None:
                    break
                writer.write(content)
                await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with listener:
        yield f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def always(content: bytes) -> bytes:
    return content


def load(answer: Callable[[int], Any], put_on: Callable[[Generator], Any], timeout: float = 5.0) -> Measured:
    async def run() -> Measured:
        async with server(answer) as url:
            wires = (to_wire(url, "/predict/", b"body", "text/csv", [("X-Key", "k")]),)
            async with Generator(Target(url=url, wires=wires), timeout=timeout) as generator:
                measured: Measured = await put_on(generator)
                return measured

    return asyncio.run(run())


def test_a_request_on_the_wire_is_one_that_was_asked_for() -> None:
    wire = to_wire("http://host:1/prefix", "/predict/", b"a\n1\n", "text/csv", [("X-Key", "k")])
    assert wire == (
        b"POST /prefix/predict/ HTTP/1.1\r\nHost: host:1\r\nContent-Type: text/csv\r\nContent-Length: 4\r\n"
        b"X-Key: k\r\n\r\na\n1\n"
    )


@pytest.mark.parametrize("answer", [ANSWER, CHUNKED, CLOSING], ids=["length", "chunked", "closing"])
def test_every_answer_is_counted_once(answer: bytes) -> None:
    measured = load(lambda number: always(answer), lambda generator: generator.closed(3, 30, most=50))
    assert measured.good == 50
    assert (measured.bad, measured.received, len(measured.latencies)) == (0, 100, 50)


def test_a_closed_loop_has_as_many_requests_at_a_time_as_clients() -> None:
    at_once = most = 0

    async def answer(number: int) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.01)
        at_once -= 1
        return ANSWER

    measured = load(answer, lambda generator: generator.closed(4, 0.5))
    assert most == 4
    assert measured.good > 4


def test_an_open_loop_sends_as_many_as_were_due() -> None:
    measured = load(lambda number: always(ANSWER), lambda generator: generator.open(200, 0.5))
    assert measured.statuses == {200: 100}


@pytest.mark.parametrize("connections", [512, 2])
def test_time_in_which_a_server_stands_still_is_in_the_figures_of_the_open_loop(
    monkeypatch: pytest.MonkeyPatch, connections: int
) -> None:
    """Also of the requests that could not be sent meanwhile, for want of a connection."""
    monkeypatch.setattr("backline.bench.load._MOST_CONNECTIONS", connections)

    async def answer(number: int) -> bytes:
        stall["until"] = stall.get("until") or asyncio.get_running_loop().time() + 0.5
        await asyncio.sleep(max(0.0, stall["until"] - asyncio.get_running_loop().time()))
        return ANSWER

    stall: dict[str, float] = {}
    closed = load(answer, lambda generator: generator.closed(1, 1.0))
    stall.clear()
    opened = load(answer, lambda generator: generator.open(100, 1.0))
    assert quantile(sorted(closed.latencies), 0.5) < 0.1  # one request of many waited
    assert quantile(sorted(opened.latencies), 0.75) > 0.2  # as half of those that were due in that second did


def test_what_is_refused_lost_or_late_is_no_good_answer() -> None:
    async def answer(number: int) -> bytes | None:
        if number == 3:
            await asyncio.sleep(60)
        return None if number == 2 else REFUSED if number == 1 else ANSWER

    measured = load(answer, lambda generator: generator.closed(1, 0.3), timeout=0.2)
    assert (measured.statuses[503], measured.statuses[0]) == (1, 2)
    assert measured.bad == 3


def test_requests_that_were_due_and_never_sent_are_told_with_the_time_that_they_waited() -> None:
    async def answer(number: int) -> bytes:
        await asyncio.sleep(60)
        return ANSWER

    measured = load(answer, lambda generator: generator.open(2000, 0.5), timeout=0.2)
    assert measured.unsent > 0
    assert measured.bad == 1000
    assert max(measured.latencies) > 0.2


def test_nobody_there_is_told() -> None:
    async def run() -> None:
        async with Generator(Target(url="http://127.0.0.1:9", wires=(b"",)), timeout=1) as generator:
            await generator.closed(1, 1)

    with pytest.raises(ConfigError, match="cannot be connected to"):
        asyncio.run(run())


def result_with(seconds: float, tmp_path: Any, name: str) -> Result:
    async def answer(number: int) -> bytes:
        await asyncio.sleep(seconds)
        return ANSWER

    measured = load(answer, lambda generator: generator.closed(2, 0.4))
    result = Result(target="t", requests="r", started="s", machine="m", steps=[step_of("closed", 2, measured)])
    result.memory = [(float(second), 10 << 20, (second + 1) << 20) for second in range(10)]
    (tmp_path / name).write_text(result.to_json())
    return result


def test_two_runs_are_held_against_each_other_and_a_run_against_itself_is_the_same(tmp_path: Any) -> None:
    quick, slow = (result_with(seconds, tmp_path, f"{seconds}.json") for seconds in (0.002, 0.03))
    before = read_result(tmp_path / "0.002.json")
    assert {change.verdict for change in compare(before, quick)} == {"same"}
    worse = {change.figure: change.verdict for change in compare(before, slow)}
    assert worse == {"answers/s": "worse", "p50": "worse", "p99": "worse"}
    assert {change.verdict for change in compare(slow, before)} == {"better"}


def test_growth_of_memory_is_found(tmp_path: Any) -> None:
    growth = result_with(0.001, tmp_path, "x.json").bytes_per_minute
    assert growth == pytest.approx(60 << 20)


def test_what_is_no_result_is_told(tmp_path: Any) -> None:
    for text, message in (("{", "is no result"), ('{"version": 0}', "another version"), ("[]", "is no result")):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(ConfigError, match=message):
            read_result(tmp_path / "x.json")


def test_answers_after_the_end_of_the_load_took_their_time_too() -> None:
    """A server with one place answers the last of 20 clients long after a short load has ended."""
    place = asyncio.Semaphore(1)

    async def answer(number: int) -> bytes:
        del number
        async with place:
            await asyncio.sleep(0.02)
        return ANSWER

    measured = load(answer, lambda generator: generator.closed(20, 0.1))
    assert measured.good >= 20
    assert measured.rate <= 50
    assert measured.seconds >= measured.finished[-1]
