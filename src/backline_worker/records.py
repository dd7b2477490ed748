"""Where records end: in CSV, where a line feed inside quotes ends none, and in JSON lines.

A quote opens a field only where the field starts; anywhere else it is a character like others, and so it is for pandas.
Standard library only: the server cuts headers off with it. With numpy, quotes are looked at all at once.
"""

from __future__ import annotations

import re
from typing import Iterator, Optional, Tuple

# A quoted field with its closing quote, if that is there; or the end of a line.
_QUOTED_OR_END = re.compile(rb'(?<![^,\r\n])"[^"]*(?:""[^"]*)*("?)|\n|\r\n?')


def last_end(data: bytes, *, quotes: bool) -> int:
    """Return the offset behind the last record that ends in ``data``, which starts with a record; 0: none ends there.

    ``quotes``: it is CSV.
    """
    end = data.rfind(b"\n") + 1
    if not end and b"\r" in data[:-1]:
        # Old Macs ended lines so. At the very end it may be half of a pair.
        end = data.rfind(b"\r", 0, len(data) - 1) + 1
    if not quotes or data.find(b'"', 0, end) < 0:
        return end
    ends = _last_end_by_parity(data)
    if ends is not None:
        return ends
    end = 0
    for _start, end, _lines in split(data, final=False):  # noqa: B007 - the last one
        pass
    return end


def _last_end_by_parity(data: bytes) -> Optional[int]:
    """Return the offset where every other quote opens a field, which makes those between all quoted; else ``None``."""
    try:
        import numpy
    except ImportError:
        return None
    array = numpy.frombuffer(data, dtype=numpy.uint8)
    places = numpy.flatnonzero(array == 34)
    opening = places[::2]
    before = array[opening[1:] - 1] if opening[0] == 0 else array[opening - 1]
    # Behind a closing quote: a quote in quotes is written twice.
    if not numpy.isin(before, (10, 13, 34, 44)).all():
        return None
    end = len(data)
    while True:
        end = data.rfind(b"\n", 0, end)
        if end < 0:
            return 0 if b"\r" not in data else None
        quotes_before = int(numpy.searchsorted(places, end))
        if quotes_before % 2 == 0:
            return end + 1
        end = int(places[quotes_before - 1])


def split(data: bytes, *, quotes: bool = True, final: bool = True) -> Iterator[Tuple[int, int, int]]:
    """Yield offset, end and number of line ends of each record; ``final``: the last one may end with the data."""
    start = lines = 0
    if not quotes:
        while start < len(data):
            end = data.find(b"\n", start) + 1 or len(data)
            if end == len(data) and not data.endswith(b"\n") and not final:
                return
            yield start, end, 1
            start = end
        return
    for match in _QUOTED_OR_END.finditer(data):
        text = match.group()
        if text[:1] != b'"':
            yield start, match.end(), lines + 1
            start, lines = match.end(), 0
        elif match.group(1):
            lines += text.count(b"\n") or text.count(b"\r")
        else:
            break
    if final and start < len(data):
        yield start, len(data), lines + 1
