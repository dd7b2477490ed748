"""Tables as text: what ``backline_worker.codecs`` reads, held to what it promises.

A body becomes a frame with at least one row, an index from 0 and names that differ, or it is a ``RequestError`` that
can be answered. A frame can be written again, in whatever format is asked for.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import warnings
import zlib
from typing import Any

import numpy as np
import pandas as pd

from backline_worker import codecs
from backline_worker.codecs import csv, mtx
from backline_worker.errors import NotAcceptable, ReportedError, RequestError
from backline_worker.types import Part
from tests.fuzz.cases import Case, Wrong
from tests.fuzz.damage import BOM, NUMBERS, TEXTS, damaged, damaged_bytes, damaged_document

LIMIT = 16 << 20  # what a body may grow to, in these targets
ANSWERS = ("application/json", "text/csv", "application/x-ndjson", "application/vnd.apache.arrow.stream")
_MOST_RECORD = 300_000  # characters of an error record: message, details, and no body
CHARSETS = (
    "utf-8", "latin-1", "utf-16", "utf-16-le", "utf-32", "cp1252", "shift_jis", "utf-7", "iso2022_jp", "idna",
    "punycode",
    "rot13", "zlib", "unicode_escape", "hz", "cp037", "big5", "gb18030", "utf-8-sig", "x" * 300, "\0", "mbcs",
    "undefined",
    "euc_kr", "utf_16_be", "ascii", '"utf-8"', "raw_unicode_escape", "base64", "bz2", "../x", "é", "koi8-r", "johab",
)  # fmt: skip
NAMES = ("a", "b", "A", "é", "名", "", " ", "a b", 'q"', "x,y", "l\nf", "1", "0.5", "__index_level_0__", "index",
"columns",
         "a.b", "NaN", "None", "\u2028", "%s", "constructor", "n" * 70)  # fmt: skip
CELLS = ("", " ", "x", "é", "名前", '"', ",", "\n", "\r\n", "NA", "nan", "null", "007", "1.0", "1e5", "-0", "true",
"2020-01-01",
         "\t", "\u2028", "😀", "'", "a" * 200)  # fmt: skip


def random_frame(draw: random.Random) -> Any:
    """Return a small frame of columns of all kinds that the codecs write."""
    rows = draw.choice((1, 1, 2, 3, 7, 20))
    names = draw.sample(NAMES, draw.choice((1, 2, 3, 5)))
    columns: dict[str, Any] = {}
    for name in names:
        kind = draw.randrange(7)
        if kind == 0:
            columns[name] = [draw.choice((0, 1, -1, 7, 2**31, -(2**63), 2**53 + 1)) for _ in range(rows)]
        elif kind == 1:
            columns[name] = [draw.choice((0.5, -1e300, 5e-324, 0.1, 1e22, float("nan"), 3.0)) for _ in range(rows)]
        elif kind == 2:
            columns[name] = [draw.choice((True, False)) for _ in range(rows)]
        elif kind == 3:
            columns[name] = [draw.choice((None, "x", 1.5)) for _ in range(rows)]
        elif kind == 4:
            columns[name] = np.array([draw.randrange(120) for _ in range(rows)], dtype="uint8")
        else:
            columns[name] = [draw.choice(CELLS) for _ in range(rows)]
    return pd.DataFrame(columns)


def seeds_in(content_type: str, count: int = 40) -> list[bytes]:
    """Return bodies as the codecs' own writers make them."""
    draw = random.Random(content_type)
    return [codecs.encode_table(random_frame(draw), content_type) for _ in range(count)]


def check_record(error: ReportedError) -> str:
    """Hold an error to what the server needs of it, and return its code."""
    record = error.to_record()
    text = json.dumps(record)
    if not record["message"]:
        raise Wrong("an error without a message")
    if len(text) > _MOST_RECORD:
        raise Wrong(f"an error of {len(text)} characters")
    return str(record["code"])


def check_frame(frame: Any) -> None:
    """Hold a decoded frame to what the model is promised."""
    if not isinstance(frame, pd.DataFrame) or len(frame) < 1 or len(frame.columns) < 1:
        raise Wrong(f"not a frame with rows: {type(frame).__name__} {getattr(frame, 'shape', None)}")
    if list(frame.index[:3]) != list(range(min(3, len(frame)))) or frame.index[-1] != len(frame) - 1:
        raise Wrong(f"an index of {frame.index!r}")
    names = list(frame.columns)
    if len(set(names)) != len(names):
        raise Wrong(f"names that are alike: {names[:10]!r}")
    if not all(isinstance(name, str) for name in names) and names != list(range(len(names))):
        raise Wrong(f"names that are no text: {names[:10]!r}")


