"""Damaged bodies: each one is read or refused, by nothing but a ``RequestError``, and none ends the process."""

from __future__ import annotations

import collections
import datetime as dt
import gzip
import random
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backline_worker.errors import RequestError
from tests.unit.backline_worker.codecs.bodies import arrow_body, decode, parquet_body

MTX = b"%%MatrixMarket matrix "
TEXT_SEEDS = [
    ("text/csv", "", b'a,b,c\n1,2.5,"x, ""y"""\r\n3,,z\n'),
    ("text/csv; charset=utf-16", "", "a,b\n1,2\n".encode("utf-16")),
    ("text/csv", "gzip", gzip.compress(b"a,b\n1,2\n", mtime=0)),
    ("", "", b'[{"a": 1, "b": [null, {"c": "\\ud83d\\ude00"}]}, {"a": 1e5}]'),
    ("application/json", "deflate", zlib.compress(b'{"columns": ["a", "b"], "data": [[1, null], [true, "x"]]}')),
    ("application/x-ndjson", "", b'{"a": 1}\n{"a": "x", "b": -0.5}\n'),
    ("text/mtx", "", MTX + b"coordinate real general\n%c\n3 2 2\n1 1 1.5\n3 2 -2e3\n"),
    ("text/mtx", "", MTX + b"array integer symmetric\n2 2\n1\n2\n3\n"),
]


def _tables() -> list[Any]:
    first = pa.table({"i": [1, 2, None], "f": [1.5, 2.0, 3.0], "s": ["a", "bb", None], "b": [True, None, False]})
    second = pa.table(
        {
            "d": pa.array(["x", "y", None]).dictionary_encode(),
            "l": [[1], None, [2, 3]],
            "n": [{"a": 1, "b": "q"}, None, {"a": 2, "b": "r"}],
            "t": [dt.datetime.fromisoformat("2020-01-01")] * 3,
            "c": pa.array([1, 2, None], pa.decimal128(5, 2)),
            "o": pa.nulls(3),
            "y": [b"a", b"", None],
        }
    )
    third = pa.table({"x": pa.array(["q"] * 40 + ["rrrrr"] * 40, pa.large_string()), "l": [[["a"], []]] * 80})
    return [first, second, third]


def binary_seeds(kind: str) -> list[Any]:
    """Return content types and bodies of the columnar formats, plain and compressed."""
    seeds: list[Any] = []
    for table in _tables():
        if kind == "parquet":
            options: list[dict[str, Any]] = [
                {},
                {"compression": "none", "use_dictionary": False},
                {"compression": "zstd", "data_page_version": "2.0"},
            ]
            seeds += [("application/x-parquet", "", parquet_body(table, **each)) for each in options]
        else:
            content_type = "application/vnd.apache.arrow." + kind
            for each in ({}, {"compression": "lz4"}, {"compression": "zstd"}):
                seeds.append((content_type, "", arrow_body(table, file=kind == "file", **each)))
    if kind != "parquet" and hasattr(pa, "string_view"):
        views = pa.table({"v": pa.array(["a", None, "b" * 30], pa.string_view())})
        seeds.append(("application/vnd.apache.arrow." + kind, "", arrow_body(views, file=kind == "file")))
    return seeds


NASTY = (
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\xff" * 4,
    b"\0" * 4,
    b"\xff" * 7 + b"\x7f",
    b"\0" * 8,
    b"\0\0\0\0\1\0\0\0",
)


def mutate(draw: random.Random, body: bytes) -> bytes:
    """Return the body with one to eight changes of the kinds that break parsers."""
    damaged = bytearray(body)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 8))):
        if not damaged:
            break
        place, kind = draw.randrange(len(damaged)), draw.randrange(6)
        if kind == 0:
            damaged[place] ^= 1 << draw.randrange(8)
        elif kind == 1:
            damaged[place] = draw.randrange(256)
        elif kind == 2:
            nasty = draw.choice(NASTY)
            damaged[place : place + len(nasty)] = nasty
        elif kind == 3:
            del damaged[place : place + draw.choice((1, 4, 8, 64))]
        elif kind == 4:
            damaged[place:place] = bytes(draw.randrange(256) for _ in range(draw.choice((1, 4, 8))))
        else:
            other = draw.randrange(len(damaged))
            damaged[place : place + 8] = damaged[other : other + 8]
    return bytes(damaged)


@given(seed=st.sampled_from(TEXT_SEEDS), draw=st.randoms(use_true_random=False))
def test_damaged_text_bodies_are_read_or_refused(seed: Any, draw: random.Random) -> None:
    content_type, encoding, body = seed
    try:
        decode(mutate(draw, body), content_type, encoding=encoding)
    except RequestError as exc:
        message = exc.message
    else:
        return
    assert message


@pytest.mark.parametrize("kind", ["stream", "file", "parquet"])
def test_the_seeds_themselves_are_read(kind: str) -> None:
    for content_type, encoding, body in TEXT_SEEDS + binary_seeds(kind):
        assert len(decode(body, content_type, encoding=encoding))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "file", "parquet"])
def test_damaged_binary_bodies_do_not_end_the_process(kind: str) -> None:
    root = Path(__file__).parents[4]
    source = root / "src"
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", __file__, kind, "0", "2000"],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
        env={"PYTHONPATH": f"{source}:{root}", "PATH": ""},
    )
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-4000:]
    assert "'other'" not in run.stdout


def main(kind: str, first: int, count: int) -> None:
    """Decode mutants ``first`` to ``first + count``; run as a script, for a decoder may end its process."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (6 << 30 if hard == resource.RLIM_INFINITY else hard, hard))
    seeds = binary_seeds(kind)
    outcomes: Any = collections.Counter()
    for number in range(first, first + count):
        draw = random.Random(number)
        content_type, encoding, body = draw.choice(seeds)
        try:
            decode(mutate(draw, body), content_type, encoding=encoding)
            outcomes["read"] += 1
        except RequestError as exc:
            outcomes[exc.code] += 1
        except Exception as exc:  # noqa: BLE001 - anything else is what is looked for
            outcomes["other"] += 1
            print(number, repr(exc)[:300])
    print(dict(outcomes), "largest size in MiB:", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
