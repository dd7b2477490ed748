"""Follows a page as its reader would: a terminal, an editor, servers that run, and an eye on what is printed."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import re
import select
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self

import yaml

from backline.config.model_folder import read_model_folder
from backline.config.sources import load_settings
from tests.environments.build import MissingInterpreter, build
from tests.pages import ROOT, Block
from tests.serving import running_server, tiny_backend_running
from tests.shown import assert_alike, assert_part, is_alike, is_within, json_of

_BLOCK_TIMEOUT = 180.0  # seconds
_LOG_TIMEOUT = 10.0  # seconds until a line that is waited for is in the log
_PORT = re.compile(r"(?:127\.0\.0\.1|localhost):(\d{4,5})\b")
_SERVER_PORT, _BACKEND_PORT = "8080", "8000"
_SERVE = re.compile(r"^(?:server/bin/)?backline serve (?:.*\\\n)*.*\n", re.MULTILINE)
_EXPECTED_TO_FAIL = re.compile(r"^! ((?:.*\\\n)*.*)\n", re.MULTILINE)
# The environments that pages speak of, and the tests' own that stand for them: the first whose Python is here.
_ENVIRONMENTS = {"model-env": ("sklearn",), "env-numpy1": ("py38-pydantic1", "sklearn"), "env-numpy2": ("sklearn",)}


class Printed(NamedTuple):
    """What a block has printed."""

    out: str
    err: str = ""


class Reader:
    """Follows the blocks of a page in a folder of its own; what they have started ends with the ``with`` block."""

    def __init__(self, folder: Path, blocks: list[Block]) -> None:
        self.folder = folder
        self._tools = folder.with_name(f"{folder.name}-tools")
        self._tools.mkdir()
        self._printed: Printed | None = None  # None: the log of the server, which goes on
        self._all = contextlib.ExitStack()
        self._servers = self._all.enter_context(contextlib.ExitStack())
        self._ports: dict[str, str] = {}
        self._log: Path | None = None
        written = "".join(block.text for block in blocks)
        for port in {*_PORT.findall(written)} - {_SERVER_PORT, _BACKEND_PORT}:
            self._ports[port] = str(_free_port())
        for name, kinds in _ENVIRONMENTS.items():
            if name in written:
                (folder / name).symlink_to(_environment(kinds))
        if "server/bin/" in written:
            (folder / "server" / "bin").mkdir(parents=True)
        self._write_tools("server/bin/" in written)
        self._shell = self._all.enter_context(_shell(folder, self._tools))

    def follow(self, block: Block) -> None:
        """Do what a block says, or hold what it shows against what was printed."""
        with _named(block):
            if not block.runs:
                return
            if block.verb == "part of":
                assert_part(block.text, ROOT / block.argument)
            elif block.verb in ("file", "add to"):
                self._write(block)
            elif block.language == "sh":
                self._run(block.text, block)
            elif block.language == "python":
                file = self._tools / "block.py"
                file.write_text(self._here(block.text))
                self._run(f"python {shlex.quote(str(file))}\n", block)
            else:
                self._compare(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._all.close()

    def _write(self, block: Block) -> None:
        file = self.folder / block.argument
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w" if block.verb == "file" else "a") as opened:
            opened.write(self._here(block.text))
        check_file(file)

    def _run(self, commands: str, block: Block) -> None:
        """Run commands; a line that serves is left running until the next one, and its log is what it prints."""
        end = 0
        for serving in _SERVE.finditer(commands):
            self._do(commands[end : serving.start()], block)
            words = shlex.split(self._here(serving[0]).replace("\\\n", ""))
            self._serve(words[2:])
            end = serving.end()
        self._do(commands[end:], block)

    def _do(self, commands: str, block: Block) -> None:
        if not commands.strip():
            return
        commands = _EXPECTED_TO_FAIL.sub(r"if \1\nthen echo 'this was to fail' >&2; exit 1; fi\n", self._here(commands))
        commands = commands.replace("if backline serve", "if BACKLINE_ADDRESS=127.0.0.1:0 backline serve")
        self._printed = self._shell.run(commands)
        refused = [status for status in self._statuses() if status >= 400]
        expected = [int(word) for word in block.argument.replace(",", " ").split()] if block.verb == "status" else []
        assert refused == expected or block.verb == "unseen", (
            f"{refused=}, where the page says {expected}; <!-- status: ... --> says which\n{self._printed.out}"
        )

    def _serve(self, arguments: list[str]) -> None:
        if "--address" not in arguments:
            self._servers.close()
        folder = None if arguments[0].startswith("-") else Path(arguments.pop(0))
        ready = 513 if "--with-error-server" in arguments else 200
        log = self._tools / f"server-{time.monotonic_ns()}.log"
        running = running_server(log, folder, *arguments, ready=ready, env=self._shell.exported(), cwd=self.folder)
        server = self._servers.enter_context(running)
        if "--address" not in arguments:
            self._ports[_SERVER_PORT] = server.url.rsplit(":", 1)[1]
        self._log = log
        self._printed = None

    def _compare(self, block: Block) -> None:
        vary = block.verb == "figures vary"
        shown = self._here(block.text)
        if block.verb == "in the log" or self._printed is None:
            self._wait_logged(shown, figures_vary=vary)
            return
        out, err = self._printed
        if block.language == "json":
            with contextlib.suppress(json.JSONDecodeError):
                assert_alike(json_of(out), json_of(shown), figures_vary=vary)
                return
        if not any(is_alike(shown, one, figures_vary=vary) for one in (out, err, out + err, err + out)):
            raise AssertionError(f"shown:\n{shown}\nprinted:\n{out}\n{err}")

    def _wait_logged(self, shown: str, *, figures_vary: bool) -> None:
        """Wait until each line that is shown is in the log, in that order, with others between them or not."""
        assert self._log is not None, "no server runs"
        deadline = time.monotonic() + _LOG_TIMEOUT
        while not is_within(shown, log := self._log.read_text(), figures_vary=figures_vary):
            assert time.monotonic() < deadline, f"shown:\n{shown}\nlogged:\n{log}"
            time.sleep(0.02)

    def _here(self, text: str) -> str:
        """Put the ports of this run in the place of those that the page has."""
        if f":{_BACKEND_PORT}" in text and _BACKEND_PORT not in self._ports:
            backend = self._all.enter_context(tiny_backend_running())
            self._ports[_BACKEND_PORT] = backend.rsplit(":", 1)[1]
        for port, here in self._ports.items():
            text = re.sub(rf"(?<![\d.]){port}(?![\d.]\d)\b", here, text)
        return text

    def _statuses(self) -> Iterator[int]:
        """Return the statuses that curl was answered with since last asked."""
        for file in sorted(self._tools.glob("answer.*"), key=lambda file: file.stat().st_mtime_ns):
            yield from (int(found) for found in re.findall(r"^HTTP/\S+ ([2-5]\d\d)", file.read_text(), re.MULTILINE))
            file.unlink()

    def _write_tools(self, server_environment: bool) -> None:
        """Write the commands that pages use: ``backline`` and ``python`` of this environment, ``curl`` that tells."""
        curl = shutil.which("curl")
        tools = {
            "backline": f'exec {shlex.quote(sys.executable)} -m backline "$@"',
            "python": f'exec {shlex.quote(sys.executable)} "$@"',
            # What a page installs is for its reader; here it would end up on the machine of whoever runs the tests.
            **dict.fromkeys(
                ("pip", "apt-get"), "echo 'nothing is installed here: mark the block as not run' >&2; exit 1"
            ),
            "curl": f'exec {curl} --dump-header "$(mktemp "{self._tools}/answer.XXXXXX")" "$@"',
        }
        for name, commands in tools.items():
            _write_command(self._tools / name, commands)
        if server_environment:
            _write_command(self.folder / "server" / "bin" / "backline", tools["backline"])


class _Shell:
    """A bash that lives as long as the page, so that what a block exports or puts in the background stays."""

    def __init__(self, process: subprocess.Popen[str], tools: Path) -> None:
        self._process = process
        self._tools = tools
        self._count = 0
        self.run("")
        self._first = self._environ()

    def run(self, commands: str) -> Printed:
        """Run commands, which must all succeed, and return what they have printed."""
        self._count += 1
        script, out, err = (self._tools / f"{self._count}.{kind}" for kind in ("sh", "out", "err"))
        script.write_text(commands)
        assert self._process.stdin is not None and self._process.stdout is not None
        paths = [shlex.quote(str(path)) for path in (script, out, err, self._tools / "environ")]
        self._process.stdin.write(". {} >{} 2>{} </dev/null; env -0 >{}; echo done\n".format(*paths))
        self._process.stdin.flush()
        ended, _, _ = select.select([self._process.stdout], [], [], _BLOCK_TIMEOUT)
        assert ended, f"not over within {_BLOCK_TIMEOUT:.0f} s:\n{commands}\n{out.read_text()}{err.read_text()}"
        told = self._process.stdout.readline()
        assert told == "done\n", f"failed:\n{commands}\n{out.read_text()}{err.read_text()}"
        return Printed(out.read_text(), err.read_text())

    def exported(self) -> dict[str, str]:
        """Return the variables that the page has exported."""
        return {name: value for name, value in self._environ().items() if self._first.get(name) != value}

    def _environ(self) -> dict[str, str]:
        entries = (self._tools / "environ").read_text().split("\0")
        return dict(entry.split("=", 1) for entry in entries if "=" in entry and not entry.startswith("_="))


@contextlib.contextmanager
def _shell(folder: Path, tools: Path) -> Iterator[_Shell]:
    environ = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "no_proxy": "*"}
    environ["BACKLINE_LOG_FORMAT"] = "text"  # as on a terminal
    process = subprocess.Popen(
        ["bash", "--noprofile", "--norc", "-euo", "pipefail"],
        cwd=folder, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield _Shell(process, tools)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # with what the page has left in the background
        process.communicate()


def check_file(file: Path) -> None:
    """Hold a file that a page has written against what reads it.

    Raises ``AssertionError`` for a file that nothing here knows how to check.
    """
    for suffix, check in _CHECKS.items():
        if file.name.endswith(suffix):
            check(file)
            return
    raise AssertionError(f"nothing checks a file called {file.name}: add a check to _CHECKS in tests/reader.py")


def _check_settings(file: Path) -> None:
    assert load_settings(file.parent, {}, {}).warnings == ()


def _check_metadata(file: Path) -> None:
    assert read_model_folder(load_settings(file.parent, {}, {}).settings).warnings == ()


def _check_prometheus(*kind: str) -> Callable[[Path], None]:
    def check(file: Path) -> None:
        promtool = shutil.which("promtool")
        if promtool is None:
            assert yaml.safe_load(file.read_text())
            return
        done = subprocess.run([promtool, "check", *kind, file], capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    return check


_CHECKS: dict[str, Callable[[Path], object]] = {
    "backline.toml": _check_settings,
    "model-metadata.yaml": _check_metadata,
    "prometheus.yml": _check_prometheus("config"),
    ".rules.yml": _check_prometheus("rules"),
    ".py": lambda file: ast.parse(file.read_text()),
    ".json": lambda file: json.loads(file.read_text()),
    ".jsonl": lambda file: [json.loads(line) for line in file.read_text().splitlines()],
    "values.yaml": lambda file: yaml.safe_load(file.read_text()),
}


def _environment(kinds: Sequence[str]) -> Path:
    for kind in kinds[:-1]:
        with contextlib.suppress(MissingInterpreter):
            return build(kind).parents[1]
    return build(kinds[-1]).parents[1]


@contextlib.contextmanager
def _named(block: Block) -> Iterator[None]:
    """Say of which block an error is."""
    try:
        yield
    except AssertionError as exc:
        raise AssertionError(f"{block.place}: {exc}") from exc


def _write_command(file: Path, commands: str) -> None:
    file.write_text(f"#!/bin/sh\n{commands}\n")
    file.chmod(0o755)


def _free_port() -> int:
    """Return a port that nobody listens on, and that the system gives to no connection meanwhile."""
    while True:
        port = random.randrange(15_000, 30_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
