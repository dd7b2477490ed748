"""The cache with builds that are ours, in threads: each opens the lock by itself, as processes do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import pytest

from backline.errors import EnvironmentFailed
from backline.runtime.environments.cache import MARKER, BuildCancelled, EnvironmentCache, Watch
from backline.runtime.environments.recipe import Recipe, read_recipe

Build = Callable[[Path, IO[bytes]], dict[str, Any]]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "requirements.txt").write_text("idna\n")
    found = read_recipe(tmp_path)
    assert found is not None
    return found


@pytest.fixture
def cache(tmp_path: Path) -> EnvironmentCache:
    return EnvironmentCache(tmp_path / "cache")


def watch(*, timeout: float = 20.0, cancelled: Callable[[], bool] = lambda: False) -> Watch:
    return Watch(tell=lambda text: None, show=lambda text: None, timeout=timeout, cancelled=cancelled)


def make(folder: Path, lock: IO[bytes]) -> dict[str, Any]:
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").touch()
    return {"python": "bin/python", "version": "3.11.7", "packages": ["idna==3.4"]}


def test_ten_ask_at_once_and_one_builds(cache: EnvironmentCache, recipe: Recipe) -> None:
    builds = []
    together = threading.Barrier(10)

    def build(folder: Path, lock: IO[bytes]) -> dict[str, Any]:
        builds.append(folder)
        time.sleep(0.3)  # the others come in meanwhile
        return make(folder, lock)

    def ask(_: int) -> str:
        together.wait()
        with cache.obtain(recipe, watch(), build) as held:
            return held.python

    with ThreadPoolExecutor(10) as pool:
        pythons = set(pool.map(ask, range(10)))
    assert len(builds) == 1
    assert pythons == {str(cache.folder(recipe.key) / "bin" / "python")}


def test_those_who_waited_for_a_build_that_fails_fail_with_it(cache: EnvironmentCache, recipe: Recipe) -> None:
    builds = []
    together = threading.Barrier(4)

    def build(folder: Path, lock: IO[bytes]) -> dict[str, Any]:
        builds.append(folder)
        time.sleep(0.3)
        raise EnvironmentFailed("no", where="requirements.txt:1", mend="mend it")

    def ask(_: int) -> str:
        together.wait()
        with pytest.raises(EnvironmentFailed) as caught:
            cache.obtain(recipe, watch(), build)
        return caught.value.where

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {"requirements.txt:1"}
    assert len(builds) == 1
    assert not cache.folder(recipe.key).exists()
    with cache.obtain(recipe, watch(), make) as held:  # who comes later tries again
        assert held.packages == ["idna==3.4"]


def test_what_an_interrupted_build_has_left_is_built_anew(cache: EnvironmentCache, recipe: Recipe) -> None:
    (cache.folder(recipe.key) / "bin").mkdir(parents=True)
    (cache.folder(recipe.key) / "bin" / "python").touch()
    (cache.folder(recipe.key) / "half").touch()
    assert cache.find(recipe) is None
    with cache.obtain(recipe, watch(), make):
        assert not (cache.folder(recipe.key) / "half").exists()


def test_an_environment_whose_python_is_gone_is_built_anew(cache: EnvironmentCache, recipe: Recipe) -> None:
    cache.obtain(recipe, watch(), make).close()
    (cache.folder(recipe.key) / "bin" / "python").unlink()
    assert cache.find(recipe) is None
    cache.obtain(recipe, watch(), make).close()
    found = cache.find(recipe)
    assert found is not None
    found.close()


def test_nothing_is_left_of_a_build_that_raises(cache: EnvironmentCache, recipe: Recipe) -> None:
    def build(folder: Path, lock: IO[bytes]) -> dict[str, Any]:
        make(folder, lock)
        raise BuildCancelled

    with pytest.raises(BuildCancelled):
        cache.obtain(recipe, watch(), build)
    assert [path.name for path in cache.root.iterdir()] == [f"{recipe.key}.lock"]


def test_waiting_for_another_ends_with_the_deadline_and_when_nobody_wants_it(
    cache: EnvironmentCache, recipe: Recipe
) -> None:
    building, done = threading.Event(), threading.Event()

    def build(folder: Path, lock: IO[bytes]) -> dict[str, Any]:
        cache.note_progress(recipe, "installing 3 of 7 packages")
        building.set()
        assert done.wait(20)
        return make(folder, lock)

    shown: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(cache.obtain, recipe, watch(), build)
        assert building.wait(20)
        try:
            impatient = Watch(tell=lambda text: None, show=shown.append, timeout=0.05)
            with pytest.raises(EnvironmentFailed, match="longer than"):
                cache.obtain(recipe, impatient, make)
            with pytest.raises(BuildCancelled):
                cache.obtain(recipe, watch(cancelled=lambda: True), make)
        finally:
            done.set()
        first.result(20).close()
    assert shown[-1] == "installing 3 of 7 packages"


def test_what_is_used_is_not_removed(cache: EnvironmentCache, recipe: Recipe) -> None:
    held = cache.obtain(recipe, watch(), make)
    assert [(entry.complete, entry.in_use) for entry in cache.entries()] == [(True, True)]
    assert not cache.remove(recipe.key)
    held.close()
    assert [(entry.complete, entry.in_use) for entry in cache.entries()] == [(True, False)]
    assert cache.remove(recipe.key)
    assert not list(cache.entries())
    assert cache.find(recipe) is None


def test_a_broken_marker_counts_as_none(cache: EnvironmentCache, recipe: Recipe) -> None:
    cache.obtain(recipe, watch(), make).close()
    (cache.folder(recipe.key) / MARKER).write_text("{")
    assert cache.find(recipe) is None
    assert [entry.complete for entry in cache.entries()] == [False]


def test_a_cache_that_is_a_file_is_told(tmp_path: Path, recipe: Recipe) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailed, match="--env-cache"):
        EnvironmentCache(tmp_path / "file").obtain(recipe, watch(), make)
