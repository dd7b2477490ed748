"""What is done of a file, kept beside the output so that a run that was cut short can go on.

``.<output>.part`` has the pieces of the output written so far, ``.<output>.journal`` one line of JSON for each chunk
that is safely in it, below a first line that says what is scored with what. A line is written only once the bytes that
it speaks of are on the disk, so what the journal says is true whenever the machine stops; what the part file has beyond
it is cut off. A last line that is torn is not looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from pathlib import Path
from typing import Any

from backline.errors import BacklineError, ConfigError

_VERSION = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """One chunk that is in the part file: where its input, output and rejects end, and what has come together so far.

    ``types`` and ``classes`` are those of the columns after it; ``columns``, ``head`` and ``extra_size`` are of its
    output.
    """

    index: int
    end: int
    output_end: int
    rejects_end: int
    rows: int
    rejected: int
    extra_size: int = 0


@dataclasses.dataclass(slots=True, kw_only=True)
class State:
    """What carries over from chunk to chunk besides the places in the files."""

    types: dict[str, str] = dataclasses.field(default_factory=dict)
    classes: dict[str, str] = dataclasses.field(default_factory=dict)
    exact: bool = False  # letters are of the cells themselves
    final: bool = False  # types are those of the whole file
    columns: list[list[str]] = dataclasses.field(default_factory=list)
    head: str | None = None


class JournalLocked(BacklineError):
    """Another run writes to the same output now."""


class Journal:
    """The journal file of one output, open and locked. ``close`` it."""

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.path = path
        self.done: list[Done] = []
        self.state = State()
        self.complete = False
        self._identity = identity
        self._file = path.open("a+b")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise JournalLocked(f"another run is writing to the same output: {path} is locked") from None
        except OSError:
            pass  # a file system without locks

    def load(self) -> bool:
        """Read what there is; return whether there was a journal at all. Raises ``ConfigError`` where it is another's.

        Another's: the input, the model, or what was asked for has changed.
        """
        self._file.seek(0)
        content = self._file.read()
        if not content:
            return False
        records = []
        whole = 0  # bytes
        for line in content.split(b"\n")[:-1]:
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError):
                break
            whole += len(line) + 1
        if not records:
            return False  # cut short before it began
        if not isinstance(records[0], dict) or records[0].get("journal") != _VERSION:
            raise ConfigError(f"{self.path} is no journal of this version; remove it to start anew")
        try:
            self._check(records[0]["identity"])
            self._take_state(records[0])
            for record in records[1:]:
                if record.get("complete"):
                    self.complete = True
                    break
                self._take_state(record)
                self.done.append(_done(record))
        except (KeyError, TypeError, AttributeError) as exc:
            raise ConfigError(f"{self.path} is damaged; remove it, or score without --resume, to start anew") from exc
        self._file.truncate(whole)
        return True

    def start(self, state: State) -> None:
        """Begin anew, with nothing done."""
        self.done = []
        self.state = state
        record = {"journal": _VERSION, "identity": self._identity, **dataclasses.asdict(state)}
        self._file.truncate(0)
        self._append([record])

    def add(self, done: list[Done], state: State) -> None:
        """Note chunks whose bytes are on the disk; the state is that after the last of them."""
        records = [dataclasses.asdict(each) for each in done]
        changed = dataclasses.asdict(state)
        before = dataclasses.asdict(self.state)
        records[-1] |= {name: value for name, value in changed.items() if before[name] != value}
        self._append(records)
        self.done += done
        self.state = dataclasses.replace(state)

    def finish(self) -> None:
        """Note that all is done and the part file only has to be given its name."""
        self._append([{"complete": True}])
        self.complete = True

    def remove(self) -> None:
        """Remove the journal; the lock goes with it."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file. Safe to call twice."""
        self._file.close()

    def _append(self, records: list[dict[str, Any]]) -> None:
        self._file.write("".join(json.dumps(record) + "\n" for record in records).encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def _take_state(self, record: dict[str, Any]) -> None:
        for field in dataclasses.fields(State):
            if field.name in record:
                setattr(self.state, field.name, record[field.name])

    def _check(self, before: dict[str, Any]) -> None:
        for name, value in self._identity.items():
            if before.get(name) != value:
                raise ConfigError(
                    f"--resume: {_SAYS.get(name, name)} since the run that {self.path} is of; without --resume all is "
                    "scored anew"
                )


def _done(record: dict[str, Any]) -> Done:
    values = {name: record[name] for name in Done.__slots__}
    if not all(type(value) is int for value in values.values()):
        raise TypeError("not a number")
    return Done(**values)


_SAYS = {
    "input": "the input file has changed",
    "model": "the model folder has changed",
    "options": "the model's settings or environment have changed",
    "output": "another kind of output, other rejects or another chunk size is asked for",
    "backline": "Backline has been updated",
}
