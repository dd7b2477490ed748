"""Several bodies of one content type, read as few tables."""

from __future__ import annotations

from typing import Callable, Dict, List, Sequence

from ..errors import UnsupportedMediaType
from ..types import Part
from . import arrow_batch, csv_batch, json_batch
from .decoding import choose
from .formats import Format
from .joined import Joined

_UTF8 = ("", "utf-8", "utf8", "us-ascii")


def decode_together(parts: Sequence[Part], *, max_bytes: int) -> List[Joined]:
    """Return a table for each set of two or more parts for which reading together gives what reading each alone does.

    The parts are alike in content type and file name; ``max_bytes`` bounds what each may grow to. Those that are in no
    table have to be read alone, which tells what is wrong with them; nothing is raised for them here.
    """
    try:
        formats = [choose(part, part.data) for part in parts]
    except UnsupportedMediaType:
        return []
    tables: List[Joined] = []
    for wanted, read in _READERS.items():
        places = [
            place for place, (chosen, charset, _) in enumerate(formats) if chosen is wanted and charset.lower() in _UTF8
        ]
        if len(places) > 1:
            tables += [
                Joined(table.frame, [places[member] for member in table.members], table.rows)
                for table in read([parts[place].data for place in places], max_bytes=max_bytes)
            ]
    return tables


_READERS: Dict[Format, Callable[..., List[Joined]]] = {
    Format.CSV: csv_batch.decode_together,
    Format.ARROW_STREAM: arrow_batch.decode_streams_together,
    Format.ARROW_FILE: arrow_batch.decode_files_together,
    Format.JSON: json_batch.decode_together,
    Format.JSON_LINES: json_batch.decode_lines_together,
}
