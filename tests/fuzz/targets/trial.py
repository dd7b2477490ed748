"""A target that breaks on purpose, to try the fuzzer itself."""

from __future__ import annotations

import ctypes
import random

from tests.fuzz.cases import Case, Wrong


class Trial:
    """Case 7 ends the process, case 11 breaks a rule."""

    seconds = 1.0

    def make(self, draw: random.Random) -> Case:
        return Case(b"", {"draw": draw.random()})

    def check(self, case: Case) -> str:
        marks = {random.Random(f"0/trial/{number}").random(): number for number in (7, 11)}
        number = marks.get(case.options["draw"])
        if number == 7:
            ctypes.string_at(0)
        if number == 11:
            raise Wrong("as it was told to")
        return "fine"
