"""The client that was asked for, or a word on what is missing."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import sys

import pytest

from backline.config.settings import BackendSettings
from backline.errors import ConfigError
from backline.proxy.choose import choose_client, make_client
from backline.proxy.port import BackendAddress

CLIENTS = {"http1": "Http1Client", "aiohttp": "AiohttpClient", "httpx2": "HttpxClient", "httpx": "HttpxClient"}


@pytest.mark.parametrize("name", CLIENTS)
def test_each_name_has_its_client(name: str) -> None:
    settings = BackendSettings(url="http://127.0.0.1:1", client=name)

    async def make() -> str:
        client = make_client(settings, BackendAddress.parse("http://127.0.0.1:1"))
        await client.aclose()
        return type(client).__name__

    assert choose_client(settings) == name
    assert asyncio.run(make()) == CLIENTS[name]


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--backend-client aiohttp: the package aiohttp is not installed"):
        choose_client(BackendSettings(client="aiohttp"))
    with pytest.raises(ConfigError, match="install one of httptools, aiohttp, httpx2, httpx"):
        choose_client(BackendSettings())


@pytest.mark.parametrize("installed", [["httptools", "httpx"], ["aiohttp", "httpx"], ["httpx"]], ids="-".join)
def test_without_a_wish_it_is_the_quickest_that_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: list[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in installed else None)
    assert choose_client(BackendSettings()) == {"httptools": "http1"}.get(installed[0], installed[0])


def test_a_server_without_a_backend_imports_no_client() -> None:
    code = (
        "import sys, backline.api.run\n"
        "print([name for name in ('aiohttp', 'httpx', 'httpx2', 'backline.proxy.http1_client') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
