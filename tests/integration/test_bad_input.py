"""Bad input is refused with a 4xx that says what is wrong; never a 5xx, a hang, a dead worker or unbounded memory."""

from __future__ import annotations

import gzip
import io
import json
import random
import socket
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.environments import environment
from tests.integration.load import Answer, post, request
from tests.serving import ServeFixture, Server

pytestmark = [pytest.mark.slow, pytest.mark.track]

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
MODEL = """
import pandas as pd


def load_model(code_dir):
    return None


def score(data, model, **kwargs):
    return pd.DataFrame({"Predictions": data["a"].fillna(0) * 1.0 + data["b"].fillna(0)})
"""
METADATA = """
name: bad-input
type: inference
targetType: regression
typeSchema:
  input_requirements:
    - field: number_of_columns
      condition: EQUALS
      value: 2
    - field: data_types
      condition: EQUALS
      value: NUM
"""


@pytest.fixture(scope="module")
def server(serve_for_module: ServeFixture, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("models") / "model"
    folder.mkdir()
    (folder / "custom.py").write_text(MODEL)
    (folder / "model-metadata.yaml").write_text(METADATA)
    return serve_for_module(
        folder,
        *("--python", str(environment("sklearn"))),
        *("--max-body", "8MiB", "--max-decompressed", "32MiB", "--timeout", "30"),
    )


@pytest.fixture(autouse=True)
def still_the_same_worker(server: Server) -> Any:
    """Whatever was sent: the same worker answers afterwards, and it has not grown."""
    before = stats(server)
    yield
    good = post(f"{server.url}/predict/", b"a,b\n1,2\n", headers={"Content-Type": "text/csv"})
    assert good.json() == {"predictions": [3.0]}
    after = stats(server)
    assert [worker["pid"] for worker in after["workers"]] == [worker["pid"] for worker in before["workers"]]
    assert after["mem_info"]["total_resident_bytes"] < before["mem_info"]["total_resident_bytes"] + (256 << 20)
    assert after["queue"] == {"waiting": 0, "bytes_in_flight": 0}


def stats(server: Server) -> Any:
    return request("GET", f"{server.url}/stats/").json()


def predict(server: Server, body: bytes, content_type: str | None, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if content_type is not None:
        sent["Content-Type"] = content_type
    return post(f"{server.url}/predict/", body, headers=sent)


def assert_refused(answer: Answer, status: int, code: str, *words: str) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["content-type"] == "application/json"
    content = answer.json()
    assert content["code"] == code, content
    assert content["message"].startswith("ERROR: ")
    for word in words:
        assert word in content["message"], content["message"]


def arrow_stream() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"a": [1.0, 2.0, 3.0], "b": [4.0, 5.0, 6.0], "t": ["x", "yy", None]})
    sink = io.BytesIO()
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code", "words"),
    [
        pytest.param(b"", "text/csv", 422, "empty_body", (), id="empty body"),
        pytest.param(b"", None, 422, "empty_body", (), id="empty body without a type"),
        pytest.param(b"a,b\n", "text/csv", 422, "empty_body", ("no rows",), id="header only"),
        pytest.param(
            b"a,b\n1,2\n", "application/pdf", 415, "unsupported_media_type", ("application/pdf",), id="wrong type"
        ),
        pytest.param(b"a,b\n1,2\n", "application/json", 422, "decode_failed", (), id="CSV that is called JSON"),
        pytest.param(b'a,b\n1,"2\n', "text/csv", 422, "decode_failed", (), id="unterminated quote"),
        pytest.param(b"a,b\n1,2\n3,4,5\n", "text/csv", 422, "decode_failed", ("line 3",), id="a row too long"),
        pytest.param(b"a,b\n1,2\n3\n", "text/csv", 422, "decode_failed", ("line 3",), id="a row too short"),
        pytest.param(b"a,b\n1,2,3\n4,5,6\n", "text/csv", 422, "decode_failed", (), id="all rows too long"),
        pytest.param(b"a,b\n1,\xff\xfe\n", "text/csv", 422, "decode_failed", ("UTF-8",), id="not UTF-8"),
        pytest.param(b"a,b\n1,2\n", "text/csv; charset=nonsense", 422, "decode_failed", ("nonsense",), id="charset"),
        pytest.param(b"a\n1\n", "text/csv", 422, "schema_mismatch", ("number_of_columns",), id="a column missing"),
        pytest.param(
            b"a,b,c\n1,2,3\n", "text/csv", 422, "schema_mismatch", ("number_of_columns",), id="a column too many"
        ),
        pytest.param(b"a,b\n1,x\n", "text/csv", 422, "schema_mismatch", ("data_types", "b"), id="text for a number"),
        pytest.param(b'[{"a": NaN, "b": 1}]', "application/json", 422, "decode_failed", ("NaN",), id="bare NaN"),
        pytest.param(b'[{"a": 1, "b": 1}', "application/json", 422, "decode_failed", (), id="truncated JSON"),
        pytest.param(
            b'[{"a": 1, "b": 1}, 7]', "application/json", 422, "decode_failed", ("$[1]",), id="a row that is none"
        ),
        pytest.param(b"[" * 100_000, "application/json", 422, "decode_failed", (), id="deeply nested JSON"),
        pytest.param(b"[]", "application/json", 422, "empty_body", (), id="no records"),
        pytest.param(b'{"a": 1, "b": 2}', "application/json", 422, "decode_failed", (), id="a bare object"),
        pytest.param(
            b'{"columns": ["a", "b"], "data": [[1, 2], [3]]}',
            "application/json",
            422,
            "decode_failed",
            ("1",),
            id="ragged split",
        ),
        pytest.param(b"garbage", ARROW, 422, "decode_failed", (), id="no Arrow at all"),
        pytest.param(
            struct.pack("<iI", -1, 0x7FFFFFF0) + b"x" * 64, ARROW, 422, "decode_failed", (), id="huge Arrow message"
        ),
        pytest.param(b"PAR1" + b"x" * 64 + b"PAR1", PARQUET, 422, "decode_failed", (), id="broken Parquet"),
        pytest.param(b"PAR1" + b"\xff\xff\xff\x7fPAR1", PARQUET, 422, "decode_failed", (), id="huge Parquet footer"),
        pytest.param(b"a,b\n1,2\n", "text/mtx", 422, "decode_failed", (), id="no Matrix Market at all"),
        pytest.param(
            b"%%MatrixMarket matrix coordinate real general\n3 2 5\n1 1 1.0\n",
            "text/mtx",
            422,
            "decode_failed",
            (),
            id="short mtx",
        ),
        pytest.param(
            b"%%MatrixMarket matrix coordinate real general\n2 2 1\n9 1 1.0\n",
            "text/mtx",
            422,
            "decode_failed",
            (),
            id="mtx index",
        ),
        pytest.param(
            b"%%MatrixMarket matrix coordinate real general\n4000000000 4000000000 1\n1 1 1\n",
            "text/mtx",
            413,
            "decompressed_too_large",
            (),
            id="huge mtx",
        ),
    ],
)
def test_a_body_that_is_not_rows_is_refused_with_what_is_wrong(
    server: Server, body: bytes, content_type: str | None, status: int, code: str, words: tuple[str, ...]
) -> None:
    assert_refused(predict(server, body, content_type), status, code, *words)


