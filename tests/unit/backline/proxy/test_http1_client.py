"""Pieces of an answer are offered as they come; what is not taken is read, in order and to the last byte."""

from __future__ import annotations

import asyncio
import random

import pytest

from backline.proxy.http1_client import Http1Client
from backline.proxy.port import BackendAddress, BackendRequest

PIECES = [bytes([65 + number % 26]) * (1 + number % 700) for number in range(300)]


@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_is_taken_and_what_is_read_are_the_body(framing: str, share: float) -> None:
    chance = random.Random(share)
    body = b"".join(PIECES)
    head = {
        "chunked": b"Transfer-Encoding: chunked\r\n",
        "length": b"Content-Length: %d\r\n" % len(body),
        "close": b"Connection: close\r\n",
    }[framing]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n")
        for piece in PIECES:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece)
            await writer.drain()
            await asyncio.sleep(0)
        writer.write(b"0\r\n\r\n" if framing == "chunked" else b"")
        await writer.drain()
        writer.close()

    async def main() -> tuple[bytes, int]:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = Http1Client(BackendAddress.parse(f"http://127.0.0.1:{port}"), connect_timeout=5)
        got = bytearray()
        takes = 0

        def take(piece: bytes) -> bool:
            nonlocal takes
            if chance.random() >= share:
                return False
            takes += 1
            got.extend(piece)
            return True

        try:
            response = await client.send(BackendRequest("GET", b"/", [(b"host", b"a")]))
            response.offer_to(take)
            while not response.at_end:
                got += await response.read()
            await response.aclose()
        finally:
            await client.aclose()
            server.close()
        return bytes(got), takes

    got, takes = asyncio.run(asyncio.wait_for(main(), 20))
    assert got == body
    assert (takes > 0) is (share > 0)