def read(case: Case, others: tuple[Part, ...] = ()) -> str:
    """Decode a case as the worker does, check the frame and write it again."""
    options = case.options
    part = Part("X", options.get("type", ""), case.body, options.get("filename"))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frame = codecs.decode_table(part, others, content_encoding=options.get("encoding", ""), max_bytes=LIMIT)
    except RequestError as exc:
        return check_record(exc)
    check_frame(frame)
    answer = options.get("answer", "text/csv")
    if frame.size < 200_000:
        try:
            body = codecs.encode_table(frame, answer)
        except NotAcceptable as exc:
            return "read, " + check_record(exc)
        if not isinstance(body, bytes):
            raise Wrong(f"written as {type(body).__name__}")
        if answer == "application/json":
            json.loads(body)
    return "read"


def some_options(draw: random.Random, content_type: str) -> dict[str, Any]:
    """Return what may come with a body of a type."""
    options: dict[str, Any] = {"type": content_type, "answer": draw.choice(ANSWERS)}
    if draw.random() < 0.08:
        options["type"] += "; charset=" + draw.choice(CHARSETS)
    elif draw.random() < 0.08:
        options["type"] = ""
        options["filename"] = draw.choice((None, "x.csv", "x.json", "x.mtx", "x.csv.gz", "x.gz.gz", ".", "x.arrow", ""))
    return options


class Csv:
    """Quotes, separators, ends of lines, names, charsets."""

    seconds = 3.0
    _tokens = re.compile(rb'""|"|,|\r\n|\r|\n|[^",\r\n]+')
    _nasty = (
        b'"', b'""', b'"""', b",", b",,", b"\n", b"\r", b"\r\n", b"\n\n", b'"\n"', b'","', b" \n", b",\n", b"#", b";",
        b"\t",
        b"\n,", b'\n"', b'"x"y', b'x"y', b"\r\r", b"\n \n", b"\x0b", b"\x0c", *NUMBERS, *TEXTS,
    )  # fmt: skip

    def __init__(self) -> None:
        self._seeds = seeds_in("text/csv", 60)
        self._seeds += [seed.replace(b"\n", b"\r\n") for seed in self._seeds[:10]]
        self._seeds += [seed.replace(b"\n", b"\r") for seed in self._seeds[:10]] + [
            BOM + seed for seed in self._seeds[:5]
        ]

    def make(self, draw: random.Random) -> Case:
        body = damaged(draw, draw.choice(self._seeds), self._tokens, self._nasty)
        options = some_options(draw, "text/csv")
        if draw.random() < 0.05:
            charset = draw.choice(("utf-16", "utf-32", "cp037", "utf-7", "gb18030"))
            with contextlib.suppress(UnicodeError):
                body = body.decode("utf-8").encode(charset)
            body = damaged_bytes(draw, body) if draw.random() < 0.5 else body
            options["type"] = f"text/csv; charset={charset}"
        return Case(body, options)

    def check(self, case: Case) -> str:
        return read(case)


JSON_TOKENS = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^\[\]{},:"\s]+|\s+|"')
JSON_NASTY = (
    b"[", b"]", b"{", b"}", b",", b":", b"[[", b"{}", b"[]", b"null", b'""', b'"\\ud800"', b'"\\udc00\\ud800"',
    b'"\\u0000"',
    b'"\\x"', b'"\\u12"', b'"a":', b'"columns"', b'"data"', b'"index"', b'"instances"', b'"inputs"',
    b'"dataframe_split"',
    b'"dataframe_records"', b"//", b"/**/", b"'a'", b"\n", b'{"a":1}', b'[{"a":', b"[" * 300, b'{"a":' * 300, b"\\",
    b'"\\ud83d\\ude00"', b"[1]", b"true", b"-", b'"' + b"k" * 300 + b'"', *NUMBERS, *TEXTS,
)  # fmt: skip


