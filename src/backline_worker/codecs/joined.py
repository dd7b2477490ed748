"""What reading several bodies together gives."""

from __future__ import annotations

from typing import TYPE_CHECKING, List, NamedTuple

if TYPE_CHECKING:
    from pandas import DataFrame


class Joined(NamedTuple):
    """``frame`` has the rows of the bodies ``members`` (places in the batch), ``rows`` of each, one after another."""

    frame: DataFrame
    members: List[int]
    rows: List[int]