def test_unknown_content_encoding_and_broken_gzip_are_refused(server: Server) -> None:
    good = gzip.compress(b"a,b\n1,2\n")
    assert predict(server, good, "text/csv", Content_Encoding="gzip").json() == {"predictions": [3.0]}
    assert_refused(predict(server, good, "text/csv", Content_Encoding="br"), 415, "unsupported_encoding", "br")
    for broken in (good[:-4], good[:10], b"not gzip", good + b"garbage"):
        assert_refused(predict(server, broken, "text/csv", Content_Encoding="gzip"), 422, "decode_failed")


@pytest.mark.parametrize("levels", [1, 2])
def test_a_gzip_bomb_is_stopped_at_the_limit(server: Server, levels: int) -> None:
    """One gibibyte of zeros in a megabyte; as a file in the multipart form it may be compressed once more."""
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(1024)) + compressor.flush()
    started = time.monotonic()
    if levels == 1:
        answer = predict(server, bomb, "text/csv", Content_Encoding="gzip")
    else:
        body, content_type = multipart([("X", "rows.csv.gz", "application/gzip", bomb)])
        answer = predict(server, gzip.compress(body), content_type, Content_Encoding="gzip")
        assert 400 <= answer.status < 500
        return
    assert_refused(answer, 413, "decompressed_too_large")
    assert time.monotonic() - started < 10


def multipart(parts: list[tuple[str, str, str, bytes]]) -> tuple[bytes, str]:
    pieces = [
        b'--frontier\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\nContent-Type: %s\r\n\r\n%s\r\n'
        % (name.encode(), filename.encode(), content_type.encode(), data)
        for name, filename, content_type, data in parts
    ]
    return b"".join(pieces) + b"--frontier--\r\n", "multipart/form-data; boundary=frontier"


def test_multipart_without_x_says_which_part_is_missing(server: Server) -> None:
    body, content_type = multipart([("Y", "rows.csv", "text/csv", b"a,b\n1,2\n")])
    assert_refused(predict(server, body, content_type), 422, "missing_part", "X")


