"""The fields of plain CSV rows, and what pandas could make of each: found for all fields at a time, by numpy.

A field's class is a bit, so that the classes of several fields are put together with a bitwise or.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Dict

INTEGER, FRACTION, MISSING, TRUTH, WORD, UNSURE, LONG = 1, 2, 4, 8, 16, 32, 64
"""Certain of a field: digits; a number with a point or exponent; no value; a truth value; text. Or nothing is certain.

``LONG`` is an integer that may not be exact as a float. All this holds only where pandas agrees that the field is a
number, a truth value or missing: ``1-``, ``1e`` and, in old versions, ``None`` are text. ``WORD`` is certain by itself.
"""

# What the bytes of a field are. Quotes are nothing: they do not matter to pandas' inference.
_DIGIT, _POINT, _EXPONENT, _SIGN, _BLANK, _FOREIGN = 1, 2, 4, 8, 16, 32
_COMMA, _LINE_FEED, _QUOTE, _DOT, _PLUS, _MINUS, _ZERO, _NINE = b',\n".+-09'
_BYTES_OF = (
    (b"0123456789", _DIGIT),
    (b".", _POINT),
    (b"eE", _EXPONENT),
    (b"+-", _SIGN),
    (b" \t", _BLANK),
    (b',\n"', 0),
)

_EXACT_CHARACTERS = 15  # integers of so many digits are exact as floats, however they are parsed
_NO_VALUE = (
    *("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA"),
    *("NULL", "NaN", "None", "n/a", "nan", "null"),
)
_SPECIAL: Dict[bytes, int] = {name.encode(): MISSING for name in _NO_VALUE}
_SPECIAL.update(dict.fromkeys((b"True", b"TRUE", b"true", b"False", b"FALSE", b"false"), TRUTH))
_FIRST_OF_SPECIAL = b"iInNtTfF#<+-1 \t\n"
# Whatever any version of pandas may take for a number, a truth value or a missing value.
_PERHAPS_SPECIAL = re.compile(
    rb"[\s\"]*(?:[+-]?(?:inf|infinity|nan|1\.#\w+|(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]*)?)"
    rb"|true|false|null|none|<?na>?|#?n/?a|#n/a n/a)[\s\"]*",
    re.IGNORECASE,
)


class BadQuotes(Exception):
    """Quotes do not stand around whole fields; ``places`` are the offsets of some of them."""

    def __init__(self, places: Any) -> None:
        super().__init__("quotes inside a field")
        self.places = places


class Fields:
    """The fields of rows that each end with a line feed; ``ends`` are the offsets of the separators that end them.

    The rows must have no NUL, no carriage return and an even number of quotes. Raises ``BadQuotes``.
    """

    def __init__(self, data: bytes) -> None:
        import numpy

        self._data = data
        self._bytes = numpy.frombuffer(data, dtype=numpy.uint8)
        self._has_quotes = b'"' in data
        separators = (self._bytes == _COMMA) | (self._bytes == _LINE_FEED)
        self._kinds = numpy.frombuffer(bytearray(data).translate(_tables().bytes), dtype=numpy.uint8)
        if self._has_quotes:
            inside = _inside_quotes(self._bytes)
            self._kinds[separators & inside] = _BLANK  # a line feed may stand around a number, as blanks may
            self._kinds[inside & (self._bytes == _COMMA)] = _FOREIGN
            separators &= ~inside
        self.ends = numpy.flatnonzero(separators)
        self._last_of_row = numpy.flatnonzero(self._bytes[self.ends] == _LINE_FEED)
        self.row_ends = self.ends[self._last_of_row]
        """The offsets of the line feeds that end rows."""

    def misfits(self, columns: int) -> Any:
        """Return for each row whether it has not so many fields, or is or starts with a blank, which is skipped."""
        import numpy

        first = numpy.empty_like(self.row_ends)
        first[0] = 0
        numpy.add(self.row_ends[:-1], 1, out=first[1:])
        bad = _tables().blanks[self._bytes[first]]
        bad |= numpy.diff(self._last_of_row, prepend=-1) != columns
        return bad

    def classes(self) -> Any:
        """Return the class of each field."""
        import numpy

        data, kinds, ends = self._bytes, self._kinds, self.ends
        starts = numpy.empty_like(ends)
        starts[0] = 0
        numpy.add(ends[:-1], 1, out=starts[1:])
        # A sign after a digit is in no number: most dates and ranges are told by it.
        signs = numpy.flatnonzero(kinds[1:] == _SIGN)
        kinds[signs[kinds[signs] == _DIGIT] + 1] = _FOREIGN
        found = numpy.bitwise_or.reduceat(kinds, starts)
        points = kinds == _POINT
        if numpy.count_nonzero(points) != numpy.count_nonzero(found & _POINT):
            several = numpy.add.reduceat(points, starts, dtype=numpy.intp) > 1
            found[several] |= _FOREIGN
        first = data[starts]
        if self._has_quotes:
            quoted = numpy.flatnonzero(first == _QUOTE)
            first[quoted] = data[starts[quoted] + 1]
        classes = _tables().fields[found]
        lengths = ends - starts
        classes[(classes == INTEGER) & (lengths > _EXACT_CHARACTERS)] |= LONG
        starts_as = _tables().starts[first]
        # No number starts with its exponent.
        classes[(classes == FRACTION) & (starts_as == _EXPONENT)] = WORD
        doubtful = (classes == UNSURE) | ((classes == WORD) & (starts_as == _DIGIT))
        if self._has_quotes:
            doubtful |= (classes == MISSING) & (lengths > 0)
        for place in numpy.flatnonzero(doubtful).tolist():
            field = self._data[starts[place] : ends[place]]
            classes[place] = _class_of(field)
        return classes


def _inside_quotes(data: Any) -> Any:
    """Return for each byte whether it stands inside quotes, the opening one included."""
    import numpy

    quotes = data == _QUOTE
    places = numpy.flatnonzero(quotes)
    opening, closing = places[0::2], places[1::2]
    separators = _tables().separators
    # The first byte is a row's first, and the last one is a line feed. Two quotes in a field stand for one.
    opens = separators[data[opening - 1]] | (opening == 0)
    opens[1:] |= opening[1:] == closing[:-1] + 1
    closes = separators[data[closing + 1]]
    closes[:-1] |= opening[1:] == closing[:-1] + 1
    if not (opens.all() and closes.all()):
        raise BadQuotes(places[~numpy.repeat(opens & closes, 2)])
    return numpy.cumsum(quotes) % 2 == 1


def _class_of(field: bytes) -> int:
    """Return the class of a field that the kinds of its bytes do not tell."""
    if field[:1] == b'"':
        if not field.strip(b'"') and len(field) == 2:
            return MISSING
        field = field[1:-1]
    return _SPECIAL.get(field) or (UNSURE if _PERHAPS_SPECIAL.fullmatch(field) else WORD)


class _Tables:
    """Look-up tables: what a byte is, and what a field is by what its bytes are."""

    def __init__(self) -> None:
        import numpy

        self.separators = numpy.zeros(256, dtype=bool)
        self.separators[[_COMMA, _LINE_FEED]] = True
        self.blanks = numpy.zeros(256, dtype=bool)
        self.blanks[list(b" \t\n")] = True
        self.bytes = bytearray([_FOREIGN]) * 256
        for characters, kind in _BYTES_OF:
            for character in characters:
                self.bytes[character] = kind
        self.fields = numpy.array([_field(kinds) for kinds in range(64)], dtype=numpy.uint8)
        # What a field that starts with this byte has to be looked at for: special words, and exponents.
        self.starts = numpy.zeros(256, dtype=numpy.uint8)
        self.starts[list(_FIRST_OF_SPECIAL)] = _DIGIT
        self.starts[list(b"eE")] = _EXPONENT


def _field(kinds: int) -> int:
    if not kinds:
        return MISSING
    if kinds & _FOREIGN or not kinds & _DIGIT:
        return WORD
    if kinds & _BLANK:
        return UNSURE
    return FRACTION if kinds & (_POINT | _EXPONENT) else INTEGER


@functools.lru_cache(maxsize=1)
def _tables() -> _Tables:
    return _Tables()
