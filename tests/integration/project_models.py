"""Servers of models that come with the project, for tests of what every server does."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.environments import environment
from tests.serving import ServeFixture, Server

EXAMPLES = Path(__file__).parents[2] / "examples"


def trained_binary(folder: Path) -> Path:
    """Make a folder of the example that predicts one of two classes, and train it; return its python."""
    python = environment("sklearn")
    shutil.copytree(EXAMPLES / "binary-breast-cancer", folder)
    subprocess.run([python, "train.py"], cwd=folder, check=True, capture_output=True, timeout=180)
    return python


def serve_binary(start: ServeFixture, folder: Path) -> Server:
    """Serve that example."""
    python = trained_binary(folder)
    return start(folder, "--python", str(python))


def serve_template(template: str, **env: str) -> Callable[[ServeFixture, Path], Server]:
    """Return what serves a template of ``backline new``, with the variables ``env``."""

    def serve(start: ServeFixture, folder: Path) -> Server:
        command = [sys.executable, "-m", "backline", "new", str(folder), "--template", template]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
        return start(folder, "--python", str(environment("bare")), env=env)

    return serve
