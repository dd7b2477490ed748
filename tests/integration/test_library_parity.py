"""What is served is what the library predicts: the same floats, for one row and for many, whatever the formats."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from tests.environments import environment
from tests.integration import parity_models
from tests.integration.load import Answer, post
from tests.integration.parity_models import CASES, ROWS, UNSTRUCTURED, Case
from tests.serving import ServeFixture, running_server

pytestmark = pytest.mark.slow

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
JSON = "application/json"
CSV = "text/csv"
CONTENT_TYPES = {
    "csv": CSV,
    "records": JSON,
    "split": JSON,
    "lines": "application/x-ndjson",
    "arrow": ARROW,
    "parquet": PARQUET,
    "mtx": "text/mtx",
}
ANSWERS = (CSV, ARROW, PARQUET)
# How a body is sent, by name, and the format of its rows.
WAYS = {
    **{form: form for form in CONTENT_TYPES if form != "mtx"},
    "csv-multipart": "csv",
    "csv-content-encoding-gzip": "csv",
    "csv-gz-file": "csv",
    "parquet-multipart": "parquet",
    "mtx-with-names": "mtx",
}
# For the library here and in the worker: sums may depend on the number of threads, and on a busy machine they wait.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
_ONE_VALUE = ("regression", "anomaly", "textgeneration", "agenticworkflow")


@dataclass(frozen=True)
class Served:
    name: str
    case: Case
    url: str
    root: Path

    def rows(self, count: int, form: str) -> bytes:
        return (self.root / "rows" / self.case.rows / str(count) / form).read_bytes()

    def expected(self, count: int, form: str) -> dict[str, list[Any]]:
        return _read_expected(self.root / "expected" / self.name / str(count) / form)

    def columns(self, count: int) -> list[str]:
        return list(json.loads(self.rows(count, "split"))["columns"])


@lru_cache(maxsize=8)
def _read_expected(path: Path) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = parquet.read_table(path).to_pydict()
    return table


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The interpreter and the folder with models, rows and expectations."""
    python = environment("artifacts")
    root = tmp_path_factory.mktemp("parity")
    done = subprocess.run(
        [str(python), parity_models.__file__, str(root)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, **ONE_THREAD},
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return python, root


@pytest.fixture(scope="module")
def fleet(models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Served]]:
    """Serve one folder at a time: forty at once would not fit into memory."""
    python, root = models
    with contextlib.ExitStack() as running:
        now: list[Served] = []

        def serve_folder(name: str) -> Served:
            if not now or now[0].name != name:
                running.close()
                now.clear()
                log = tmp_path_factory.mktemp("server") / "server.log"
                folder = root / "models" / name
                server = running.enter_context(running_server(log, folder, "--python", str(python), env=ONE_THREAD))
                now.append(Served(name, CASES[name], server.url, root))
            return now[0]

        yield serve_folder


def body_of(served: Served, way: str, count: int) -> tuple[bytes, dict[str, str]]:
    form = WAYS[way]
    data, content_type = served.rows(count, form), CONTENT_TYPES[form]
    if way == form:
        return data, {"Content-Type": content_type}
    if way == "csv-content-encoding-gzip":
        return gzip.compress(data, 1), {"Content-Type": content_type, "Content-Encoding": "gzip"}
    if way == "mtx-with-names":
        names = "\n".join(served.columns(count)).encode()
        return multipart(("X", "rows.mtx", content_type, data), ("sparse.colnames", "names.txt", "text/plain", names))
    if way == "csv-gz-file":
        return multipart(("X", "rows.csv.gz", "application/gzip", gzip.compress(data, 1)))
    return multipart(("X", f"rows.{form}", content_type, data))


def multipart(*parts: tuple[str, str, str, bytes]) -> tuple[bytes, dict[str, str]]:
    body = b""
    for name, filename, content_type, data in parts:
        head = f'--b0\r\nContent-Disposition: form-data; name="{name}"; filename="{filename}"\r\n'
        body += f"{head}Content-Type: {content_type}\r\n\r\n".encode() + data + b"\r\n"
    return body + b"--b0--\r\n", {"Content-Type": "multipart/form-data; boundary=b0"}


def ask(served: Served, way: str, count: int, accept: str) -> Answer:
    body, headers = body_of(served, way, count)
    route = "transform" if served.case.target_type == "transform" else "predict"
    answer = post(f"{served.url}/{route}/", body, headers={**headers, "Accept": accept})
    assert answer.status == 200, answer.body[:2000]
    assert answer.headers["content-type"] == accept
    return answer