class Json:
    """Records, split form and MLflow's forms."""

    seconds = 3.0

    def __init__(self) -> None:
        records = seeds_in("application/json", 50)
        self._seeds = list(records)
        for seed in records[:25]:
            rows = json.loads(seed)
            names = list(rows[0])
            split = {"columns": names, "data": [list(row.values()) for row in rows], "index": list(range(len(rows)))}
            columns = {name: [row[name] for row in rows] for name in names}
            for document in (
                split,
                {"dataframe_split": split},
                {"dataframe_records": rows},
                {"instances": rows},
                {"instances": split["data"]},
                {"inputs": columns},
                {"inputs": split["data"]},
            ):
                self._seeds.append(json.dumps(document, ensure_ascii=False).encode())
        self._seeds.append(json.dumps([{"a": [1, {"b": None}], "c": {"d": [[]]}}, {"a": {}, "c": 1}]).encode())

    def make(self, draw: random.Random) -> Case:
        body = draw.choice(self._seeds)
        if draw.random() < 0.5:
            body = damaged_document(draw, json.loads(body), ("columns", "data", "index", "inputs", "instances", "a"))
        else:
            body = damaged(draw, body, JSON_TOKENS, JSON_NASTY)
        return Case(body, some_options(draw, "application/json"))

    def check(self, case: Case) -> str:
        return read(case)


class JsonLines:
    """One record a line."""

    seconds = 3.0

    def __init__(self) -> None:
        self._seeds = seeds_in("application/x-ndjson", 60)

    def make(self, draw: random.Random) -> Case:
        nasty = (b"\n", b"\n\n", b"\r\n", b"\r", *JSON_NASTY)
        body = damaged(draw, draw.choice(self._seeds), JSON_TOKENS, nasty)
        return Case(body, some_options(draw, "application/x-ndjson"))

    def check(self, case: Case) -> str:
        return read(case)


class MatrixMarket:
    """Coordinates and arrays, with the names of their columns in another part."""

    seconds = 3.0
    _tokens = re.compile(rb"\n|[^\s]+|[ \t]+|\s")
    _nasty = (
        b"array", b"coordinate", b"pattern", b"symmetric", b"skew-symmetric", b"hermitian", b"complex", b"integer",
        b"real",
        b"%", b"%%MatrixMarket", b"\n", b"\r\n", b" ", b"\x0b", b"1 1 1\n", b"999999999 1 1\n", b"1 999999999 1\n",
        *NUMBERS, *TEXTS,
    )  # fmt: skip

    def __init__(self) -> None:
        draw = random.Random(1)
        self._seeds = []
        for _ in range(30):
            rows, columns = draw.randrange(1, 6), draw.randrange(1, 6)
            values = [[draw.choice((0, 0, 1, -2.5, 3e10)) for _ in range(columns)] for _ in range(rows)]
            frame = pd.DataFrame(values, columns=[f"c{place}" for place in range(columns)])
            self._seeds.append((mtx.encode(frame), mtx.encode_names(frame)))
        banner = b"%%MatrixMarket matrix "
        self._seeds += [
            (banner + b"array real general\n% c\n2 2\n1\n2\n3\n4.5\n", b"a\nb\n"),
            (banner + b"array integer symmetric\n2 2\n1\n2\n3\n", b'"x,y"\n"q""z"\n'),
            (banner + b"coordinate pattern general\n3 2 2\n1 1\n3 2\n", b""),
            (banner + b"coordinate real symmetric\n2 2 2\n1 1 1\n2 1 0.5\n", b"a\nb"),
        ]

    def make(self, draw: random.Random) -> Case:
        body, names = draw.choice(self._seeds)
        body = damaged(draw, body, self._tokens, self._nasty)
        options = some_options(draw, "text/mtx")
        if draw.random() < 0.5:
            if draw.random() < 0.5:
                names = damaged(draw, names, Csv._tokens, Csv._nasty)
            options["names"] = names.decode("latin-1")
        return Case(body, options)

    def check(self, case: Case) -> str:
        names = case.options.get("names")
        others = () if names is None else (Part("sparse.colnames", "", names.encode("latin-1")),)
        return read(case, others)


class Compressed:
    """gzip and deflate, as encodings of the request and as files."""

    seconds = 3.0

    def __init__(self) -> None:
        self._seeds = [*seeds_in("text/csv", 20), b"a\n" + b"1\n" * 40000, b"a,b\n" + b"0," * 10]

    def make(self, draw: random.Random) -> Case:
        body = draw.choice(self._seeds)
        names = []
        for _ in range(draw.choice((1, 1, 1, 2, 3, 4))):
            names.append(draw.choice(("gzip", "deflate", "x-gzip", "raw", "members")))
            body = self._compress(draw, names[-1], body)
            if draw.random() < 0.5:
                body = damaged_bytes(draw, body)
        known = {"raw": "deflate", "members": "gzip"}
        encoding = ", ".join(known.get(name, name) for name in names)
        if draw.random() < 0.2:
            encoding = draw.choice(
                ("br", "identity", "gzip,", ",", "GZIP", "gzip;q=1", "x" * 200, "", "zstd, gzip", "deflate")
            )
        options = some_options(draw, "text/csv")
        if draw.random() < 0.3:
            encoding, options["type"] = "", "application/gzip"
            options["filename"] = draw.choice((None, "x.csv.gz", "x.gz", "x.json.gz", "x.gz.gz"))
        return Case(body, {**options, "encoding": encoding})

    @staticmethod
    def _compress(draw: random.Random, name: str, body: bytes) -> bytes:
        level = draw.choice((1, 6))
        if name == "deflate":
            return zlib.compress(body, level)
        if name == "raw":
            return zlib.compress(body, level)[2:-4]
        if name == "members":
            half = len(body) // 2
            return gzip.compress(body[:half], level, mtime=0) + gzip.compress(body[half:], level, mtime=0)
        return gzip.compress(body, level, mtime=0)

    def check(self, case: Case) -> str:
        return read(case)


