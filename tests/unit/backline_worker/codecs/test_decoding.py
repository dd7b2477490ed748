"""Which codec a body goes to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

import backline_worker
from backline_worker.errors import DecodeError, EmptyBody, UnsupportedMediaType
from tests.unit.backline_worker.codecs.bodies import arrow_body, decode, parquet_body

TABLE = pa.table({"a": [1, 2]})
CSV = b"a\n1\n2\n"
JSON = b' [{"a": 1}, {"a": 2}]'
LINES = b'{"a": 1}\n{"a": 2}'
MTX = b"%%MatrixMarket matrix array integer general\n2 1\n1\n2\n"


@pytest.mark.parametrize(
    ("body", "content_type", "filename"),
    [
        (CSV, "text/csv", None),
        (CSV, "Text/CSV; Charset=UTF-8", "x.json"),
        (CSV, "text/plain", None),
        (CSV, "application/x-www-form-urlencoded", None),
        (CSV, "application/octet-stream", "data.CSV"),
        (CSV, "application/vnd.ms-excel", "data.csv"),
        (CSV, "", None),
        (JSON, "application/json; charset=utf-8", "x.csv"),
        (JSON, "", None),
        (JSON, "application/octet-stream", "x.json"),
        (JSON, "text/plain", None),
        (LINES, "application/x-ndjson", None),
        (LINES, "application/octet-stream", "x.ndjson"),
        (arrow_body(TABLE), "application/vnd.apache.arrow.stream", None),
        (arrow_body(TABLE), "application/x-apache-arrow-stream", None),
        (arrow_body(TABLE), "", None),
        (arrow_body(TABLE), "", "x.arrows"),
        (arrow_body(TABLE), "application/octet-stream", "x.arrow"),  # some give streams this name
        (arrow_body(TABLE, file=True), "application/vnd.apache.arrow.file", None),
        (arrow_body(TABLE, file=True), "application/octet-stream", "x.feather"),
        (arrow_body(TABLE, file=True), "application/octet-stream", None),
        (parquet_body(TABLE), "application/vnd.apache.parquet", None),
        (parquet_body(TABLE), "application/x-parquet", None),
        (parquet_body(TABLE), "", "x.parquet"),
        (parquet_body(TABLE), "", None),
        (MTX, "text/mtx", None),
        (MTX, "application/x-matrix-market", None),
        (MTX, "application/octet-stream", "x.mtx"),
        (MTX, "", None),
    ],
)
def test_content_type_then_file_name_then_first_bytes_decide(
    body: bytes, content_type: str, filename: str | None
) -> None:
    frame = decode(body, content_type, filename=filename)
    assert frame.iloc[:, 0].tolist() == [1, 2]


def test_a_stream_without_the_marker_of_newer_writers_is_read() -> None:
    assert decode(arrow_body(TABLE, use_legacy_format=True))["a"].tolist() == [1, 2]


def test_a_content_type_of_something_else_is_refused_with_what_is_read() -> None:
    with pytest.raises(UnsupportedMediaType, match=r"image/png.*text/csv") as caught:
        decode(CSV, "image/png")
    assert "text/csv" in caught.value.details["supported"]


def test_no_body_is_empty_whatever_it_claims_to_be() -> None:
    for content_type in ("", "text/csv", "application/json", "application/x-parquet", "text/mtx"):
        with pytest.raises(EmptyBody):
            decode(b"", content_type)


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/x-parquet", "text/mtx", "application/vnd.apache.arrow.file"]
)
def test_a_body_that_is_not_what_it_says_is_refused(content_type: str) -> None:
    with pytest.raises(DecodeError):
        decode(b"a,b\n1,2\n", content_type)


MISSING = """
import sys
for name in sys.argv[1].split(","):
    sys.modules[name] = None
from backline_worker.codecs import available_output, decode_table, encode_predictions
from backline_worker.contract.target_types import Predictions, TargetType
from backline_worker.types import Part
for content_type, body in (("text/csv", b"a\\n1\\n"), ("text/mtx", b"x"), ("application/x-parquet", b"PAR1")):
    try:
        decode_table(Part("X", content_type, body), [], content_encoding="", max_bytes=1000)
        print(content_type, "read")
    except Exception as exc:
        print(content_type, type(exc).__name__, exc)
p = Predictions(TargetType.REGRESSION, {"Predictions": [1.5, 2]}, 2)
print(encode_predictions(p, "application/json"), encode_predictions(p, "text/csv"))
try:
    encode_predictions(p, "application/x-parquet")
except Exception as exc:
    print("answer", type(exc).__name__, exc)
"""


def test_a_missing_package_is_named_with_what_works_instead() -> None:
    source = Path(backline_worker.__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", MISSING, "pyarrow,scipy,scipy.sparse"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(source), "PATH": ""},
    )
    lines = run.stdout.splitlines()
    assert lines[0] == "text/csv read"
    assert "UnsupportedMediaType" in lines[1] and "scipy" in lines[1] and "model's environment" in lines[1]
    assert "UnsupportedMediaType" in lines[2] and "pyarrow" in lines[2] and "text/csv" in lines[2]
    assert lines[3] == r"""b'{"predictions":[1.5,2]}' b'Predictions\n1.5\n2\n'"""
    assert lines[4].startswith("answer NotAcceptable") and "pyarrow" in lines[4]


def test_without_pandas_nothing_is_read_and_that_is_said() -> None:
    source = Path(backline_worker.__file__).parent.parent
    run = subprocess.run(
        [sys.executable, "-c", MISSING, "pandas,pyarrow,numpy"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(source), "PATH": ""},
    )
    assert "UnsupportedMediaType reading CSV needs pandas" in run.stdout
    assert "predictions" in run.stdout
