"""What the fuzzer is made of: cases, targets that make and check them, and the corpus of what was found."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

CORPUS = Path(__file__).with_name("corpus")
SUFFIX = ".case"


class Case(NamedTuple):
    """One input: its bytes, and what belongs to them (a content type, where to cut), as plain JSON."""

    body: bytes
    options: dict[str, Any]


class Wrong(AssertionError):
    """A rule that does not hold for this case."""


class Target(Protocol):
    """One kind of input. Made once in a process; ``seconds`` of processor time is the most that a case may take."""

    seconds: float

    def make(self, draw: random.Random) -> Case:
        """Return a case; the same for the same chance."""

    def check(self, case: Case) -> str:
        """Feed the code under test; return the outcome in a word. Whatever is raised is a finding."""


def chance(seed: int, target: str, number: int) -> random.Random:
    """Return the chance that a case is made of."""
    return random.Random(f"{seed}/{target}/{number}")


def write_case(directory: Path, target: str, case: Case) -> Path:
    """Keep a case: a line of JSON, then the bytes. Returns where."""
    content = json.dumps(case.options).encode() + b"\n" + case.body
    path = directory / f"{target}-{hashlib.sha256(content).hexdigest()[:12]}{SUFFIX}"
    directory.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def read_case(path: Path) -> tuple[str, Case]:
    """Return the target and the case that a file of ``write_case`` holds."""
    options, _, body = path.read_bytes().partition(b"\n")
    return path.name.rpartition("-")[0], Case(body, json.loads(options))


def kept_cases() -> Iterator[Path]:
    """Yield the files of the corpus."""
    yield from sorted(CORPUS.glob(f"*{SUFFIX}"))
