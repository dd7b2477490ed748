"""What a check has found."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Sequence


class Status(enum.Enum):
    """How a check ended."""

    PASSED = "passed"
    WARNING = "warning"  # worth knowing, and no reason not to serve
    FAILED = "failed"
    SKIPPED = "skipped"  # it does not apply here, or something that it needs has failed


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The cases of a check, one a row."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check: what was looked at, how it ended, what was seen, and how to mend it where it needs mending."""

    check: str
    status: Status
    seen: str
    mend: str = ""
    table: Table | None = None
    text: str = ""
    """Something to be shown as it is: a traceback, a piece of YAML."""

    def as_json(self) -> dict[str, object]:
        """Return it as JSON values."""
        found: dict[str, object] = {"check": self.check, "status": self.status.value, "seen": self.seen}
        if self.mend:
            found["mend"] = self.mend
        if self.table is not None:
            found["cases"] = [dict(zip(self.table.head, row, strict=True)) for row in self.table.rows]
        if self.text:
            found["text"] = self.text
        return found


def worst(findings: Sequence[Finding]) -> Status:
    """Return the status of them all."""
    for status in (Status.FAILED, Status.WARNING):
        if any(finding.status is status for finding in findings):
            return status
    return Status.PASSED


def count_text(findings: Sequence[Finding]) -> str:
    """Return how many ended how, as in ``9 passed, 1 failed``."""
    counts = ((status, sum(finding.status is status for finding in findings)) for status in Status)
    return ", ".join(
        f"{count} {status.value if status is not Status.WARNING else 'to look at'}" for status, count in counts if count
    )
