"""Files that somebody else may have made: recorded calls in three forms, stores, journals."""

from __future__ import annotations

import json
import random
import re
import tempfile
from pathlib import Path
from typing import Any

from backline.batch.journal import Done, Journal, State
from backline.errors import BacklineError
from backline.parity.exchange import Answer, Call, Request
from backline.parity.requests import Defaults, read_calls
from backline.parity.store import Store
from tests.fuzz.cases import Case, Wrong
from tests.fuzz.damage import NUMBERS, TEXTS, damaged, damaged_bytes
from tests.fuzz.targets.tables import JSON_NASTY, JSON_TOKENS

_LINES = b"\n".join(
    json.dumps(each).encode()
    for each in (
        {"path": "/predict/", "json": [{"a": 1}]},
        {"method": "PUT", "path": "/x?y=é", "headers": {"A": "b"}, "body": "a,b\n1,2\n", "at": 3.5},
        {
            "headers": [["a", "b"], ["a", "c"]],
            "body_base64": "YQ==",
            "answer": {"status": 200, "json": [1], "seconds": 1},
        },
        {"answer": {"body": "x", "headers": None, "status": 422}},
    )
)
_HAR = json.dumps(
    {
        "log": {
            "entries": [
                {
                    "startedDateTime": "2026-01-02T03:04:05.678Z",
                    "time": 12.5,
                    "request": {
                        "method": "POST",
                        "url": "http://h:80/predict/?a=b#c",
                        "headers": [{"name": "Content-Type", "value": "text/csv"}, {"name": ":path", "value": "/"}],
                        "postData": {"mimeType": "text/csv", "text": "a\n1\n"},
                    },
                    "response": {
                        "status": 200,
                        "headers": [{"name": "Content-Encoding", "value": "gzip"}],
                        "content": {"text": "YQ==", "encoding": "base64"},
                    },
                }
            ]
        }
    }
).encode()


class _InFolder:
    seconds = 6.0

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-")
        self.folder = Path(self._folder.name)


class Imports(_InFolder):
    """JSON lines, HAR and CSV: calls that can be sent, or an error that names the place."""

    def make(self, draw: random.Random) -> Case:
        kind = draw.choice(("jsonl", "jsonl", "har", "csv"))
        if kind == "csv":
            return Case(damaged(draw, _CSV, _CSV_TOKENS, _CSV_NASTY), {"kind": kind})
        body = damaged(draw, _HAR if kind == "har" else _LINES, JSON_TOKENS, (*JSON_NASTY, b"\n"))
        return Case(body, {"kind": kind, "bodies": draw.random() < 0.1})

    def check(self, case: Case) -> str:
        path = self.folder / f"calls.{case.options['kind']}"
        path.write_bytes(case.body)
        count = 0
        try:
            for call in read_calls(path, Defaults(lines_are_bodies=case.options.get("bodies", False))):
                request = call.request
                request.target.encode("ascii")
                if re.search(r"[\s#]", request.target) or not request.method.isalpha():
                    raise Wrong(f"would be sent as {request.method!r} {request.target!r}")
                for name, value in request.headers:
                    (name + value).encode("latin-1")
                count += 1
        except BacklineError as exc:
            return type(exc).__name__
        return f"{min(count, 3)} calls"


_CSV_TOKENS = re.compile(rb'"|,|\r\n|\r|\n|[^",\r\n]+')
_CSV_NASTY = (b'"', b'""', b",", b"\n", b"\r", b"\n\n", b'"\n', *NUMBERS, *TEXTS)
_CSV = b"a,b\n1,x\n2,y\n\n3,z\n"


class Stores(_InFolder):
    """A store with damaged pages: an error that names the file, whatever SQLite makes of it."""

    def __init__(self) -> None:
        super().__init__()
        path = self.folder / "sound.store"
        with Store.create(path) as store:
            for number in range(30):
                store.add_call(
                    Call(
                        request=Request(method="POST", target="/p", headers=[("a", "b")], body=b"x" * number),
                        answer=Answer(status=200, headers=[], body=b"{}", seconds=0.1),
                        at=0.0,
                    )
                )
        self._sound = path.read_bytes()

    def make(self, draw: random.Random) -> Case:
        body = self._sound
        for _ in range(draw.choice((1, 2, 5, 20))):
            body = damaged_bytes(draw, body)
        return Case(body, {})

    def check(self, case: Case) -> str:
        path = self.folder / "damaged.store"
        path.write_bytes(case.body)
        for more in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + more).unlink(missing_ok=True)
        count = 0
        try:
            for _ in read_calls(path, Defaults(), format_="store"):
                count += 1
        except BacklineError as exc:
            return type(exc).__name__
        return "read" if count == 30 else "read in part"


class Journals(_InFolder):
    """A journal of ``backline score``: what it says is taken up again, or refused with its name."""

    identity: dict[str, Any] = {"input": "x", "size": 3}  # noqa: RUF012 - as in a journal's first line

    def __init__(self) -> None:
        super().__init__()
        path = self.folder / "sound"
        journal = Journal(path, self.identity)
        journal.start(State(types={"a": "int64"}, columns=[["a", "b"]], head="a,b"))
        for index in range(3):
            done = Done(index=index, end=100, output_end=50, rejects_end=0, rows=10, rejected=0)
            journal.add([done], State(types={"a": "float64"}, columns=[["a", "b"]], head="a,b"))
        journal.close()
        self._sound = path.read_bytes()

    def make(self, draw: random.Random) -> Case:
        return Case(damaged(draw, self._sound, JSON_TOKENS, (*JSON_NASTY, b"\n")), {})

    def check(self, case: Case) -> str:
        path = self.folder / "journal"
        path.write_bytes(case.body)
        journal = Journal(path, self.identity)
        try:
            found = journal.load()
        except BacklineError as exc:
            return type(exc).__name__
        finally:
            journal.close()
        return f"{len(journal.done)} chunks" if found else "none"
