"""Several JSON bodies read as one table wherever that is provably what reading each alone gives.

Each body is parsed by itself; what is shared is the making of the frame, and with it the call of the model. A column's
type is that of all its values, so bodies share a table only if they have the same columns in the same order, and in
each column values of the same class: numbers with a point or missing, integers, truth values, text, or nested values.
The class tells the type, except for integers that are too large: those make a column of objects, also of the table's,
and so the table's own types have to be those foreseen.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from ..errors import RequestError
from ..types import Buffer
from . import json
from ._libraries import pandas_for
from .joined import Joined

_NONE = type(None)
_Key = Tuple[Tuple[str, ...], str]


def decode_together(bodies: Sequence[Buffer], *, max_bytes: int) -> List[Joined]:
    """Return a table for each set of two or more documents that can share one; the others have to be read alone.

    Nothing is raised for bodies that are at fault: reading them alone will tell.
    """
    return _together(json.read, bodies, max_bytes)


def decode_lines_together(bodies: Sequence[Buffer], *, max_bytes: int) -> List[Joined]:
    """Do the same for JSON lines."""
    return _together(json.read_lines, bodies, max_bytes)


def _together(read: Callable[..., json.Table], bodies: Sequence[Buffer], max_bytes: int) -> List[Joined]:
    groups: Dict[_Key, List[Tuple[int, json.Table]]] = {}
    known: Dict[Tuple[type, ...], Optional[str]] = {}
    for place, body in enumerate(bodies):
        try:
            table = read(body, max_bytes=max_bytes)
        except RequestError:
            continue
        if len(table.rows) == 1:
            types = tuple(map(type, table.rows[0]))
            if types not in known:
                known[types] = _classes(table)
            classes = known[types]
        else:
            classes = _classes(table)
        if classes is not None:
            groups.setdefault((tuple(table.names), classes), []).append((place, table))
    joined = [_join(classes, members) for (_, classes), members in groups.items() if len(members) > 1]
    return [table for table in joined if table is not None]


def _join(classes: str, members: Sequence[Tuple[int, json.Table]]) -> Optional[Joined]:
    rows = [row for _, table in members for row in table.rows]
    frame = json.to_frame(pandas_for("reading JSON"), json.Table(members[0][1].names, rows))
    for found, wanted in zip(frame.dtypes.tolist(), classes):
        if found != {"f": "float64", "i": "int64"}.get(wanted, found):
            return None
    return Joined(frame, [place for place, _ in members], [len(table.rows) for _, table in members])


def _classes(table: json.Table) -> Optional[str]:
    """Return a letter for the type that each column has alone, ``None`` where one is not certain."""
    found = [_class(values) for values in zip(*table.rows)]
    return None if "" in found else "".join(found)


def _class(values: Sequence[Any]) -> str:
    kinds = set(map(type, values))
    if kinds == {int}:
        return "i"
    if kinds == {bool}:
        return "b"
    if kinds <= {float, int, _NONE}:
        return "f"
    if kinds <= {str, _NONE}:
        return "s"
    if kinds <= {list, dict, _NONE}:
        return "n"
    return ""
