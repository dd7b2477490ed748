"""Frames between the server and a worker: the one wire format, used by both ends.

A frame is a fixed prefix, a small JSON header and a raw payload::

    0      1      2          4               8              16               24
    +------+------+----------+---------------+---------------+----------------+--------+---------+
    | ver. | kind | reserved | header length | request id    | payload length | header | payload |
    +------+------+----------+---------------+---------------+----------------+--------+---------+
      u8     u8     u16        u32             u64             u64              JSON     bytes

All integers are big-endian. Nothing is ever pickled. A payload of ``LARGE_PAYLOAD_BYTES`` or more does not travel in
the frame: it lies in a private file in shared memory, the header names it (``"file"``) and the reader maps it. Only an
answer for which there is no room in shared memory travels in its frame, whatever its size.
"""

from __future__ import annotations

import enum
import json
import mmap
import os
import struct
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from .types import Buffer

VERSION = 1
PREFIX = struct.Struct(">BBHIQQ")
MAX_HEADER_BYTES = 16 << 20
MAX_PAYLOAD_BYTES = 1 << 40
LARGE_PAYLOAD_BYTES = 256 << 10
STREAM_WINDOW = 64 << 10
"""Bytes of a stream that may be on their way; one more chunk may be sent while it is not used up."""


class Kind(enum.IntEnum):
    """What a frame says. Those below 16 go to the worker, the others come from it."""

    START = 1  # header: the model's specification; sent once, first, so that the worker can load before all else
    ATTACH = 7  # header: the server's payload directory and the worker's status page; sent once, second
    REQUEST = 2  # header: the request's metadata; payload: its parts, one after another
    PING = 3  # asks the main loop, not a side thread: a busy worker answers when it is done
    STOP = 4  # finish and exit 0
    BATCH = 6  # header: what several predictions have in common, id and size of each; payload: their bodies
    SCORE = 5  # header: a file to score, see backline_worker.score
    CANCEL = 8  # of a chat: nobody waits for it any more
    REPORT = 10  # asks for METRICS, now
    CREDIT = 9  # of a stream; header: how many bytes of it have left the server
    HELLO = 16  # header: pid, python version, token; the first frame from the worker
    READY = 17  # header: description of the loaded model
    LOAD_FAILED = 18  # header: error record; the worker exits afterwards
    ANSWER = 19  # header: content type, headers, timings; payload: the body
    ERROR = 20  # header: error record
    ANSWERS = 23  # to a BATCH; header: size or error record of each; payload: the bodies
    PONG = 21
    PROGRESS = 22  # header: rows done and stage; of a load or of scoring a file
    STREAM = 24  # a chat is answered by a stream; header: content type; payload: its first bytes
    CHUNK = 25  # no header; payload: the next bytes of a stream, at most STREAM_WINDOW before they are credited
    METRICS = 27  # header: what user code has counted since the last one; before an answer, after STOP, or asked for
    STREAM_END = 26  # header: timings; the stream is complete, or its chat was cancelled


class Frame(NamedTuple):
    """One decoded frame. ``payload`` is a copy or a mapping that the receiver owns."""

    kind: Kind
    request_id: int
    header: Dict[str, Any]
    payload: Buffer


class ProtocolError(Exception):
    """The other end does not speak this format: the connection is of no further use."""


def encode_prefix(kind: Kind, request_id: int, header: Dict[str, Any], payload_length: int) -> bytes:
    """Return prefix and header, to be followed by ``payload_length`` bytes of payload."""
    text = json.dumps(header, separators=(",", ":")).encode()
    return PREFIX.pack(VERSION, kind, 0, len(text), request_id, payload_length) + text


def encode_chunk(request_id: int, payload: bytes) -> bytes:
    """Return a whole CHUNK frame."""
    return PREFIX.pack(VERSION, Kind.CHUNK, 0, 0, request_id, len(payload)) + payload


def decode_prefix(prefix: Buffer) -> Tuple[Kind, int, int, int]:
    """Return kind, header length, request id and payload length of the 24 bytes given.

    Raises ``ProtocolError`` on a foreign version, an unknown kind or a length out of bounds.
    """
    version, kind, _reserved, header_length, request_id, payload_length = PREFIX.unpack(prefix)
    if version != VERSION:
        raise ProtocolError("frame version {} where {} was expected".format(version, VERSION))
    if header_length > MAX_HEADER_BYTES or payload_length > MAX_PAYLOAD_BYTES:
        raise ProtocolError("frame lengths out of bounds: {} and {}".format(header_length, payload_length))
    try:
        return Kind(kind), header_length, request_id, payload_length
    except ValueError as exc:
        raise ProtocolError("unknown frame kind {}".format(kind)) from exc


def decode_header(text: Buffer) -> Dict[str, Any]:
    """Return the header object; raises ``ProtocolError`` when it is not a JSON object."""
    try:
        header = json.loads(bytes(text))
    except (ValueError, RecursionError) as exc:
        raise ProtocolError("frame header is not JSON: {}".format(exc)) from exc
    if not isinstance(header, dict):
        raise ProtocolError("frame header is not an object")
    return header


class FrameDecoder:
    """Turns received bytes into frames, whatever their pieces; the sans-I/O half of both ends."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._start = 0

    def feed(self, data: Buffer) -> List[Frame]:
        """Take what was received and return the frames that are now complete, in order."""
        buffer = self._buffer
        buffer += data
        frames: List[Frame] = []
        start = self._start
        while len(buffer) - start >= PREFIX.size:
            view = memoryview(buffer)
            kind, header_length, request_id, payload_length = decode_prefix(view[start : start + PREFIX.size])
            view.release()
            body = start + PREFIX.size
            end = body + header_length + payload_length
            if len(buffer) < end:
                break
            header = decode_header(buffer[body : body + header_length]) if header_length else {}
            payload = bytes(buffer[body + header_length : end])
            frames.append(Frame(kind, request_id, header, payload))
            start = end
        if start == len(buffer):
            buffer.clear()
            start = 0
        elif start > 1 << 16:
            del buffer[:start]
            start = 0
        self._start = start
        return frames


def map_file(path: str, length: int) -> Buffer:
    """Map a payload file read-only; the mapping lives as long as someone holds it, whoever unlinks the name.

    Who unlinks: the server, always. It keeps a request's file until the request is answered, because a retry on
    another worker reads it again, and unlinks an answer's file as soon as it is mapped.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # a pipe in its place holds nobody up
    try:
        if os.fstat(descriptor).st_size < length:
            raise ProtocolError("payload file {} is shorter than {} bytes".format(path, length))
        mapped = memoryview(mmap.mmap(descriptor, length, access=mmap.ACCESS_READ)) if length else b""
    finally:
        os.close(descriptor)
    return mapped


def write_file(directory: str, name: str, payload: Buffer) -> str:
    """Write a payload to a new private file (mode 0600) in ``directory`` and return its path.

    Raises ``OSError`` when there is no room for it; nothing is left then.
    """
    path = os.path.join(directory, name)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(payload)
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return path


def take_payload(frame: Frame) -> Buffer:
    """Return the frame's payload, mapping the file that the header names when it is a large one."""
    file: Optional[Dict[str, Any]] = frame.header.get("file")
    return frame.payload if file is None else map_file(file["path"], file["length"])
