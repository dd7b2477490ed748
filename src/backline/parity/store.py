"""The file that holds recorded calls, and what runs have made of them: SQLite, one file, bodies once and compressed.

Everything here blocks on a disk; ``writer`` is for those who must not. A store belongs to the thread that opened it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import stat
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from backline.errors import ConfigError, ParityError
from backline.parity.exchange import Answer, Call, HeaderPairs, Request

Side = Literal["recorded", "reference", "candidate", "again"]
WhenFull = Literal["oldest", "stop"]

VERSION = 1
_APPLICATION = 0x424C5061  # "BLPa", in the file's header: what kind of SQLite file this is
_MAGIC = b"SQLite format 3\x00"
_SMALL_BODY = 200  # bytes; below, compressing saves nothing
_DROP_SHARE = 20  # a full store gives up one call in so many, the oldest, at a time

_SCHEMA = """
CREATE TABLE bodies (id INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, size INTEGER NOT NULL,
    packed INTEGER NOT NULL, content BLOB NOT NULL);
CREATE TABLE calls (id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, method TEXT NOT NULL, target TEXT NOT NULL,
    headers TEXT NOT NULL, body INTEGER NOT NULL REFERENCES bodies);
CREATE INDEX calls_body ON calls (body);
CREATE TABLE runs (id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, at REAL NOT NULL, ended REAL,
    settings TEXT NOT NULL);
CREATE TABLE answers (run INTEGER REFERENCES runs, call INTEGER NOT NULL REFERENCES calls, round INTEGER NOT NULL,
    side TEXT NOT NULL, status INTEGER NOT NULL, headers TEXT NOT NULL, body INTEGER NOT NULL REFERENCES bodies,
    seconds REAL, error TEXT);
CREATE INDEX answers_call ON answers (call, run, round, side);
CREATE INDEX answers_body ON answers (body);
CREATE TABLE verdicts (run INTEGER NOT NULL REFERENCES runs, call INTEGER NOT NULL REFERENCES calls,
    round INTEGER NOT NULL, verdict TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (run, call, round)) WITHOUT ROWID;
"""


class StoreFull(ParityError):
    """The store has reached its bound and is to stop there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCall:
    """A call and its number in the store."""

    id: int
    call: Call


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredVerdict:
    """What a run found about one call: ``detail`` as ``compare.verdict`` writes it."""

    call: int
    round: int
    verdict: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A comparison of two servers, or a shadow's life. ``settings`` say what was compared and by which rules."""

    id: int
    kind: str
    at: float
    ended: float | None
    settings: Mapping[str, Any]


