"""Schemathesis makes requests of ``/openapi.json``: none breaks the server, or gets what the document does not say.

``SCHEMATHESIS_SECONDS=600 pytest tests/integration/test_schemathesis.py`` is the long form: so long for each server.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.environments import environment
from tests.integration.load import request
from tests.integration.project_models import serve_template, trained_binary
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_headers_conformance",
    "response_schema_conformance",
)  # fmt: skip
EXTENSION = """
def init_app(app):
    @app.get("/items/{number}")
    async def item(number: int) -> int:
        return number
"""

# What Schemathesis is told of our formats: a line for each value.
FORMATS = """
import json
import schemathesis

@schemathesis.serializer("application/x-ndjson")
def as_lines(context, value):
    values = value if isinstance(value, list) else [value]
    return "".join(f"{json.dumps(each)}\\n" for each in values).encode()
"""


def serve_rows(serve: ServeFixture, folder: Path) -> Server:
    python = trained_binary(folder)
    (folder / "custom_fastapi.py").write_text(EXTENSION)
    return serve(folder, "--python", str(python))


serve_unstructured = serve_template("unstructured", URL_PREFIX="/models/shop")
serve_chat = serve_template("agenticworkflow")


def serve_proxy(serve: ServeFixture, folder: Path) -> Server:
    backend = serve_chat(serve, folder)
    return serve(None, "--sidecar", "--backend", f"{backend.url}/v1", "--backend-kind", "openai")


@pytest.mark.parametrize(
    "start",
    [serve_rows, serve_unstructured, serve_chat, serve_proxy],
    ids=["rows", "unstructured", "chat", "proxy"],
)
def test_no_request_that_can_be_made_of_the_document_breaks_the_server_or_the_document(
    serve: ServeFixture, tmp_path: Path, start: Callable[[ServeFixture, Path], Server]
) -> None:
    server = start(serve, tmp_path / "model")
    program = environment("schemathesis").with_name("schemathesis")
    (tmp_path / "formats.py").write_text(FORMATS)
    seconds = os.environ.get("SCHEMATHESIS_SECONDS")
    length = ["--max-time", seconds] if seconds else ["--max-examples", "4", "--seed", "1"]
    done = subprocess.run(
        [
            program, "run", f"{server.url}/openapi.json", "--phases", "examples,coverage,fuzzing", *length,
            "--checks", ",".join(CHECKS), "--request-timeout", "30", "--warnings", "off", "--no-color",
            # A deadline of 1e-300 s gets the 504 that it asks for, which would count as an error of the server.
            "--header", "X-Request-Timeout: 30",
        ],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path), "SCHEMATHESIS_HOOKS": "formats"},
        capture_output=True, text=True, timeout=300 + float(seconds or 0), check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr
    (operations,) = re.findall(r"Tested: (\d+)", done.stdout)
    (cases,) = re.findall(r"(\d+) generated", done.stdout)
    paths = request("GET", f"{server.url}/openapi.json").json()["paths"]
    assert int(operations) == sum(len(methods) for methods in paths.values())
    assert int(cases) > 20 * int(operations)
    assert request("GET", f"{server.url}/readyz").status == 200
