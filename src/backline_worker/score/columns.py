"""Gives the frame of a chunk the types that its columns have in the whole file.

How: each format can write *witnesses*, rows that stand for the letters of ``column_types``. A chunk that is read behind
the witnesses of the whole file's letters gets the whole file's types, from the very code that would have read the whole
file, and the witnesses are cut off again. Where the chunk alone has these types already, it is read alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

from .. import column_types
from ..column_types import Types
from ..errors import DecodeError
from ..records import split

if TYPE_CHECKING:
    from pandas import DataFrame

RAW = " raw"
Classes = Dict[str, str]
"""The type of each column, as text that is equal for equal types."""


class Rows:
    """The rows of one chunk, in one format. Made anew for each chunk; ``reader`` lives on."""

    csv = False

    def __init__(self, reader: Reader) -> None:
        self.reader = reader

    def read(self, witnesses: Mapping[str, str]) -> Optional[DataFrame]:
        """Return the chunk's rows with an index from 0, typed together with the witnesses; ``None``: it has no rows.

        Raises ``RequestError``.
        """
        raise NotImplementedError

    def letters(self, frame: DataFrame, known: Mapping[str, str], *, exact: bool) -> Types:
        """Return the letters of the chunk, whose rows alone are ``frame``; ``exact``: none may be missing."""
        raise NotImplementedError

    def hides_letters(self, frame: DataFrame) -> bool:
        """Say whether there may be values whose letters matter and that do not show in the types of the columns."""
        return False

    def count(self) -> int:
        """Return how many records there are, blank ones too."""
        raise NotImplementedError

    def part(self, start: int, end: int) -> Rows:
        """Return the records from ``start`` to before ``end``."""
        raise NotImplementedError

    def without(self, places: Sequence[int]) -> Rows:
        """Return all records but these."""
        raise NotImplementedError

    def place_of(self, place: int) -> Tuple[Optional[int], str]:
        """Return the number of line ends before a record, ``None`` where there are no lines, and the record as text."""
        raise NotImplementedError

    def faults(self) -> Dict[int, str]:
        """Return what is wrong with records that can be told to be unreadable by looking at all of them once."""
        return {}


class TextRows(Rows):
    """Records that follow each other in ``body``."""

    def __init__(self, reader: Reader, body: bytes) -> None:
        super().__init__(reader)
        self.body = body
        self._records: Optional[List[Tuple[int, int, int]]] = None

    @property
    def records(self) -> List[Tuple[int, int, int]]:
        """Offset, end and number of lines of each."""
        if self._records is None:
            self._records = list(split(self.body, quotes=self.csv))
        return self._records

    def count(self) -> int:
        return len(self.records)

    def part(self, start: int, end: int) -> Rows:
        return type(self)(self.reader, self.body[self.records[start][0] : self.records[end - 1][1]])

    def without(self, places: Sequence[int]) -> Rows:
        bad = set(places)
        kept = [self.body[start:end] for place, (start, end, _) in enumerate(self.records) if place not in bad]
        return type(self)(self.reader, b"".join(kept))

    def place_of(self, place: int) -> Tuple[Optional[int], str]:
        start, end, _ = self.records[place]
        lines = sum(lines for _, _, lines in self.records[:place])
        return lines, self.body[start:end].decode("utf-8", "replace").rstrip("\r\n")

    def is_blank(self, place: int) -> bool:
        """Say whether the record is one that is skipped."""
        start, end, _ = self.records[place]
        return not self.body[start:end].strip(b" \t\r\n")


class Reader:
    """What is kept between the chunks of a file: which types go with which letters, and whether witnesses pay."""

    def __init__(self) -> None:
        self._classes: Dict[Tuple[Tuple[str, str], ...], Classes] = {}
        self._with_witnesses = False

    def probe(self, types: Mapping[str, str]) -> DataFrame:
        """Return a frame of witnesses alone."""
        raise NotImplementedError

    def class_of(self, frame: DataFrame, place: int, dtype: str) -> str:
        """Return the type of a column as text."""
        return dtype

    def classes(self, frame: DataFrame) -> Classes:
        kinds: Dict[Any, str] = {}
        classes: Classes = {}
        for place, (name, dtype) in enumerate(zip(frame.columns.tolist(), frame.dtypes.tolist())):
            if dtype not in kinds:
                kinds[dtype] = str(dtype)
            classes[str(name)] = self.class_of(frame, place, kinds[dtype])
        return classes

    def classes_for(self, types: Mapping[str, str]) -> Classes:
        """Return the types that columns of these letters have; pandas itself is asked."""
        key = tuple(types.items())
        if key not in self._classes:
            if len(self._classes) > 64:
                self._classes.clear()
            self._classes[key] = self.classes(self.probe(types)) if types else {}
        return self._classes[key]

    def read_final(self, rows: Rows, types: Mapping[str, str]) -> Tuple[Optional[DataFrame], Classes]:
        """Return the chunk's frame with the types that follow from the letters of the whole file, and these types."""
        expected = self.classes_for(types)
        if not self._with_witnesses:
            frame = _alone(rows, types)
            if frame is None or _same(self.classes(frame), expected):
                return frame, expected
            self._with_witnesses = True
        return rows.read(types), expected

    def read(self, rows: Rows, known: Mapping[str, str], *, exact: bool) -> Tuple[Optional[DataFrame], Types, Classes]:
        """Return the chunk's frame, the letters that it adds, and the types of its columns.

        They are those that follow from ``known``, the letters of the chunks before, and from its own. ``None``: the
        chunk has no rows. ``exact``: the letters are all there, whatever it takes. Raises ``RequestError``.
        """
        expected = self.classes_for(known)
        witnesses = known if self._with_witnesses and not exact else {}
        frame = rows.read(witnesses) if witnesses else _alone(rows, known)
        if frame is None:
            return None, {}, expected
        classes = self.classes(frame)
        nothing_new = self._adds_nothing(frame, classes, known, expected, behind=bool(witnesses))
        if known and not exact and nothing_new and not rows.hides_letters(frame):
            return frame, {}, expected
        if witnesses:
            frame = _alone(rows, known)
            assert frame is not None
            classes = self.classes(frame)
        own = rows.letters(frame, known, exact=exact)
        types = column_types.add(known, own, csv=rows.csv)
        expected = self.classes_for(types)
        if not _same(classes, expected):
            frame = rows.read(types)
            assert frame is not None
            self._with_witnesses = True
        return frame, own, expected

    def _adds_nothing(
        self, frame: Any, classes: Classes, known: Mapping[str, str], expected: Classes, *, behind: bool
    ) -> bool:
        """Say whether the chunk has the types that are known, in which case its letters cannot change them.

        ``behind``: it was read behind witnesses.
        """
        if behind:
            # What the witnesses made of a text column does not show in every chunk.
            text = {name for name, letters in known.items() if column_types.is_text(letters)}
            classes = {name: _plain(kind) if name in text else kind for name, kind in classes.items()}
            expected = {name: _plain(kind) if name in text else kind for name, kind in expected.items()}
        if not _same(classes, expected):
            return False
        # A column that is all missing so far is one of floats, and says nothing of what may come.
        return all(frame[name].isnull().all() for name, letters in known.items() if letters == "m" and name in classes)


def _alone(rows: Rows, known: Mapping[str, str]) -> Optional[DataFrame]:
    try:
        return rows.read({})
    except DecodeError:
        # Records without any key make no table alone, and do among others.
        if not known:
            raise
        return rows.read(known)


def _plain(kind: str) -> str:
    return kind[: -len(RAW)] if kind.endswith(RAW) else kind


def _same(one: Classes, other: Classes) -> bool:
    return one == other and list(one) == list(other)
