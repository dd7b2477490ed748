"""The reference pages that are written by hand name everything that there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from backline.api.openapi import build_openapi
from backline_worker.artifacts import registry
from backline_worker.codecs.formats import SUPPORTED_INPUT, SUPPORTED_OUTPUT
from backline_worker.contract import metadata, schema
from backline_worker.contract.target_types import TargetType

DOCS = Path(__file__).parents[2] / "docs"
MODEL_FOLDER = (DOCS / "reference" / "model-folder.md").read_text()
HTTP_API = (DOCS / "reference" / "http-api.md").read_text()


@pytest.mark.parametrize("key", metadata._TOP_KEYS)
def test_a_key_of_the_metadata_is_documented(key: str) -> None:
    sections = {"inferenceModel": metadata._INFERENCE_KEYS, "typeSchema": metadata._TYPE_SCHEMA_KEYS}
    for name in [f"{key}.{part}" for part in sections.get(key, ())] or [key]:
        assert f"`{name}`" in MODEL_FOLDER


def test_rules_extensions_and_target_types_are_documented() -> None:
    rules = {value for values in schema._CONDITIONS.values() for value in values}
    for word in (*schema._CONDITIONS, *schema.DATA_TYPES, *rules, *registry().by_extension(), *TargetType):
        assert f"`{word.value if isinstance(word, TargetType) else word}`" in MODEL_FOLDER


def test_routes_and_formats_are_documented() -> None:
    paths = build_openapi(None, prefix="", version="0")["paths"]
    for path in paths:
        assert f"`{path}`" in HTTP_API or f"`{path.rstrip('/')}`" in HTTP_API
    for content_type in {*SUPPORTED_INPUT, *SUPPORTED_OUTPUT}:
        assert f"`{content_type}`" in HTTP_API


GENERATED = {"reference/cli.md", "reference/errors.md", "reference/settings.md"}


@pytest.mark.parametrize("page", sorted({str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")} - GENERATED))
def test_a_page_has_one_sentence_per_line(page: str) -> None:
    text = re.sub(r"^```.*?^```$", "", (DOCS / page).read_text(), flags=re.MULTILINE | re.DOTALL)
    for line in text.splitlines():
        if line.startswith(("|", "#", "<!--")):
            continue
        assert not re.search(r"[a-z`)][.!?] [A-Z]", line), line
