"""What the pages tell the reader to do works, block by block, in the order in which it is told.

A block of ``sh`` is run, with the server's address put in place of the default; one that serves is left running until
the next one that does. Where a page speaks of a backend at port 8000, a small one runs. A block under
``<!-- file: NAME -->`` is written there. A block of ``json`` is what the block before it has printed. A block under
``<!-- not run: REASON -->``, and ``text``, is left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.environments import environment
from tests.integration.load import request
from tests.serving import ServeFixture, Server, running_server, tiny_backend_running

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[2] / "docs"
PAGES = (
    "tutorial.md",
    "how-to/direct-access.md",
    "how-to/environments.md",
    "how-to/extend-the-server.md",
    "how-to/llm-backends.md",
    "how-to/load-test.md",
    "how-to/move-from-flask.md",
    "how-to/score-files.md",
    "how-to/secure.md",
    "how-to/troubleshoot.md",
    "how-to/validate.md",
    "reference/http-api.md",
)
_DEFAULT_URL = re.compile(r"https?://127\.0\.0\.1:8080")
BACKEND_URL = "http://127.0.0.1:8000"
_BLOCK = re.compile(r"(?:^<!-- (file|not run): ([^\n]*) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One block: ``told`` is ``file`` or ``not run`` with its ``argument``, or empty."""

    told: str
    argument: str
    language: str
    text: str


def blocks_of(page: str) -> list[Block]:
    return [Block(*(group or "" for group in match.groups())) for match in _BLOCK.finditer((DOCS / page).read_text())]


class Reader:
    """Follows a page in a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed = ""
        self._all = contextlib.ExitStack()
        self._servers = self._all.enter_context(contextlib.ExitStack())
        self._backend: str | None = None
        self._url = ""
        (folder / "model-env").symlink_to(environment("sklearn").parents[1])
        commands = folder / ".commands"
        commands.mkdir()
        backline = commands / "backline"
        backline.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m backline "$@"\n')
        backline.chmod(0o755)
        self._environ = {**os.environ, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}", "no_proxy": "*"}

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.told == "not run" or block.language == "text":
            return
        if block.told == "file":
            (self.folder / block.argument).write_text(block.text)
        elif block.language == "json":
            assert_alike(json.loads(self.printed), json.loads(block.text))
        elif block.text.startswith("backline serve "):
            self._serve(shlex.split(self._with_backend(block.text).replace("\\\n", ""))[2:])
        else:
            assert block.language == "sh", block
            self._run(re.sub(_DEFAULT_URL, self._url, self._with_backend(block.text)))

    def close(self) -> None:
        """Stop what runs."""
        self._all.close()

    def _with_backend(self, text: str) -> str:
        if BACKEND_URL in text and self._backend is None:
            self._backend = self._all.enter_context(tiny_backend_running())
        return text if self._backend is None else text.replace(BACKEND_URL, self._backend)

    def _run(self, commands: str) -> None:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", commands],
            cwd=self.folder,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"{commands}\n{done.stdout}\n{done.stderr}"
        self.printed = done.stdout

    def _serve(self, arguments: list[str]) -> None:
        self._servers.close()
        folder = None if arguments[0].startswith("-") else self.folder / arguments.pop(0)
        arguments = [str(self.folder / flag) if (self.folder / flag).is_file() else flag for flag in arguments]
        ready = 513 if "--with-error-server" in arguments else 200
        log = self.folder / "server.log"
        server: Server = self._servers.enter_context(running_server(log, folder, *arguments, ready=ready))
        self._url = server.url


def assert_alike(printed: Any, shown: Any) -> None:
    """A page shows numbers to four places, and ``...`` for a text that differs each time."""
    if isinstance(shown, dict):
        assert list(printed) == list(shown)
        for key in shown:
            assert_alike(printed[key], shown[key])
    elif isinstance(shown, list):
        assert len(printed) == len(shown)
        for one, other in zip(printed, shown, strict=True):
            assert_alike(one, other)
    elif isinstance(shown, float):
        assert printed == pytest.approx(shown, abs=1e-4)
    elif shown != "...":
        assert printed == shown


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    if shutil.which("curl") is None:
        pytest.skip("the pages ask with curl, which is not here")
    made = Reader(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_who_follows_the_page_gets_what_it_shows(reader: Reader, page: str) -> None:
    blocks = blocks_of(page)
    assert blocks
    for block in blocks:
        reader.follow(block)


@pytest.mark.parametrize("page", sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")))
def test_every_block_has_a_language(page: str) -> None:
    fences = re.findall(r"^```(.*)$", (DOCS / page).read_text(), re.MULTILINE)
    assert all(fences[::2]) or page == "design/architecture.md"
    assert not any(fences[1::2])


def test_the_pieces_of_the_model_folder_page_make_a_folder(serve: ServeFixture, tmp_path: Path) -> None:
    blocks = blocks_of("reference/model-folder.md")
    code = "".join(block.text for block in blocks if block.language == "python")
    metadata = "".join(block.text for block in blocks if block.language == "yaml")
    (tmp_path / "custom.py").write_text(code)
    (tmp_path / "model-metadata.yaml").write_text(metadata)
    server = serve(tmp_path, "--python", str(environment("bare")), "--target-type", "textgeneration")
    assert "unknown key" not in server.log()
    bodies = [json.dumps({"temperature": temperature}).encode() for temperature in (1, 3)]
    good, bad = (request("POST", f"{server.url}/chat/completions", body) for body in bodies)
    assert good.status == 200
    assert (bad.status, bad.headers["x-drum-user-http-error"]) == (422, "true")
    assert bad.json()["error"]["message"] == "temperature must be between 0 and 2"
