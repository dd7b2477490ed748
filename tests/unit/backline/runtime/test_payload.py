"""Payloads: where they lie, who removes them, and what happens when there is no room."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline.errors import BacklineError, BodyTooLarge, QueueFull
from backline.runtime.payload import Payload, PayloadDirectory, PayloadSink
from backline_worker.channel import LARGE_PAYLOAD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[PayloadDirectory]:
    directory = PayloadDirectory(str(tmp_path))
    yield directory
    directory.close()


def content(payload: Payload) -> bytes:
    if payload.path is None:
        assert payload.data is not None
        return payload.data
    with open(payload.path, "rb") as file:
        return file.read()


def test_one_small_piece_of_bytes_is_not_copied(directory: PayloadDirectory) -> None:
    piece = b"a,b\n1,2\n" * 10
    sink = directory.sink()
    sink.write(piece)
    payload = sink.finish()
    assert payload.data is piece
    assert payload.size == len(piece)
    assert payload.path is None


def test_an_empty_body_is_an_empty_payload_in_memory(directory: PayloadDirectory) -> None:
    sink = directory.sink()
    sink.write(b"")
    payload = sink.finish()
    assert (payload.data, payload.path, payload.size) == (b"", None, 0)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_the_writer_may_reuse_its_buffer(directory: PayloadDirectory, kind: type) -> None:
    buffer = bytearray(b"first")
    sink = directory.sink()
    sink.write(kind(buffer))
    buffer[:] = b"xxxxx"
    assert content(sink.finish()) == b"first"


@pytest.mark.parametrize(("size", "in_file"), [(LARGE_PAYLOAD_BYTES - 1, False), (LARGE_PAYLOAD_BYTES, True)])
@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_body_moves_to_a_file_at_exactly_the_limit_of_the_channel(
    directory: PayloadDirectory, size: int, in_file: bool, pieces: int
) -> None:
    body = os.urandom(size)
    sink = directory.sink()
    step = -(-size // pieces)
    for start in range(0, size, step):
        sink.write(memoryview(body)[start : start + step])
    assert sink.size == size
    payload = sink.finish()
    assert (payload.path is not None) is in_file
    assert (payload.data is not None) is not in_file
    assert payload.size == size
    assert content(payload) == body


@given(st.lists(st.tuples(st.integers(0, LARGE_PAYLOAD_BYTES), st.sampled_from([bytes, bytearray, memoryview]))))
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, type]]
) -> None:
    directory = PayloadDirectory(str(tmp_path_factory.getbasetemp()))
    try:
        expected = bytearray()
        sink = directory.sink()
        for number, (size, kind) in enumerate(pieces):
            piece = bytes([number % 251]) * size
            expected += piece
            sink.write(kind(piece))
        payload = sink.finish()
        assert content(payload) == expected
        ends = expected if len(expected) <= 2 << 20 else expected[: 1 << 20] + expected[-(1 << 20) :]
        assert payload.digest() == hashlib.blake2b(b"%d\n" % len(expected) + ends, digest_size=16).digest()
        payload.close()
        assert os.listdir(directory.path) == []
    finally:
        directory.close()


def test_files_and_directory_are_private(directory: PayloadDirectory) -> None:
    sink = directory.sink()
    sink.write(bytes(LARGE_PAYLOAD_BYTES))
    payload = sink.finish()
    assert payload.path is not None
    assert stat.S_IMODE(os.stat(directory.path).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(payload.path).st_mode) == 0o600


def test_close_unlinks_the_file_and_may_be_called_twice(directory: PayloadDirectory) -> None:
    sink = directory.sink()
    sink.write(bytes(LARGE_PAYLOAD_BYTES))
    payload = sink.finish()
    payload.close()
    payload.close()
    assert os.listdir(directory.path) == []


def test_abort_removes_the_partial_file_and_may_be_called_twice(directory: PayloadDirectory) -> None:
    sink = directory.sink()
    sink.write(bytes(LARGE_PAYLOAD_BYTES))
    assert len(os.listdir(directory.path)) == 1
    sink.abort()
    sink.abort()
    assert os.listdir(directory.path) == []


def test_abort_after_finish_leaves_the_payload_alone(directory: PayloadDirectory) -> None:
    sink = directory.sink()
    sink.write(bytes(LARGE_PAYLOAD_BYTES))
    payload = sink.finish()
    sink.abort()
    assert content(payload) == bytes(LARGE_PAYLOAD_BYTES)


def test_no_descriptor_is_left_open(directory: PayloadDirectory) -> None:
    before = len(os.listdir("/dev/fd"))
    for end in (PayloadSink.finish, PayloadSink.abort):
        sink = directory.sink()
        sink.write(bytes(LARGE_PAYLOAD_BYTES))
        end(sink)
    assert len(os.listdir("/dev/fd")) == before


def refuse_writes(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def write(_descriptor: int, _data: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", write)


def test_a_full_file_system_is_a_refusal_that_says_when_to_come_back(
    directory: PayloadDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_writes(monkeypatch, errno.ENOSPC)
    sink = directory.sink()
    with pytest.raises(QueueFull, match="shm-size") as caught:
        sink.write(bytes(LARGE_PAYLOAD_BYTES))
    assert caught.value.retry_after is not None
    assert os.listdir(directory.path) == []
    sink.abort()


def test_any_other_trouble_with_the_directory_is_our_error_and_names_the_place(directory: PayloadDirectory) -> None:
    os.rmdir(directory.path)
    with pytest.raises(BacklineError, match="could not be stored in") as caught:
        directory.sink().write(bytes(LARGE_PAYLOAD_BYTES))
    assert caught.value.code == "internal_error"
    assert directory.path in caught.value.message


@pytest.fixture
def small_file_system(tmp_path: Path) -> Iterator[Path]:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small tmpfs")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def test_a_body_that_fits_in_no_case_is_too_large_and_one_that_must_wait_is_not(small_file_system: Path) -> None:
    directory = PayloadDirectory(str(small_file_system))
    large = directory.sink()
    with pytest.raises(BodyTooLarge, match="in all"):
        large.write(bytes(2 << 20))
    first = directory.sink()
    first.write(bytes(600 << 10))
    second = directory.sink()
    with pytest.raises(QueueFull):
        second.write(bytes(600 << 10))
    first.finish().close()
    second = directory.sink()
    second.write(bytes(600 << 10))
    assert second.finish().size == 600 << 10
    directory.close()


def test_close_removes_everything_and_may_be_called_twice(tmp_path: Path) -> None:
    directory = PayloadDirectory(str(tmp_path))
    directory.sink().write(bytes(LARGE_PAYLOAD_BYTES))
    directory.close()
    directory.close()
    assert list(tmp_path.iterdir()) == []


def test_the_directory_of_a_killed_server_is_removed_by_the_next(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from backline.runtime.payload import PayloadDirectory;"
        "d = PayloadDirectory(sys.argv[1]); d.sink().write(bytes(1 << 20)); print(d.path, flush=True);"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    dead = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    left = dead.stdout.strip()
    assert os.path.isdir(left)
    directory = PayloadDirectory(str(tmp_path))
    assert directory.removed == (left,)
    assert not os.path.exists(left)
    directory.close()


def test_the_directory_of_a_living_server_and_strangers_files_are_left_alone(tmp_path: Path) -> None:
    """Two servers, as in two containers over one /dev/shm: the name's process id must not decide."""
    living = PayloadDirectory(str(tmp_path))
    (tmp_path / "backline-notes.txt").write_text("not a directory")
    (tmp_path / "backline-open").mkdir(mode=0o755)
    (tmp_path / "backline-link").symlink_to(living.path)
    other = PayloadDirectory(str(tmp_path))
    assert other.removed == ()
    assert os.path.isdir(living.path)
    assert (tmp_path / "backline-notes.txt").exists()
    assert (tmp_path / "backline-open").exists()
    living.close()
    other.close()


def test_shared_memory_is_chosen_where_there_is_one() -> None:
    directory = PayloadDirectory()
    try:
        assert directory.in_memory == directory.path.startswith("/dev/shm/")
        assert os.path.isdir(directory.path)
    finally:
        directory.close()


def test_the_temporary_directory_stands_in_for_missing_shared_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("backline.runtime.payload.SHARED_MEMORY", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    directory = PayloadDirectory()
    assert not directory.in_memory
    assert os.path.dirname(directory.path) == str(tmp_path)
    directory.close()