def columns_of_json(served: Served, answer: Answer, names: list[str]) -> dict[str, list[Any]]:
    content = answer.json()
    if served.case.target_type != "transform":
        assert list(content) == ["predictions"]
        content = content["predictions"]
    if len(names) == 1 and served.case.target_type in _ONE_VALUE:
        return {names[0]: content}
    for row in content:
        assert list(row) == names  # in the contract's order: the positive label first
    return {name: [row[name] for row in content] for name in names}


def columns_of_csv(answer: Answer, expected: dict[str, list[Any]]) -> dict[str, list[Any]]:
    header, *rows = csv.reader(io.StringIO(answer.body.decode(), newline=""))
    types = [type(values[0]) for values in expected.values()]
    return {name: [types[n](row[n]) for row in rows] for n, name in enumerate(header)}


def assert_same(found: dict[str, list[Any]], expected: dict[str, list[Any]]) -> None:
    """Check names, order, types and every bit of every value."""
    assert list(found) == list(expected)
    for name, values in expected.items():
        # repr of a float is exact, tells -0.0 from 0.0 and 1 from 1.0.
        assert list(map(repr, found[name])) == list(map(repr, values)), name


EXCHANGES = [
    pytest.param(name, way, accept, count, id=f"{name}-{way}-{accept.rpartition('.')[2]}-{count}")
    for name, case in CASES.items()
    for way, form in WAYS.items()
    if form in case.formats
    for accept in (JSON, *ANSWERS)
    if accept == JSON or way == "csv"
    for count in ROWS
]


@pytest.mark.parametrize(("name", "way", "accept", "count"), EXCHANGES)
def test_what_is_served_is_what_the_library_predicts(
    fleet: Callable[[str], Served], name: str, way: str, accept: str, count: int
) -> None:
    served = fleet(name)
    expected = served.expected(count, WAYS[way])
    assert len(next(iter(expected.values()))) == count
    answer = ask(served, way, count, accept)
    if accept == JSON:
        assert_same(columns_of_json(served, answer, list(expected)), expected)
    elif accept == CSV:
        assert_same(columns_of_csv(answer, expected), expected)
    else:
        table = (
            pa.ipc.open_stream(answer.body).read_all()
            if accept == ARROW
            else parquet.read_table(pa.BufferReader(answer.body))
        )
        assert_same(table.to_pydict(), expected)
        assert float_types(table.schema) == float_types(
            parquet.read_schema(served.root / "expected" / name / str(count) / "csv")
        )


def float_types(schema: pa.Schema) -> list[str]:
    """Return the types of floating columns: single precision must not be answered as double, nor the reverse."""
    return [str(field.type) for field in schema if pa.types.is_floating(field.type)]


def test_an_agentic_workflow_answers_chat_with_what_its_hook_returns(fleet: Callable[[str], Served]) -> None:
    served = fleet("hooks-agenticworkflow")
    sent = {"model": "any", "messages": [{"role": "user", "content": "żółw 🐢"}], "temperature": 0.1, "unknown": [1.5]}
    answer = post(
        f"{served.url}/v1/chat/completions", json.dumps(sent).encode(), headers={"Content-Type": "application/json"}
    )
    assert answer.status == 200, answer.body
    content = answer.json()
    assert content["choices"][0]["message"] == {"role": "assistant", "content": "żółw 🐢"[::-1]}
    assert content["seen"] == sent


def test_an_unstructured_model_gets_and_gives_bytes_and_text_as_they_are(
    models: tuple[Path, Path], serve: ServeFixture, tmp_path: Path
) -> None:
    python, _ = models
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "custom.py").write_text(UNSTRUCTURED)
    server = serve(tmp_path / "model", "--python", str(python), "--target-type", "unstructured")
    url = f"{server.url}/predictUnstructured/"
    data = bytes(range(256)) * 10_000  # over what travels inside a frame
    text = "żółw 🐢\r\n\0 line" * 1000
    echoed = post(url, data, headers={"Content-Type": "application/octet-stream"})
    assert (echoed.headers["content-type"], echoed.body) == ("application/octet-stream", data)
    echoed = post(url, text.encode(), headers={"Content-Type": "text/plain"})
    assert (echoed.headers["content-type"], echoed.body) == ("text/x-echo; charset=utf-8", text.encode())
    latin = "żółw".encode("iso-8859-2")
    for body, content_type, kind in (
        (data, "image/png", "bytes"),
        (latin, "text/plain; charset=iso-8859-2", "str"),
        (b"a=1&b=2", "application/x-www-form-urlencoded", "bytes"),
        (b'{"a": 1}', "application/json", "str"),
        (b"--b0\r\n\r\n--b0--\r\n", "multipart/form-data; boundary=b0", "bytes"),
    ):
        answer = post(f"{url}?as=digest", body, headers={"Content-Type": content_type})
        assert answer.json() == {"type": kind, "digest": hashlib.sha256(body).hexdigest()}, content_type
