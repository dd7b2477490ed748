"""``backline serve``."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib.util
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import click

from backline.api.listen import listen
from backline.cli.exit_codes import ExitCode
from backline.cli.flags import ModelCommand
from backline.cli.loading import load_for_server
from backline.config.api_key import read_api_key
from backline.config.model_folder import ModelFolder
from backline.config.python import is_to_be_built
from backline.errors import ConfigError
from backline.proxy.choose import choose_client
from backline.runtime.confinement import confinement
from backline.runtime.launch import Launched, check_preload, launched_early
from backline.runtime.threads import threads_per_worker


@click.command(cls=ModelCommand, settings_of="serve")
@click.pass_context
def serve(ctx: click.Context, /, **values: Any) -> int:
    """Serve the model in DIR over HTTP until stopped; with --backend, an LLM backend beside it or instead of it.

    Settings are flags, environment variables (BACKLINE_WORKERS for --workers), backline.toml in DIR, and for target
    type and labels model-metadata.yaml; the first of these that says something wins. backline config show tells which.
    """
    with _stopped_early() as stopped:
        return _serve(ctx, values, stopped)


def _serve(ctx: click.Context, values: dict[str, Any], stopped: Callable[[], bool]) -> int:
    folder, reread = load_for_server(ctx, values)
    folder = _with_backend_port(folder)
    server = folder.settings.server
    if server.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        raise ConfigError(
            "--loop uvloop: the package uvloop is not installed in the server's environment; install it there, or "
            "leave the choice to --loop auto"
        )
    if folder.settings.backend.url is not None:
        choose_client(folder.settings.backend)
        from backline.runtime.backend_process import check_command  # late: it brings asyncio

        check_command(folder.settings.backend)
        read_api_key(folder.settings.backend)
    if folder.settings.shadow.target is not None:
        from backline.parity.shadow import check_shadow

        check_shadow(folder.settings.shadow)
    with listen(server.host, server.port) as listener, _first_worker(folder) as launched:
        # Late: the web framework takes long to import, and the worker is on its way.
        with _collector_at_rest():
            from backline.api.run import Outcome
            from backline.api.run import serve as run_server

        if stopped():
            return ExitCode.OK
        codes = {
            Outcome.STOPPED: ExitCode.OK,
            Outcome.INTERRUPTED: ExitCode.INTERRUPTED,
            Outcome.FAILED: ExitCode.FAILURE,
        }
        return codes[run_server(folder.settings, folder, listener, launched=launched, reread=reread)]


@contextlib.contextmanager
def _stopped_early() -> Iterator[Callable[[], bool]]:
    """End on SIGTERM in good order, with what has been opened closed again; the running server has its own handler.

    Yields what tells whether the signal has come: a library that is being imported may swallow what a handler raises,
    or wrap it in an error of its own (pydantic does).
    """
    asked = False

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        nonlocal asked
        asked = True
        sys.exit(ExitCode.OK)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield lambda: asked
    except Exception:
        if not asked:
            raise
        sys.exit(ExitCode.OK)


def _with_backend_port(folder: ModelFolder) -> ModelFolder:
    """Take a free port for a backend whose command has a place for one, where no address is given."""
    backend = folder.settings.backend
    if backend.command is None or backend.url is not None:
        return folder
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    settings = dataclasses.replace(folder.settings, backend=dataclasses.replace(backend, url=url))
    return dataclasses.replace(folder, settings=settings)


@contextlib.contextmanager
def _first_worker(folder: ModelFolder) -> Iterator[Launched | None]:
    if folder.problem is not None or folder.settings.backend.sidecar:
        yield None
        return
    python = folder.settings.workers.python
    threads = threads_per_worker(folder.settings.workers)
    confined = confinement(folder.settings.security)
    preload = folder.settings.workers.preload
    if preload:
        check_preload()
    if not is_to_be_built(python):
        with launched_early(python, folder.spec(), confined, math_threads=threads, preload=preload) as launched:
            yield launched
        return
    from backline.runtime.environments.prepare import python_if_there  # late: most servers need none of it

    with python_if_there(folder.settings) as built:
        if built is None:  # the server builds it while it answers the probes
            yield None
            return
        with launched_early(built, folder.spec(), confined, math_threads=threads, preload=preload) as launched:
            yield launched


@contextlib.contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Import for good: the garbage collector looks at nothing of it, neither meanwhile nor later."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
