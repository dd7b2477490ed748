"""Chunks of JSON lines."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional

from ..codecs import json as json_codec
from ..column_types import Types
from ..errors import EmptyBody
from .columns import Reader, TextRows

if TYPE_CHECKING:
    from pandas import DataFrame

_VALUES: Dict[str, Any] = {
    "i": 1,
    "n": -1,
    "u": 2**63 + 1,
    "g": 2**70,
    "f": 0.5,
    "s": "x",
    "t": True,
    "m": None,
    "l": [1],
    "d": {"a": 1},
}


class JsonReader(Reader):
    """Nothing beside what each reader keeps."""

    def probe(self, types: Mapping[str, str]) -> DataFrame:
        return json_codec.decode_lines(_witnesses(types))


class JsonRows(TextRows):
    """Lines."""

    def read(self, witnesses: Mapping[str, str]) -> Optional[DataFrame]:
        count = 0
        data = self.body
        if witnesses:
            count = _count(witnesses)
            data = _witnesses(witnesses) + data
        try:
            frame = json_codec.decode_lines(data)
        except EmptyBody:
            return None
        if not count:
            return frame
        return frame.iloc[count:].reset_index(drop=True) if len(frame) > count else None

    def hides_letters(self, frame: DataFrame) -> bool:
        """Look for integers that are too large for int64 and became floats beside missing values."""
        floats = frame.select_dtypes("float64")
        return bool((floats.abs() >= 2.0**63).to_numpy().any())

    def letters(self, frame: DataFrame, known: Mapping[str, str], *, exact: bool) -> Types:
        records = [json.loads(line) for line in self.body.split(b"\n") if line.strip()]
        found: Types = {}
        for name in [*known, *(name for name in map(str, frame.columns) if name not in known)]:
            found[name] = "".join({_letter(record.get(name)): True for record in records})
        return found


def _letter(value: Any) -> str:
    if value is None:
        return "m"
    if value is True or value is False:
        return "t"
    if isinstance(value, int):
        if -(2**63) <= value < 2**63:
            return "n" if value < 0 else "i"
        return "u" if 0 <= value < 2**64 else "g"
    if isinstance(value, float):
        return "f"
    return "s" if isinstance(value, str) else "l" if isinstance(value, list) else "d"


def _count(types: Mapping[str, str]) -> int:
    return max(len(letters) for letters in types.values())


def _witnesses(types: Mapping[str, str]) -> bytes:
    lines = []
    for row in range(_count(types)):
        values = {name: _VALUES[letters[min(row, len(letters) - 1)]] for name, letters in types.items()}
        lines.append(json.dumps(values) + "\n")
    return "".join(lines).encode()