@pytest.mark.parametrize(
    ("body", "content_type", "words"),
    [
        (b"a,b\n1,2\n", "multipart/form-data", ("boundary",)),
        (b"a,b\n1,2\n", "multipart/form-data; boundary=frontier", ()),
        (
            b'--frontier\r\nContent-Disposition: form-data; name="X"\r\n\r\na,b\n1',
            "multipart/form-data; boundary=frontier",
            (),
        ),
        (b"--frontier\r\nno colon\r\n\r\nx\r\n--frontier--\r\n", "multipart/form-data; boundary=frontier", ()),
        (b"--frontier\r\nA: " + b"x" * 100_000, "multipart/form-data; boundary=frontier", ()),
    ],
)
def test_broken_multipart_framing_is_refused(
    server: Server, body: bytes, content_type: str, words: tuple[str, ...]
) -> None:
    assert_refused(predict(server, body, content_type), 400, "malformed_multipart", *words)


def test_a_hundred_thousand_parts_are_refused_at_once(server: Server) -> None:
    part = b'--frontier\r\nContent-Disposition: form-data; name="p"\r\n\r\n\r\n'
    started = time.monotonic()
    answer = predict(server, part * 100_000 + b"--frontier--\r\n", "multipart/form-data; boundary=frontier")
    assert_refused(answer, 400, "malformed_multipart")
    assert time.monotonic() - started < 2


def test_a_body_over_the_limit_is_refused_before_it_is_read(server: Server) -> None:
    """Only the header is sent: the answer must not wait for the body."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /predict/ HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/csv\r\nContent-Length: {1 << 40}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_chunked_body_over_the_limit_is_refused_while_it_is_read(server: Server) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = (
            f"POST /predict/ HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        connection.sendall(head.encode())
        chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
        try:
            for _ in range(16):
                connection.sendall(chunk)
        except OSError:
            pass  # refused while we were still sending, which is the point
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_unknown_routes_and_methods_are_answered_in_the_documented_shape(server: Server) -> None:
    assert_refused(request("GET", f"{server.url}/nowhere"), 404, "not_found", "/nowhere")
    wrong = request("DELETE", f"{server.url}/predict/")
    assert_refused(wrong, 405, "method_not_allowed", "POST")
    assert wrong.headers["allow"] == "POST, OPTIONS"
    assert_refused(post(f"{server.url}/predictUnstructured/", b"x"), 404, "operation_unavailable")
    assert_refused(post(f"{server.url}/chat/completions", b"{}"), 404, "operation_unavailable")


@pytest.mark.parametrize("accept", ["image/png", "text/html;q=0.5, application/xml"])
def test_formats_that_cannot_be_written_are_refused_with_those_that_can(server: Server, accept: str) -> None:
    answer = predict(server, b"a,b\n1,2\n", "text/csv", Accept=accept)
    assert_refused(answer, 406, "not_acceptable", "text/csv", "application/json")


@pytest.mark.parametrize("value", ["soon", "-1", "0", "nan", "inf"])
def test_a_timeout_that_is_no_positive_number_is_refused(server: Server, value: str) -> None:
    assert_refused(
        predict(server, b"a,b\n1,2\n", "text/csv", X_Request_Timeout=value), 400, "bad_request", "X-Request-Timeout"
    )


@pytest.mark.parametrize("seed", range(3))
def test_damaged_files_never_kill_the_decoder(server: Server, seed: int) -> None:
    """Bytes flipped, cut, doubled and spliced in each format that has a decoder which may trust its input."""
    randomness = random.Random(seed)
    arrow = arrow_stream()
    matrix = b"%%MatrixMarket matrix coordinate real general\n3 2 3\n1 1 1.5\n2 2 2.5\n3 1 -3\n"
    formats = [
        (arrow, ARROW),
        (matrix, "text/mtx"),
        (b"a,b\n1,2\n3,4\n", "text/csv"),
        (json.dumps([{"a": 1, "b": 2}]).encode(), "application/json"),
    ]
    for _ in range(100):
        for good, content_type in formats:
            answer = predict(server, damage(good, randomness), content_type)
            assert answer.status in (200, 413, 415, 422), (answer.status, answer.body)


def damage(good: bytes, randomness: random.Random) -> bytes:
    data = bytearray(good)
    for _ in range(randomness.randint(1, 6)):
        place = randomness.randrange(len(data))
        match randomness.randrange(4):
            case 0:
                data[place] = randomness.randrange(256)
            case 1:
                del data[place : place + randomness.randint(1, 16)]
            case 2:
                data[place:place] = data[place : place + randomness.randint(1, 16)]
            case _:
                data[place : place + 8] = randomness.choice([b"\xff" * 8, b"\x00" * 8, struct.pack("<q", 1 << 40)])
        if not data:
            return bytes(data)
    return bytes(data)


def test_the_folder_of_the_test_is_what_was_served(server: Server) -> None:
    info = request("GET", f"{server.url}/info/").json()
    assert Path(info["code_dir"]).name == "model"
