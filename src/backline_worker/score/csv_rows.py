"""Chunks of CSV: records behind the header of their file."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Tuple

from ..codecs import csv
from ..column_types import TEXT, Types, is_text
from ..errors import EmptyBody
from ..records import split
from .columns import RAW, Reader, TextRows

if TYPE_CHECKING:
    from pandas import DataFrame

_TOKENS = {
    "v": "1",
    "O": "9999999999999999999",
    "H": "99999999999999999999999",
    "N": "-99999999999999999999999",
    "s": "-1",
    "I": "0.5",
    "J": "-0.5",
    "b": "True",
    "m": "NA",
    "t": "x",
    "T": "-x",
    "p": "1_000",
    "P": "-1_000",
    "X": "x",
}
_TRUTH = frozenset({"True", "TRUE", "true", "False", "FALSE", "false"})
# All that pandas takes for a number, and some more: what does not match is none.
_LIKE_NUMBER = re.compile(r"\s*[+-]?(?:inf|infinity|nan|\d*\.?\d*(?:e[+-]?\d*)?)\s*", re.IGNORECASE)
_INTEGER = re.compile(r"\s*[+-]?[0-9]+\s*")
_NUMBER = re.compile(r"\s*[+-]?(?:inf|infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?)\s*", re.IGNORECASE)


class CsvReader(Reader):
    """Knows the header."""

    def __init__(self, header: bytes) -> None:
        super().__init__()
        self.header = header
        self.header_lines = sum(lines for _, _, lines in split(header))
        self.missing = _missing_words()

    def probe(self, types: Mapping[str, str]) -> DataFrame:
        return csv.decode(self.header + _witnesses(types))

    def class_of(self, frame: DataFrame, place: int, dtype: str) -> str:
        """Return the type of a column; " raw" behind it where missing values are text as well (see ``_is_raw``)."""
        name = dtype
        if name not in ("object", "str", "string"):
            return name
        # Nearly always the first cells tell.
        for count in (16, len(frame)):
            cells = frame.iloc[:count, place].tolist()
            found = self._class_of_cells(name, cells, whole=count >= len(frame))
            if found is not None:
                return found
        return name

    def _class_of_cells(self, name: str, cells: List[Any], *, whole: bool) -> Optional[str]:
        """Return the type of a column as far as its first cells tell; ``None``: they do not."""
        if name == "object":
            # Text, truth values with missing ones, or huge integers: one column has one of them.
            first = next((cell for cell in cells if cell is not None and cell == cell), None)
            if first is None:
                return name if whole else None
            name = "object of " + type(first).__name__
            if not isinstance(first, str):
                return name
        raw = self._is_raw(cells, whole=whole)
        return None if raw is None else name + RAW if raw else name

    def _is_raw(self, cells: List[Any], *, whole: bool) -> Optional[bool]:
        """Say whether pandas gave up on a column because its integers are too large, before it met anything else.

        It keeps all as it is written then, missing values too.
        """
        large = False
        for cell in cells:
            if not isinstance(cell, str):
                return False
            if cell in self.missing:
                return True
            if not _INTEGER.fullmatch(cell):
                if large and cell.lstrip()[:1] == "-":
                    continue  # it looks no further than at the sign
                return False
            value = int(cell)
            if not -(2**63) <= value < 2**64:
                return True
            large = large or value >= 2**63
        return bool(cells) if whole else None


class CsvRows(TextRows):
    """Records and the reader that has their header."""

    csv = True

    def read(self, witnesses: Mapping[str, str]) -> Optional[DataFrame]:
        reader: Any = self.reader
        head = reader.header
        count = 0
        if witnesses:
            head += _witnesses(witnesses)
            count = _count(witnesses)
        try:
            frame = csv.decode(head + self.body)
        except EmptyBody:
            return None
        if not count:
            return frame
        return frame.iloc[count:].reset_index(drop=True) if len(frame) > count else None

    def letters(self, frame: DataFrame, known: Mapping[str, str], *, exact: bool) -> Types:
        cells = self._cells() if exact else None
        found: Types = {}
        for place, name in enumerate(frame.columns):
            if cells is not None:
                found[str(name)] = _exact_letters(cells[place], self._missing)
            else:
                found[str(name)] = self._letters(frame, place)
        return found

    def _letters(self, frame: DataFrame, place: int) -> str:
        column = frame.iloc[:, place]
        kind = self.reader.class_of(frame, place, str(column.dtype))
        if kind == "int64":
            return "v?"
        if kind == "uint64":
            return "vO?"
        if kind == "float64":
            values = column.dropna()
            if len(values) == len(column):
                return "vI"
            if not len(values):
                return "m"
            # Integers are floats beside missing values; whether they were written as such does not show any more.
            return "vm?" if (values == values.round()).all() else "vIm"
        if kind == "bool":
            return "b"
        if kind == "object of bool":
            return "bm"
        if kind == "object of int":
            return "vHm?" if column.isnull().any() else "vH?"
        letters, rest = _start_letters(column.tolist(), self._missing)
        if is_text(letters) or any(_is_text(cell, self._missing) for cell in rest):
            too_large = not set("OHN").isdisjoint(letters)
            return letters + ("" if is_text(letters) else TEXT) + ("?" if too_large else "")
        return letters + "X?"

    @property
    def _missing(self) -> Any:
        return self.reader.missing  # type: ignore[attr-defined]

    def faults(self) -> Dict[int, str]:
        """Name the records that have more or fewer fields than the header."""
        import csv as csv_module

        reader: Any = self.reader
        wanted = len(next(csv_module.reader(io.StringIO(reader.header.decode("utf-8", "replace")))))
        found: Dict[int, str] = {}
        for place, (start, end, _) in enumerate(self.records):
            if self.is_blank(place):
                continue
            text = self.body[start:end].decode("utf-8", "replace")
            try:
                fields = len(next(csv_module.reader(io.StringIO(text, newline=""))))
            except (csv_module.Error, StopIteration):
                continue  # whoever reads it says better what is wrong
            if fields != wanted:
                found[place] = "{} field{} where the header has {}".format(fields, "" if fields == 1 else "s", wanted)
        return found

    def _cells(self) -> List[List[str]]:
        """Return the cells of each column as they are written."""
        import pandas

        reader: Any = self.reader
        frame = pandas.read_csv(
            io.BytesIO(reader.header + self.body), dtype=str, keep_default_na=False, na_filter=False, index_col=False
        )
        return [frame.iloc[:, place].tolist() for place in range(len(frame.columns))]


def _exact_letters(cells: List[str], missing: Any) -> str:
    letters: Dict[str, bool] = {}
    for cell in cells:
        letters.update(dict.fromkeys(_letters_of(cell, missing), True))
    return "".join(letters)


def _start_letters(cells: List[Any], missing: Any) -> Tuple[str, List[Any]]:
    """Return the letters up to the first cell that is no integer, and the cells behind it."""
    letters: Dict[str, bool] = {}
    for place, cell in enumerate(cells):
        of_cell = _letters_of(cell, missing) if isinstance(cell, str) else "m"
        letters.update(dict.fromkeys(of_cell, True))
        if of_cell in ("I", "J", "b", "p", "P", "t", "T"):
            return "".join(letters), cells[place + 1 :]
    return "".join(letters), []


def _letters_of(cell: str, missing: Any) -> str:
    if cell in missing:
        return "m"
    if _INTEGER.fullmatch(cell):
        value = int(cell)
        if value >= 2**63:
            return "O" if value < 2**64 else "H"
        if value < -(2**63):
            return "N"
        return "vs" if "-" in cell else "v"
    signed = cell.lstrip()[:1] == "-"
    if _NUMBER.fullmatch(cell):
        return "J" if signed else "I"
    if cell in _TRUTH:
        return "b"
    try:
        int(cell)
    except ValueError:
        return "T" if signed else TEXT
    return "P" if signed else "p"


def _is_text(cell: Any, missing: Any) -> bool:
    return isinstance(cell, str) and not _LIKE_NUMBER.fullmatch(cell) and cell not in _TRUTH and cell not in missing


def _missing_words() -> Any:
    from pandas._libs.parsers import STR_NA_VALUES

    return frozenset(STR_NA_VALUES)


def _count(types: Mapping[str, str]) -> int:
    return max(len(_tokens(letters)) for letters in types.values())


def _tokens(letters: str) -> List[str]:
    return [_TOKENS[letter] for letter in letters if letter != "?"] or ["NA"]


def _witnesses(types: Mapping[str, str]) -> bytes:
    columns = [_tokens(letters) for letters in types.values()]
    rows = max(map(len, columns))
    padded = [tokens + tokens[-1:] * (rows - len(tokens)) for tokens in columns]
    return "".join(",".join(row) + "\n" for row in zip(*padded)).encode()
