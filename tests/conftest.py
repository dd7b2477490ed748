"""Fixtures that every test may use, and what a failed one shows."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path

import pytest

from tests.environments import build
from tests.environments import environment as build_environment
from tests.serving import ServeFixture, Server, running_logs, running_server


def pytest_configure(config: pytest.Config) -> None:
    """Let the building of environments be seen while it goes on."""
    capture = config.pluginmanager.get_plugin("capturemanager")
    if capture is not None:
        build.uncaptured = capture.global_and_fixture_disabled


# Under nohup, or in the background of a shell script, the tests' processes would inherit that these are ignored.
for _number, _handler in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture(scope="session")
def environment() -> Callable[[str], Path]:
    """The function ``environment(name)``: the python of a model environment, see ``tests.environments``."""
    return build_environment


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeFixture]:
    """Start servers for this test: ``serve(folder, *flags, env=..., ready=200)``."""
    with _servers(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="module")
def serve_for_module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeFixture]:
    """Start servers that the tests of a module share: for those that only ask."""
    with _servers(tmp_path_factory) as start:
        yield start


@contextlib.contextmanager
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeFixture]:
    with contextlib.ExitStack() as servers:

        def start(
            folder: Path | None, *flags: str, env: Mapping[str, str] | None = None, ready: int | None = 200
        ) -> Server:
            log_file = tmp_path_factory.mktemp("server") / "server.log"
            return servers.enter_context(running_server(log_file, folder, *flags, env=env, ready=ready))

        yield start


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers wrote when a test fails."""
    del item
    report = yield
    if report.failed:
        report.sections.extend(("server log", log) for log in running_logs())
    return report
