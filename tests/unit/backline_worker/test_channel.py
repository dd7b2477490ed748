"""The frame format: what goes in comes out, however the bytes are cut, and garbage is refused."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline_worker import channel
from backline_worker.channel import Frame, FrameDecoder, Kind

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
frames = st.builds(
    Frame,
    kind=st.sampled_from(Kind),
    request_id=st.integers(0, 2**64 - 1),
    header=st.dictionaries(st.text(), json_values, max_size=4),
    payload=st.binary(max_size=300),
)


def encode(frame: Frame) -> bytes:
    return channel.encode_prefix(frame.kind, frame.request_id, frame.header, len(frame.payload)) + frame.payload


@given(st.lists(frames, max_size=5), st.data())
def test_frames_survive_any_cutting_of_the_stream(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(encode(frame) for frame in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    decoder = FrameDecoder()
    received: list[Frame] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[start:end])
    assert received == sent


@given(st.binary(min_size=24, max_size=200))
def test_garbage_is_a_protocol_error_or_an_incomplete_frame_and_nothing_else(garbage: bytes) -> None:
    try:
        FrameDecoder().feed(garbage)
    except channel.ProtocolError:
        return
    assert garbage[0] == channel.VERSION


@pytest.mark.parametrize(
    ("prefix", "problem"),
    [
        (channel.PREFIX.pack(2, Kind.PING, 0, 2, 0, 0), "version 2"),
        (channel.PREFIX.pack(1, 99, 0, 2, 0, 0), "kind 99"),
        (channel.PREFIX.pack(1, Kind.PING, 0, 2**31, 0, 0), "out of bounds"),
        (channel.PREFIX.pack(1, Kind.PING, 0, 2, 0, 2**63), "out of bounds"),
        (channel.PREFIX.pack(1, Kind.PING, 0, 2, 0, 0) + b"[]", "not an object"),
        (channel.PREFIX.pack(1, Kind.PING, 0, 2, 0, 0) + b"{x", "not JSON"),
    ],
)
def test_a_frame_that_cannot_be_right_is_refused_before_it_is_buffered(prefix: bytes, problem: str) -> None:
    with pytest.raises(channel.ProtocolError, match=problem):
        FrameDecoder().feed(prefix)


def test_a_large_payload_is_mapped_from_its_file_and_outlives_the_name(tmp_path: Any) -> None:
    payload = os.urandom(channel.LARGE_PAYLOAD_BYTES)
    path = channel.write_file(str(tmp_path), "payload", payload)
    frame = Frame(Kind.REQUEST, 1, {"file": {"path": path, "length": len(payload)}}, b"")
    mapped = channel.take_payload(frame)
    os.unlink(path)
    assert bytes(mapped) == payload
    assert os.stat(tmp_path).st_nlink


def test_a_payload_file_that_is_shorter_than_announced_is_refused(tmp_path: Any) -> None:
    path = channel.write_file(str(tmp_path), "payload", b"short")
    with pytest.raises(channel.ProtocolError, match="shorter"):
        channel.map_file(path, 6)


def test_a_payload_that_could_not_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(OSError, match="No space"):
        channel.write_file(str(tmp_path), "answer", b"x")
    assert not list(tmp_path.iterdir())
