"""The targets, by name. Loaded when asked for: each process needs the libraries of one."""

from __future__ import annotations

import functools
import importlib

from tests.fuzz.cases import Target

TARGETS = {
    # name: module and class, and how often a case of it is run where another one is run once
    "csv": ("tables:Csv", 8),
    "json": ("tables:Json", 12),
    "json-lines": ("tables:JsonLines", 8),
    "matrix-market": ("tables:MatrixMarket", 6),
    "compressed": ("tables:Compressed", 6),
    "texts": ("tables:Texts", 8),
    "together": ("tables:Together", 3),
    "arrow-stream": ("columnar:ArrowStream", 8),
    "arrow-file": ("columnar:ArrowFile", 6),
    "parquet": ("columnar:Parquet", 6),
    "headers": ("headers:Headers", 8),
    "chat": ("headers:Chats", 8),
    "multipart": ("multipart:Multipart", 16),
    "frames": ("channel:Frames", 16),
    "frames-to-server": ("channel:FramesToServer", 12),
    "frames-to-worker": ("channel:FramesToWorker", 8),
    "request-heads": ("http:RequestHeads", 8),
    "backend-answers": ("http:BackendAnswers", 8),
    "events": ("http:Events", 8),
    "imports": ("files:Imports", 4),
    "store": ("files:Stores", 1),
    "journal": ("files:Journals", 3),
}


@functools.lru_cache
def load(name: str) -> Target:
    """Return the target of this name."""
    module, _, kind = ("trial:Trial" if name == "trial" else TARGETS[name][0]).partition(":")
    target: Target = getattr(importlib.import_module(f"{__name__}.{module}"), kind)()
    return target
