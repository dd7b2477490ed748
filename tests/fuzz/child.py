"""Runs the cases of one target, in a process of its own; started by ``run.py``, which looks on.

Before each case its number and the time go to a page that the parent has mapped: so it knows where a case has ended
the process, or does not end. Findings are lines of JSON on standard output, and so is the summary at the end.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import faulthandler
import gc
import json
import mmap
import os
import resource
import struct
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from tests.fuzz.cases import Case, Target, chance, read_case
from tests.fuzz.targets import load

PAGE = struct.Struct("<qqd")  # number of the case, cases done, when it began (time.monotonic)
_MEMORY = 3 << 30  # bytes of private memory that no case may need
_MOST_PEAK = 640 << 20  # bytes that one case may add to the peak
_LOOKS = 16  # at the memory, within a run


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("target")
    parser.add_argument("page", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--replay", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with arguments.page.open("r+b") as file:
        page = mmap.mmap(file.fileno(), PAGE.size)
    target = load(arguments.target)
    outcomes: collections.Counter[str] = collections.Counter()
    memory: list[int] = []
    every = max(1, arguments.count // _LOOKS)
    numbers = range(arguments.first, arguments.first + (len(arguments.replay) or arguments.count))
    for done, number in enumerate(numbers):
        if done % every == 0 and not arguments.replay:
            memory.append(_resident())
        PAGE.pack_into(page, 0, number, done, time.monotonic())
        case = None
        try:
            case = (
                read_case(arguments.replay[done])[1]
                if arguments.replay
                else target.make(chance(arguments.seed, arguments.target, number))
            )
            outcomes[_timed(target, case)] += 1
        except BaseException as exc:
            if isinstance(exc, KeyboardInterrupt):
                raise
            outcomes["FOUND"] += 1
            _tell({"found": number, "how": type(exc).__name__, "what": _say(exc), "made": case is not None})
    memory.append(_resident())
    PAGE.pack_into(page, 0, numbers.stop, len(numbers), time.monotonic())
    _tell({"outcomes": dict(outcomes), "memory": memory, "peak": _peak()})


def _timed(target: Target, case: Case) -> str:
    peak, started = _peak(), time.process_time()
    outcome = target.check(case)
    seconds = time.process_time() - started
    if seconds > target.seconds:
        raise TimeoutError(f"took {seconds:.1f} s of the processor for {len(case.body)} bytes ({outcome})")
    if _peak() - peak > _MOST_PEAK:
        raise MemoryError(f"took {(_peak() - peak) >> 20} MiB for {len(case.body)} bytes ({outcome})")
    return outcome


def _say(exc: BaseException) -> str:
    lines = traceback.format_exception(exc, limit=-6)
    with contextlib.suppress(Exception):
        return "".join(lines)[-3000:].encode("utf-8", "backslashreplace").decode()
    return repr(type(exc))


def _tell(record: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(record) + "\n")
    sys.stdout.flush()


def _resident() -> int:
    gc.collect()
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


if __name__ == "__main__":
    main()
