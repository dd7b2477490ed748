"""Gives an artifact the columns that it was fitted on, in fitted order, and says which ones are missing."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Sequence

from ..errors import SchemaMismatch
from .base import Predictor

if TYPE_CHECKING:
    from pandas import DataFrame

_SHOWN_NAMES = 20


def align(data: DataFrame, predictor: Predictor, *, refuse_unknown: bool, target_name: Optional[str]) -> DataFrame:
    """Return the frame as the artifact takes it; nothing is cast, and a frame that fits is returned as it is.

    Further columns are left out, or refused with ``refuse_unknown``; the target's own column always may be there. An
    artifact that was fitted without names gets the columns in the order in which they came, and so does one whose data
    has no names.
    Raises ``SchemaMismatch``.
    """
    names = list(data.columns)
    features = predictor.features
    if features is None:
        return _by_count(data, names, predictor.feature_count, target_name)
    if names == features:
        return data
    if names == list(range(len(features))):  # values without names: they are told by their places
        named = data.copy(deep=False)
        named.columns = features
        return named
    keys = [predictor.column_key(name) if isinstance(name, str) else name for name in names]
    columns: Dict[Any, Any] = dict(zip(keys, names))
    wanted = set(features)
    missing = [name for name in features if name not in columns]
    if missing:
        spare = [name for name in names if name not in wanted]
        raise SchemaMismatch(
            "{} of the {} columns that the model was fitted on {} missing: {}. The data has {}".format(
                len(missing),
                len(features),
                "is" if len(missing) == 1 else "are",
                _with_near(missing, spare),
                _shown(names),
            ),
            details={"missing": missing[:_SHOWN_NAMES]},
        )
    if len(columns) < len(names):
        repeated = sorted({key for key in keys if key in wanted and keys.count(key) > 1})
        if repeated:
            raise SchemaMismatch("several columns have the same name: {}".format(_shown(repeated)))
    unknown = [name for key, name in zip(keys, names) if key not in wanted and name != target_name]
    if unknown and refuse_unknown:
        raise SchemaMismatch(
            "the model was not fitted on {}; leave {} out, or set --unknown-columns ignore".format(
                _with_near(unknown, features), "it" if len(unknown) == 1 else "them"
            ),
            details={"unknown": [str(name) for name in unknown[:_SHOWN_NAMES]]},
        )
    if keys == features:
        return data
    return data[[columns[name] for name in features]]


def _by_count(data: DataFrame, names: List[Any], count: Optional[int], target_name: Optional[str]) -> DataFrame:
    if count is None or len(names) == count:
        return data
    if len(names) == count + 1 and target_name in names:
        return data.drop(columns=[target_name])
    raise SchemaMismatch(
        "the model was fitted on {} columns without names, and the data has {}: {}; "
        "send exactly its columns, in the order of fitting".format(count, len(names), _shown(names))
    )


def _with_near(names: Sequence[Any], others: Sequence[Any]) -> str:
    """List names, each with the one of the others that it may be meant to be."""
    candidates = [str(name) for name in others]
    shown = []
    for name in names[:_SHOWN_NAMES]:
        near = difflib.get_close_matches(str(name), candidates, 1, 0.75)
        shown.append("{!r} (near: {!r})".format(str(name), near[0]) if near else repr(str(name)))
    return ", ".join(shown) + _more(names)


def _shown(names: Sequence[Any]) -> str:
    return ", ".join(repr(str(name)) for name in names[:_SHOWN_NAMES]) + _more(names)


def _more(names: Sequence[Any]) -> str:
    return " and {} more".format(len(names) - _SHOWN_NAMES) if len(names) > _SHOWN_NAMES else ""


def missing_column(exc: Optional[BaseException], data: Any) -> Optional[str]:
    """Return what a failed look-up in the table asked for, ``None`` when the error is of another kind.

    pandas raises ``KeyError`` with the name for ``data["a"]``, and with a sentence for ``data[["a", "b"]]``. Only what
    pandas itself has raised counts: a look-up in a dictionary of the model's own is the model's fault.
    """
    if not isinstance(exc, KeyError) or not exc.args or not hasattr(data, "columns"):
        return None
    frame = exc.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None or not frame.tb_frame.f_globals.get("__name__", "").startswith("pandas."):
        return None
    asked = exc.args[0]
    if isinstance(asked, str) and asked.endswith(("not in index", "not found in axis", "are in the [columns]")):
        return asked
    return None if asked in data.columns else repr(asked)
