"""Offers a type schema for a sample: the rules that its columns keep, written as ``typeSchema`` has them."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Dict, FrozenSet, List

from ..contract.schema import column_types, is_sparse, parse_rules, violations
from ..types import Part

if TYPE_CHECKING:
    from ..model import Model

_PATH = "typeSchema.input_requirements"
# Of what a column may be, the first: text that looks like a date is one, and only then a text.
_PREFERENCE = ("NUM", "DATE", "DATE_DURATION", "IMG", "GEO", "COUNT_DICT")
_CATEGORIES = 0.5  # fewer different values than this share of the rows: a category


def offer_schema(model: Model, job: Dict[str, Any]) -> Dict[str, Any]:
    """Read ``job["input"]`` as the model would; return the type of each column and the rules. Raises ``ReportedError``.

    A rule says what was seen: a sample without a missing value gives a schema that forbids them.
    """
    with open(job["input"], "rb") as file:
        data = file.read()
    table = model.read_table([Part("X", job["content_type"], data, os.path.basename(job["input"]))], "")
    if not hasattr(table, "columns"):
        return {"columns": [], "rules": []}
    columns: List[Dict[str, Any]] = []
    for place, name in enumerate(table.columns):
        column = table.iloc[:, place]
        chosen = _choose(column_types(column), column)
        columns.append({"name": str(name), "type": chosen, "missing": int(column.isna().sum())})
    types = sorted({column["type"] for column in columns})
    missing = any(column["missing"] for column in columns)
    rules: List[Dict[str, Any]] = [
        {"field": "data_types", "condition": "IN", "value": types},
        {"field": "number_of_columns", "condition": "EQUALS", "value": len(columns)},
        {"field": "contains_missing", "condition": "EQUALS", "value": "SUPPORTED" if missing else "FORBIDDEN"},
        {"field": "sparse", "condition": "EQUALS", "value": "SUPPORTED" if is_sparse(table) else "FORBIDDEN"},
    ]
    broken = violations(parse_rules(rules, _PATH, output=False), table)
    return {"columns": columns, "rules": rules, "broken": broken}


def _choose(possible: FrozenSet[str], column: Any) -> str:
    if len(possible) == 1:
        return next(iter(possible))
    for name in _PREFERENCE:
        if name in possible and not (name == "NUM" and "CAT" in possible and column.dtype.kind == "b"):
            return name
    given = column.dropna()
    return "CAT" if given.nunique() <= max(2, _CATEGORIES * len(given)) else "TXT"
