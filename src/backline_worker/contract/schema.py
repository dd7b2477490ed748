"""``typeSchema``: the rules a model states about the columns it takes, and a transform about those it gives.

A column of text can be a category or free text, and only the model knows which; so a column has a *set* of types that
it may be, and a rule is broken only where no reading of the column keeps it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, FrozenSet, List, Mapping, Optional, Sequence, Tuple

if TYPE_CHECKING:
    from pandas import DataFrame, Series

DATA_TYPES = ("NUM", "CAT", "TXT", "DATE", "DATE_DURATION", "IMG", "COUNT_DICT", "GEO")
_SET_CONDITIONS = ("EQUALS", "IN", "NOT_EQUALS", "NOT_IN")
_COMPARISONS: Dict[str, Callable[[int, int], bool]] = {
    "GREATER_THAN": lambda count, limit: count > limit,
    "LESS_THAN": lambda count, limit: count < limit,
    "NOT_GREATER_THAN": lambda count, limit: count <= limit,
    "NOT_LESS_THAN": lambda count, limit: count >= limit,
}
_CONDITIONS: Dict[str, Sequence[str]] = {
    "data_types": _SET_CONDITIONS,
    "sparse": ("EQUALS",),
    "number_of_columns": _SET_CONDITIONS + tuple(_COMPARISONS),
    "contains_missing": ("EQUALS",),
}
_INPUT_VALUES = {"sparse": ("FORBIDDEN", "SUPPORTED", "REQUIRED"), "contains_missing": ("FORBIDDEN", "SUPPORTED")}
_OUTPUT_VALUES = {"sparse": ("NEVER", "DYNAMIC", "ALWAYS", "IDENTITY"), "contains_missing": ("NEVER", "DYNAMIC")}

_ANY: FrozenSet[str] = frozenset(DATA_TYPES)
_SHOWN_COLUMNS = 10
_SAMPLE_ROWS = 20
# The first characters of a base64-encoded JPEG, PNG, GIF, BMP, WebP and TIFF.
_IMAGE = re.compile(r"^(data:image/|/9j/|iVBORw0KGgo|R0lGOD|Qk[0-3]|UklGR|SUkqA|TU0AK)")
_GEOGRAPHY = re.compile(
    r"^\s*((MULTI)?(POINT|LINESTRING|POLYGON)|GEOMETRYCOLLECTION)\s*Z?M?\s*\(|^\s*\{\s*\"type\"", re.IGNORECASE
)
_DATE = re.compile(r"^\s*(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4})([T ]\d{1,2}:\d{2}.*)?\s*$")
_COUNTS = re.compile(r"^\s*[\[{].*[\]}]\s*$", re.DOTALL)


@dataclass(frozen=True)
class Rule:
    """One requirement: ``field`` ``condition`` ``values``, with where it stands in the metadata."""

    field: str
    condition: str
    values: Tuple[Any, ...]
    path: str

    def __str__(self) -> str:
        return "{} {} {} ({})".format(self.field, self.condition, ", ".join(map(str, self.values)), self.path)


def parse_rules(raw: Sequence[Mapping[str, Any]], path: str, *, output: bool) -> List[Rule]:
    """Return the rules of one list; raises ``ValueError`` with the path of what is wrong."""
    rules = []
    for position, entry in enumerate(raw):
        where = "{}[{}]".format(path, position)
        field = _choice(entry, "field", tuple(_CONDITIONS), where).lower()
        condition = _choice(entry, "condition", _CONDITIONS[field], where).upper()
        rules.append(Rule(field, condition, _values(entry, field, condition, where, output), where))
    return rules


def _choice(entry: Mapping[str, Any], key: str, known: Sequence[str], where: str) -> str:
    value = entry.get(key)
    if isinstance(value, str) and value.lower() in [name.lower() for name in known]:
        return value
    raise ValueError("{}.{}: expected one of {}, got {!r}".format(where, key, ", ".join(known), value))


def _values(entry: Mapping[str, Any], field: str, condition: str, where: str, output: bool) -> Tuple[Any, ...]:
    value = entry.get("value")
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    where += ".value"
    if not values:
        raise ValueError("{}: expected a value, got an empty list".format(where))
    if field == "number_of_columns":
        for item in values:
            if isinstance(item, bool) or not isinstance(item, int) or item < 0:
                raise ValueError("{}: expected a number of columns, got {!r}".format(where, item))
        if condition in _COMPARISONS and len(values) > 1:
            raise ValueError("{}: {} compares with one number, got {}".format(where, condition, len(values)))
        return values
    known = DATA_TYPES if field == "data_types" else (_OUTPUT_VALUES if output else _INPUT_VALUES)[field]
    names = tuple(item.upper() if isinstance(item, str) else item for item in values)
    for item in names:
        if item not in known:
            raise ValueError("{}: expected one of {}, got {!r}".format(where, ", ".join(known), item))
    if field != "data_types" and len(names) > 1:
        raise ValueError("{}: expected one value, got {}".format(where, len(names)))
    return names


def violations(rules: Sequence[Rule], frame: DataFrame, *, source_is_sparse: bool = False) -> List[str]:
    """Return a sentence for each rule that the frame breaks, naming the rule and the columns; empty when it keeps all.

    ``source_is_sparse`` says whether what a transform was given was sparse, for the rule ``sparse EQUALS IDENTITY``.
    """
    problems = []
    for rule in rules:
        found = _CHECKS[rule.field](rule, frame, source_is_sparse)
        if found is not None:
            problems.append("{}: {}".format(rule, found))
    return problems


def is_sparse(frame: DataFrame) -> bool:
    """Say whether any column is stored sparsely."""
    return any(_is_sparse_column(dtype) for dtype in frame.dtypes)


def _is_sparse_column(dtype: Any) -> bool:
    return type(dtype).__name__ == "SparseDtype"


def _check_data_types(rule: Rule, frame: DataFrame, _: bool) -> Optional[str]:
    named = frozenset(rule.values)
    wrong = []
    for position, name in enumerate(frame.columns):
        possible = column_types(frame.iloc[:, position])
        broken = possible <= named if rule.condition.startswith("NOT_") else not possible & named
        if broken:
            wrong.append("{} ({})".format(name, " or ".join(sorted(possible))))
    return "wrong are {}".format(_listed(wrong)) if wrong else None


def _check_sparse(rule: Rule, frame: DataFrame, source_is_sparse: bool) -> Optional[str]:
    value = rule.values[0]
    sparse = is_sparse(frame)
    if value == "IDENTITY":
        value = "ALWAYS" if source_is_sparse else "NEVER"
    if value in ("FORBIDDEN", "NEVER") and sparse:
        columns = [name for name, dtype in zip(frame.columns, frame.dtypes) if _is_sparse_column(dtype)]
        return "sparse are {}".format(_listed(columns))
    if value in ("REQUIRED", "ALWAYS") and not sparse:
        return "the data is dense"
    return None


def _check_number_of_columns(rule: Rule, frame: DataFrame, _: bool) -> Optional[str]:
    count = len(frame.columns)
    if rule.condition in _COMPARISONS:
        kept = _COMPARISONS[rule.condition](count, rule.values[0])
    else:
        kept = (count in rule.values) is not rule.condition.startswith("NOT_")
    return None if kept else "there are {}: {}".format(count, _listed(list(frame.columns)))


def _check_missing(rule: Rule, frame: DataFrame, _: bool) -> Optional[str]:
    if rule.values[0] in ("SUPPORTED", "DYNAMIC"):
        return None
    missing = frame.isna().to_numpy().any(axis=0)
    columns = [name for name, has_missing in zip(frame.columns, missing) if has_missing]
    return "values are missing in {}".format(_listed(columns)) if columns else None


_CHECKS: Dict[str, Callable[[Rule, DataFrame, bool], Optional[str]]] = {
    "data_types": _check_data_types,
    "sparse": _check_sparse,
    "number_of_columns": _check_number_of_columns,
    "contains_missing": _check_missing,
}


def column_types(column: Series[Any]) -> FrozenSet[str]:
    """Return the data types that a column may be, by its dtype and, for text, by its first values."""
    kind = getattr(column.dtype, "kind", "O")
    if type(column.dtype).__name__ == "CategoricalDtype":
        return frozenset({"CAT"})
    if kind == "b":
        return frozenset({"NUM", "CAT"})
    if kind in "iufc":
        return _ANY if kind == "f" and len(column) and column.isna().all() else frozenset({"NUM"})
    if kind == "M":
        return frozenset({"DATE"})
    if kind == "m":
        return frozenset({"DATE_DURATION"})
    return _text_types(column.dropna().head(_SAMPLE_ROWS).tolist())


def _text_types(values: List[Any]) -> FrozenSet[str]:
    if not values:
        return _ANY
    if all(isinstance(value, bytes) for value in values):
        return frozenset({"IMG"})
    if all(isinstance(value, (dict, list)) for value in values):
        return frozenset({"COUNT_DICT", "GEO"})
    if all(isinstance(value, (bool, int, float)) for value in values):
        return frozenset({"NUM", "CAT"})
    texts = [str(value) for value in values]
    if all(_IMAGE.match(text) for text in texts):
        return frozenset({"IMG"})
    possible = {"CAT", "TXT"}
    for name, pattern in (("GEO", _GEOGRAPHY), ("DATE", _DATE), ("COUNT_DICT", _COUNTS)):
        if all(pattern.match(text) for text in texts):
            possible.add(name)
    return frozenset(possible)


def _listed(names: Sequence[Any]) -> str:
    shown = ", ".join(map(str, names[:_SHOWN_COLUMNS]))
    return shown if len(names) <= _SHOWN_COLUMNS else "{} and {} more".format(shown, len(names) - _SHOWN_COLUMNS)
