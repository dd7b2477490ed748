"""Who blocks the event loop is named by line; who waits, or only stands above what blocks, is not."""

from __future__ import annotations

import asyncio
import importlib.util
import time
from pathlib import Path
from typing import Any

import pytest

from backline.observe.loop_watch import LoopWatch

CODE = """
import asyncio, time

async def block():
    time.sleep(0.4)

async def wait():
    await asyncio.sleep(0.4)

async def let_through(what):
    await what()
"""


@pytest.fixture
def code(tmp_path: Path) -> Any:
    (tmp_path / "custom_fastapi.py").write_text(CODE)
    spec = importlib.util.spec_from_file_location("watched", tmp_path / "custom_fastapi.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seen_while(folder: Path, what: Any) -> LoopWatch:
    async def run() -> LoopWatch:
        watch = LoopWatch(folder, least=0.2)
        watch.start()
        await asyncio.sleep(0.1)
        await what()
        await asyncio.sleep(0.1)
        watch.stop()
        return watch

    return asyncio.run(run())


def test_a_line_that_blocks_is_named_and_how_long_it_took(
    tmp_path: Path, code: Any, caplog: pytest.LogCaptureFixture
) -> None:
    watch = seen_while(tmp_path, code.block)
    assert (watch.times, watch.last_place) == (1, "custom_fastapi.py line 5, in block")
    assert 0.3 <= watch.longest < 5
    assert "line 5, in block" in caplog.text and "time.sleep(0.4)" in caplog.text


def test_a_line_that_waits_is_not_named(tmp_path: Path, code: Any) -> None:
    assert seen_while(tmp_path, code.wait).times == 0


def test_a_middleware_is_not_named_for_what_the_server_does_behind_it(tmp_path: Path, code: Any) -> None:
    compiled: dict[str, Any] = {"time": time}
    exec(compile("async def ours():\n    time.sleep(0.4)", "/lib/backline/api/x.py", "exec"), compiled)
    assert seen_while(tmp_path, lambda: code.let_through(compiled["ours"])).times == 0


def test_the_same_line_is_told_once_in_a_while(tmp_path: Path, code: Any, caplog: pytest.LogCaptureFixture) -> None:
    async def twice() -> None:
        await code.block()
        await asyncio.sleep(0.1)
        await code.block()

    assert seen_while(tmp_path, twice).times == 2
    assert caplog.text.count("the event loop was blocked") == 1