class Texts:
    """One column of prompts, which is read by other code than tables are."""

    seconds = 3.0

    def __init__(self) -> None:
        frame = pd.DataFrame({"promptText": ["a", "b, c", '"d"', "é\n"], "x": [1, 2, 3, None]})
        rows = [{"promptText": "NA"}, {"promptText": "1.0", "y": [1]}]
        self._seeds = [
            ("text/csv", csv.encode([(name, frame[name]) for name in frame], 4, [4])[0], Csv._tokens, Csv._nasty),
            ("text/csv", b"promptText\r\nx\r\n", Csv._tokens, Csv._nasty),
            ("application/json", json.dumps(rows).encode(), JSON_TOKENS, JSON_NASTY),
            ("application/x-ndjson", b"\n".join(json.dumps(row).encode() for row in rows), JSON_TOKENS, JSON_NASTY),
            ("application/json", b'{"columns": ["promptText"], "data": [["x"], [1]]}', JSON_TOKENS, JSON_NASTY),
            ("text/mtx", b"%%MatrixMarket matrix array real general\n1 1\n1\n", JSON_TOKENS, JSON_NASTY),
        ]

    def make(self, draw: random.Random) -> Case:
        content_type, body, tokens, nasty = draw.choice(self._seeds)
        body = damaged(draw, body, tokens, (b"promptText", *nasty))
        return Case(body, {**some_options(draw, content_type), "column": draw.choice(("promptText", "x", "", "é"))})

    def check(self, case: Case) -> str:
        part = Part("X", case.options["type"], case.body, case.options.get("filename"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                texts = codecs.decode_texts(part, case.options["column"], content_encoding="", max_bytes=LIMIT)
        except RequestError as exc:
            return check_record(exc)
        if not texts or not all(isinstance(text, str) for text in texts):
            raise Wrong(f"not texts: {texts!r:.200}")
        json.loads(json.dumps(texts))
        return "read"


class Together:
    """A batch: several bodies, some of them damaged, read as one table must be what each of them is alone."""

    seconds = 6.0

    def __init__(self) -> None:
        self._seeds = {
            name: (seeds_in(name, 30), tokens, nasty)
            for name, tokens, nasty in (
                ("text/csv", Csv._tokens, Csv._nasty),
                ("application/json", JSON_TOKENS, JSON_NASTY),
                ("application/x-ndjson", JSON_TOKENS, JSON_NASTY),
            )
        }

    def make(self, draw: random.Random) -> Case:
        content_type = draw.choice(list(self._seeds))
        seeds, tokens, nasty = self._seeds[content_type]
        first = draw.choice(seeds)
        bodies = []
        for _ in range(draw.choice((2, 2, 3, 5))):
            body = first if draw.random() < 0.8 else draw.choice(seeds)
            bodies.append(damaged(draw, body, tokens, nasty, whole=0.5))
        return Case(b"".join(bodies), {"type": content_type, "sizes": [len(body) for body in bodies]})

    def check(self, case: Case) -> str:
        parts, start = [], 0
        for size in case.options["sizes"]:
            parts.append(Part("X", case.options["type"], case.body[start : start + size]))
            start += size
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            joined = codecs.decode_together(parts, max_bytes=LIMIT)
            for table in joined:
                start = 0
                for member, rows in zip(table.members, table.rows, strict=True):
                    piece = table.frame.iloc[start : start + rows].reset_index(drop=True)
                    start += rows
                    alone = codecs.decode_table(parts[member], (), content_encoding="", max_bytes=LIMIT)
                    pd.testing.assert_frame_equal(piece, alone, check_exact=True, check_column_type=False)
                if start != len(table.frame):
                    raise Wrong(f"{len(table.frame)} rows for {start}")
        return f"{len(joined)} tables"