def is_store(path: Path) -> bool:
    """Whether the file begins as a SQLite file does."""
    try:
        with path.open("rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


class Store:
    """An open store. ``Store.create`` makes or continues one, ``Store.open`` needs one that is there."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, *, max_bytes: int | None, when_full: WhenFull
    ) -> None:
        self.path = path
        self.max_bytes = max_bytes
        self.when_full = when_full
        self.dropped_oldest = 0
        self._db = connection

    @classmethod
    def create(cls, path: Path, *, max_bytes: int | None = None, when_full: WhenFull = "oldest") -> Self:
        """Open the store at ``path``, making it where there is none. Raises ``ConfigError``."""
        try:
            # Readable by its owner only: bodies are other people's data.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, stat.S_IRUSR | stat.S_IWUSR))
        except OSError as exc:
            raise ConfigError(f"{path}: cannot be written: {exc.strerror}") from exc
        new = path.stat().st_size == 0
        store = cls(path, _connect(path), max_bytes=max_bytes, when_full=when_full)
        try:
            if new:
                store._db.executescript(
                    f"PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; {_SCHEMA}"
                )
            store._check()
        except BaseException:
            store.close()
            raise
        return store

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a store that is there. Raises ``ConfigError``."""
        if not path.exists():
            raise ConfigError(f"{path}: there is no such file")
        if not is_store(path):
            raise ConfigError(f"{path}: is no file of recorded calls; backline parity import makes one of requests")
        store = cls(path, _connect(path), max_bytes=None, when_full="oldest")
        try:
            store._check()
        except BaseException:
            store.close()
            raise
        return store

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Commit, and put everything into the one file."""
        with contextlib.suppress(sqlite3.Error):
            self._db.commit()
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()

    # Writing: nothing is safe before ``commit``

    def commit(self) -> None:
        """Make what was written last, and keep the store within its bound. Raises ``StoreFull``."""
        self._db.commit()
        if self.max_bytes is None:
            return
        while self._used_bytes() > self.max_bytes:
            if self.when_full == "stop" or not self._drop_oldest():
                raise StoreFull(f"{self.path} has reached {self.max_bytes:,} bytes (--max-size); nothing more is kept")

    def add_call(self, call: Call) -> int:
        """Add a request, and its answer where there is one; return its number."""
        request = call.request
        row = self._db.execute(
            "INSERT INTO calls (at, method, target, headers, body) VALUES (?, ?, ?, ?, ?)",
            (call.at, request.method, request.target, _dump(request.headers), self._body(request.body)),
        )
        assert row.lastrowid is not None
        if call.answer is not None:
            self.add_answer(row.lastrowid, call.answer, side="recorded")
        return row.lastrowid

    def add_run(self, kind: str, settings: Mapping[str, Any], at: float) -> int:
        """Add a run that begins now; return its number."""
        row = self._db.execute(
            "INSERT INTO runs (kind, at, settings) VALUES (?, ?, ?)", (kind, at, json.dumps(settings))
        )
        assert row.lastrowid is not None
        self._db.commit()
        return row.lastrowid

    def end_run(self, run: int, at: float) -> None:
        """Note that a run is over."""
        self._db.execute("UPDATE runs SET ended = ? WHERE id = ?", (at, run))
        self._db.commit()

    def add_answer(self, call: int, answer: Answer, *, side: Side, run: int | None = None, round_: int = 0) -> None:
        """Add what a side answered."""
        self._db.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (run, call, round_, side, answer.status, _dump(answer.headers), self._body(answer.body), answer.seconds,
             answer.error),
        )  # fmt: skip

    def set_verdict(self, run: int, found: StoredVerdict) -> None:
        """Add what was found about a call, or replace it."""
        self._db.execute(
            "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?)",
            (run, found.call, found.round, found.verdict, json.dumps(found.detail)),
        )

    # Reading; raises ``ConfigError`` where the file is damaged

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, zlib.error, ValueError, TypeError, RecursionError) as exc:
            raise ConfigError(f"{self.path}: is damaged, and cannot be read: {exc}") from exc

    def runs(self) -> list[Run]:
        """Return all runs, the oldest first."""
        with self._reading():
            rows = self._db.execute("SELECT id, kind, at, ended, settings FROM runs ORDER BY id")
            return [
                Run(id=number, kind=kind, at=at, ended=ended, settings=json.loads(settings))
                for number, kind, at, ended, settings in rows
            ]

    def call_ids(self) -> list[int]:
        """Return the numbers of all calls, in the order in which they were made."""
        with self._reading():
            return [number for (number,) in self._db.execute("SELECT id FROM calls ORDER BY id")]

    def count_calls(self) -> int:
        """Return how many calls there are."""
        with self._reading():
            (count,) = self._db.execute("SELECT count(*) FROM calls").fetchone()
            return int(count)

    def call(self, number: int) -> Call | None:
        """Return a call with its recorded answer, or ``None``."""
        with self._reading():
            row = self._db.execute(
                "SELECT at, method, target, headers, body FROM calls WHERE id = ?", (number,)
            ).fetchone()
            if row is None:
                return None
            at, method, target, headers, body = row
            if not isinstance(method, str) or not isinstance(target, str):
                raise TypeError("a request without method or path")
            request = Request(method=method, target=target, headers=_load(headers), body=self._content(body))
            return Call(request=request, answer=self.answer(number, side="recorded"), at=at)

    def calls(self) -> Iterator[StoredCall]:
        """Yield every call, one in memory at a time."""
        for number in self.call_ids():
            call = self.call(number)
            if call is not None:
                yield StoredCall(id=number, call=call)

    def answer(self, call: int, *, side: Side, run: int | None = None, round_: int = 0) -> Answer | None:
        """Return what a side answered, or ``None``."""
        return next(iter(self.answers(call, side=side, run=run, round_=round_)), None)

    def answers(self, call: int, *, side: Side, run: int | None = None, round_: int = 0) -> list[Answer]:
        """Return all that a side answered: several where it was asked again."""
        with self._reading():
            rows = self._db.execute(
                "SELECT status, headers, body, seconds, error FROM answers "
                "WHERE call = ? AND run IS ? AND round = ? AND side = ? ORDER BY rowid",
                (call, run, round_, side),
            ).fetchall()
            return [
                Answer(status=status, headers=_load(headers), body=self._content(body), seconds=seconds, error=error)
                for status, headers, body, seconds, error in rows
            ]

    def statuses(self, run: int) -> list[tuple[int, int, int]]:
        """Return how often which status of the reference met which of the candidate, the most frequent first."""
        with self._reading():
            rows = self._db.execute(
                "SELECT r.status, c.status, count(*) FROM answers r JOIN answers c USING (run, call, round) "
                "WHERE r.run = ? AND r.side = 'reference' AND c.side = 'candidate' GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2",
                (run,),
            )
            return [(reference, candidate, count) for reference, candidate, count in rows]

    def seconds(self, run: int, side: Side) -> list[float]:
        """Return how long a side's complete answers took, sorted."""
        with self._reading():
            rows = self._db.execute(
                "SELECT seconds FROM answers WHERE run = ? AND side = ? AND error IS NULL AND seconds IS NOT NULL "
                "ORDER BY seconds",
                (run, side),
            )
            return [seconds for (seconds,) in rows]

    def candidate_times(self, run: int) -> list[tuple[int, int, float | None]]:
        """Return call, round and seconds of all that the candidate answered in a run."""
        with self._reading():
            rows = self._db.execute(
                "SELECT call, round, seconds FROM answers WHERE run = ? AND side = 'candidate' ORDER BY call, round",
                (run,),
            )
            return [(call, round_, seconds) for call, round_, seconds in rows]

    def verdicts(self, run: int) -> Iterator[StoredVerdict]:
        """Yield what a run found, call by call."""
        with self._reading():
            rows = self._db.execute(
                "SELECT call, round, verdict, detail FROM verdicts WHERE run = ? ORDER BY call, round", (run,)
            )
            for call, round_, verdict, detail in rows:
                yield StoredVerdict(call=call, round=round_, verdict=verdict, detail=json.loads(detail))

    def overview(self) -> Iterator[tuple[int, float, str, str, int, int | None, int | None, float | None, str | None]]:
        """Yield for each call: number, time, method, target, body's size, status, answer's size, seconds, error."""
        with self._reading():
            yield from self._db.execute(
                "SELECT c.id, c.at, c.method, c.target, b.size, a.status, ab.size, a.seconds, a.error FROM calls c "
                "JOIN bodies b ON b.id = c.body "
                "LEFT JOIN answers a ON a.call = c.id AND a.run IS NULL AND a.side = 'recorded' "
                "LEFT JOIN bodies ab ON ab.id = a.body ORDER BY c.id"
            )

    # Inside

    def _body(self, content: bytes) -> int:
        digest = hashlib.blake2b(content, digest_size=20).digest()
        row = self._db.execute("SELECT id FROM bodies WHERE hash = ?", (digest,)).fetchone()
        if row is not None:
            return int(row[0])
        packed = zlib.compress(content) if len(content) > _SMALL_BODY else content
        is_packed = len(packed) < len(content)
        added = self._db.execute(
            "INSERT INTO bodies (hash, size, packed, content) VALUES (?, ?, ?, ?)",
            (digest, len(content), is_packed, packed if is_packed else content),
        )
        assert added.lastrowid is not None
        return added.lastrowid

    def _content(self, body: int) -> bytes:
        packed, content = self._db.execute("SELECT packed, content FROM bodies WHERE id = ?", (body,)).fetchone()
        return zlib.decompress(content) if packed else bytes(content)

    def _used_bytes(self) -> int:
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int((pages - free) * size)

    def _drop_oldest(self) -> bool:
        """Delete the oldest calls with all that belongs to them; ``False`` where only one is left."""
        count = self.count_calls()
        if count <= 1:
            return False
        (last,) = self._db.execute(
            "SELECT id FROM calls ORDER BY id LIMIT 1 OFFSET ?", (max(0, count // _DROP_SHARE - 1),)
        ).fetchone()
        bodies = [
            body
            for (body,) in self._db.execute(
                "SELECT body FROM calls WHERE id <= ? UNION SELECT body FROM answers WHERE call <= ?", (last, last)
            )
        ]
        self.dropped_oldest += self._db.execute("SELECT count(*) FROM calls WHERE id <= ?", (last,)).fetchone()[0]
        for table, column in (("verdicts", "call"), ("answers", "call"), ("calls", "id")):
            self._db.execute(f"DELETE FROM {table} WHERE {column} <= ?", (last,))  # noqa: S608 - names of ours
        self._db.executemany(
            "DELETE FROM bodies WHERE id = ? AND NOT EXISTS (SELECT 1 FROM calls WHERE body = bodies.id) "
            "AND NOT EXISTS (SELECT 1 FROM answers WHERE body = bodies.id)",
            [(body,) for body in bodies],
        )
        self._db.commit()
        return True

    def _check(self) -> None:
        try:
            (application,) = self._db.execute("PRAGMA application_id").fetchone()
            (version,) = self._db.execute("PRAGMA user_version").fetchone()
        except sqlite3.DatabaseError as exc:
            raise ConfigError(f"{self.path}: is no file of recorded calls, or a damaged one: {exc}") from exc
        if application != _APPLICATION:
            raise ConfigError(f"{self.path}: is a SQLite file, but none of recorded calls")
        if version != VERSION:
            raise ConfigError(
                f"{self.path}: was written in version {version} of its format, and this Backline reads version "
                f"{VERSION}; read it with the version of Backline that wrote it"
            )


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=10.0)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA journal_size_limit = 16777216")
    except sqlite3.OperationalError as exc:  # a directory, a read-only place
        connection.close()
        raise ConfigError(f"{path}: cannot be opened: {exc}") from exc
    except (sqlite3.DatabaseError, ValueError) as exc:  # ValueError: a message that cannot be decoded
        connection.close()
        raise ConfigError(f"{path}: is no file of recorded calls, or a damaged one: {exc}") from exc
    return connection


def _dump(headers: HeaderPairs) -> str:
    return json.dumps([[name, value] for name, value in headers], ensure_ascii=False)


def _load(text: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in json.loads(text)]
