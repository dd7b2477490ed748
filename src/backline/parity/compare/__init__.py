"""Whether two answers mean the same: what an answer says, by which rules it is compared, where it differs."""

from backline.parity.compare.rules import Rules, Tolerance
from backline.parity.compare.verdict import Comparison, Difference, compare_answers, unsettled_fields

__all__ = ["Comparison", "Difference", "Rules", "Tolerance", "compare_answers", "unsettled_fields"]
