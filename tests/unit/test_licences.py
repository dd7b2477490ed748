"""The page of licences is that of what is installed, and nothing is there that nobody has looked at."""

from __future__ import annotations

import tomllib
from email.message import Message
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def licences() -> Any:
    return load_script("licences")


def test_every_licence_is_on_the_list(licences: Any) -> None:
    refused = [row for row in licences.packages() if not licences.is_allowed(row[2])]
    assert not refused, "look at the licence, and add it to scripts/licences.py if it can be lived with"


def test_the_page_has_every_package_of_the_lock_with_its_licence(licences: Any) -> None:
    page = licences.PAGE.read_text()
    lock = (ROOT / "requirements" / "server.txt").read_text().splitlines()
    versions = dict(line.split(" ")[0].split("==") for line in lock if "==" in line and "win32" not in line)
    for name, _, licence, extra in licences.packages():
        assert f"| {name} | " in page, "run scripts/sbom"
        assert f" | {licence} | {extra} |" in page
        if not extra and name in versions:
            assert f"| {name} | {versions[name]} | " in page, "run scripts/sbom"


def test_extras_are_those_of_the_package(licences: Any) -> None:
    from importlib import metadata

    extras = metadata.distribution("backline").metadata.get_all("Provides-Extra") or ()
    assert sorted(extras) == sorted((*licences.EXTRAS, *licences.MODEL_EXTRAS))


def test_extras_for_models_ask_for_what_their_artifacts_are_tested_with(licences: Any) -> None:
    pins = dict(
        line.split("==")
        for name in ("artifacts", "sklearn")
        for line in (ROOT / "tests" / "environments" / f"{name}.txt").read_text().split()
        if "==" in line
    )
    pins["xgboost"] = pins.pop("xgboost-cpu")  # the same without CUDA
    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in licences.MODEL_EXTRAS:
        requirements = {(wanted := Requirement(text)).name: wanted for text in asked[extra]}
        assert len(requirements) == 2
        assert "pandas" in requirements
        for name, wanted in requirements.items():
            assert wanted.specifier.contains(pins[name]), (extra, name)


@pytest.mark.parametrize(
    ("fields", "licence", "allowed"),
    [
        ({"License-Expression": "MIT OR Apache-2.0"}, "MIT OR Apache-2.0", True),
        ({"License-Expression": "GPL-3.0-only OR MIT"}, "GPL-3.0-only OR MIT", True),
        ({"License-Expression": "(MIT AND GPL-3.0-only)"}, "(MIT AND GPL-3.0-only)", False),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, "MIT", True),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"},
         "GNU General Public License v3 (GPLv3)", False),
        ({"License": "BSD"}, "BSD-3-Clause", True),
        ({"License": "all mine"}, "all mine", False),
        ({}, "not said", False),
    ],
)  # fmt: skip
def test_a_licence_is_read_and_judged(licences: Any, fields: dict[str, str], licence: str, allowed: bool) -> None:
    message = Message()
    for name, value in fields.items():
        message[name] = value
    read = licences.licence_of(SimpleNamespace(metadata=message))
    assert read == licence
    assert licences.is_allowed(read) is allowed
