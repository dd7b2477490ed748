"""A page of shared memory that says what the worker is doing, readable after its death.

The server needs it when a worker dies: had the request been started at all, and was it being decoded (then the body is
at fault) or predicted? A message cannot tell, as a dead process sends none; a store to a mapped page costs no system
call and survives.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Tuple

_LAYOUT = struct.Struct("=QQ")
_LAST_CHAT = struct.Struct("=Q")
_SIZE = _LAYOUT.size + _LAST_CHAT.size
STAGES = ("idle", "decode", "predict", "encode")


class StatusPage:
    """Request id and stage, and the last chat that was begun. Created by the server, written by the worker.

    Chats run beside each other, and their ids go up in the order in which a worker gets them.
    """

    def __init__(self, path: str, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                # Written, not only made long: a page that does not exist yet kills who touches it once memory is full.
                os.write(descriptor, bytes(_SIZE))
            self._page = mmap.mmap(descriptor, _SIZE)
        finally:
            os.close(descriptor)

    def write(self, request_id: int, stage: str) -> None:
        """Say which request is at which of ``STAGES``."""
        _LAYOUT.pack_into(self._page, 0, request_id, STAGES.index(stage))

    def read(self) -> Tuple[int, str]:
        """Return request id and stage as last written, also if that request is done; ``(0, "idle")`` at first."""
        request_id, stage = _LAYOUT.unpack_from(self._page, 0)
        return request_id, STAGES[stage] if stage < len(STAGES) else "idle"

    def write_last_chat(self, request_id: int) -> None:
        """Say which chat was begun last."""
        _LAST_CHAT.pack_into(self._page, _LAYOUT.size, request_id)

    def read_last_chat(self) -> int:
        """Return the id of the chat that was begun last, or 0."""
        last: int = _LAST_CHAT.unpack_from(self._page, _LAYOUT.size)[0]
        return last

    def close(self) -> None:
        """Unmap; the file itself belongs to the server."""
        self._page.close()
