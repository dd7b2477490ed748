"""What a stream's pieces wait for on their way through the server: nothing, unless many streams have one at a time."""

from __future__ import annotations

import asyncio
from typing import cast

from backline.config.settings import LimitSettings, WorkerSettings
from backline.runtime.chats import Admission, Chats, ChatStream
from backline_worker.channel import STREAM_WINDOW


def make_stream(granted: list[int]) -> ChatStream:
    return ChatStream("text/event-stream", granted.append, asyncio.get_running_loop())


def make_chats() -> Chats:
    return Chats(
        LimitSettings(),
        WorkerSettings(),
        admission=cast("Admission", None),
        replace=lambda worker: None,
        keep_alive=0,
    )


def test_a_piece_goes_on_without_waking_who_reads() -> None:
    async def main() -> None:
        granted: list[int] = []
        taken: list[bytes] = []
        stream = make_stream(granted)

        def take(data: bytes) -> bool:
            taken.append(data)
            return True

        stream.offer_to(take)
        reader = asyncio.get_running_loop().create_task(stream.read())
        await asyncio.sleep(0)  # now it waits
        large = b"x" * STREAM_WINDOW
        for data in (b"one", large):
            stream.feed(data)
            stream.deliver()
        assert taken == [b"one", large]
        assert granted == [3 + STREAM_WINDOW], "the worker is told as if it had been read"
        assert not reader.done()
        stream.feed(b"last")
        stream.end()
        stream.deliver()
        assert await reader == b"last", "what comes with the end leaves with the end"

    asyncio.run(main())


def test_what_is_not_taken_is_read_and_what_follows_stays_behind_it() -> None:
    async def main() -> None:
        stream = make_stream([])
        offered: list[bytes] = []

        def refuse(data: bytes) -> bool:
            offered.append(data)
            return False

        stream.offer_to(refuse)
        reader = asyncio.get_running_loop().create_task(stream.read())
        await asyncio.sleep(0)
        stream.feed(b"one ")
        stream.deliver()
        stream.feed(b"two")
        assert await reader == b"one two"
        stream.feed(b"three")
        stream.deliver()
        assert offered == [b"one "], "nobody waits for it, so it may not overtake what the reader has in its hands"
        assert await stream.read() == b"three"

    asyncio.run(main())


def test_the_loop_turns_between_the_pieces_of_many_streams() -> None:
    async def main() -> None:
        chats = make_chats()
        done: list[str] = []
        readers = []
        streams = []
        for number in range(9):
            stream = make_stream([])

            def take(data: bytes, number: int = number) -> bool:
                done.append(f"{number} {data.decode()}")
                return True

            stream.offer_to(take)
            streams.append(stream)
            readers.append(asyncio.get_running_loop().create_task(stream.read()))
        await asyncio.sleep(0)
        for word in ("a", "b"):
            for stream in streams:
                chats.piece_came(stream, word.encode())
        asyncio.get_running_loop().call_soon(done.append, "a probe")
        chats.deliver()
        chats.deliver()  # more has come from the worker in this turn: those before it keep their turn
        for _ in range(10):
            await asyncio.sleep(0)
        assert sorted(done) == sorted([*(f"{number} ab" for number in range(9)), "a probe"])
        assert done.index("a probe") <= 3
        for stream in streams:
            stream.end()
        await asyncio.gather(*readers)

    asyncio.run(main())
