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
STAGES = ("idle", "decode", "predict", "encode")


class StatusPage:
    """Request id and stage. Created by the server, written by the worker."""

    def __init__(self, path: str, *, create: bool = False) -> None:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if create else 0)
        descriptor = os.open(path, flags, 0o600)
        try:
            if create:
                # Written, not only made long: a page that does not exist yet kills who touches it once memory is full.
                os.write(descriptor, bytes(_LAYOUT.size))
            self._page = mmap.mmap(descriptor, _LAYOUT.size)
        finally:
            os.close(descriptor)

    def write(self, request_id: int, stage: str) -> None:
        """Say which request is at which of ``STAGES``."""
        _LAYOUT.pack_into(self._page, 0, request_id, STAGES.index(stage))

    def read(self) -> Tuple[int, str]:
        """Return request id and stage as last written, also if that request is done; ``(0, "idle")`` at first."""
        request_id, stage = _LAYOUT.unpack_from(self._page, 0)
        return request_id, STAGES[stage] if stage < len(STAGES) else "idle"

    def close(self) -> None:
        """Unmap; the file itself belongs to the server."""
        self._page.close()
