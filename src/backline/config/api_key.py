"""The key for the backend: a setting names the variable that holds it, so that it stands in no file and no help."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from backline.errors import ConfigError

if TYPE_CHECKING:
    from backline.config.settings import BackendSettings


def read_api_key(settings: BackendSettings) -> str | None:
    """Return the key, where one is asked for. Raises ``ConfigError`` where the variable is not set or no key."""
    name = settings.api_key_variable
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        problem = "holds what no key can have" if key else "is not set"
        raise ConfigError(f"--backend-api-key-variable: the environment variable {name} {problem}; set it to the key")
    return key
