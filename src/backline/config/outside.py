"""Environment variables that are not ours, and that we follow or keep quiet about."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_SECRET_VARIABLE = re.compile(
    r"(^|_)(API_?KEYS?|ACCESS_KEY|SECRET|SECRET_KEY|PRIVATE_KEY|PASSWORD|PASSWD|TOKEN|CREDENTIALS?)(_|$)|^OTEL_EXPORTER_OTLP_.*HEADERS$",
    re.IGNORECASE,
)


def wants_colour(*, on_terminal: bool) -> bool:
    """Whether output may be coloured: on a terminal, unless NO_COLOR (https://no-color.org) or TERM=dumb says no."""
    return on_terminal and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def secrets_in(environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the values of those environment variables that, by their names, hold secrets."""
    environ = os.environ if environ is None else environ
    found = []
    for name, value in environ.items():
        if not _SECRET_VARIABLE.search(name):
            continue
        found.append(value)
        if name.upper().endswith("HEADERS"):  # name=value,name=value
            found += [pair.partition("=")[2].strip() for pair in value.split(",")]
        elif value.lstrip().startswith("{"):  # a runtime parameter: JSON, whose strings are its secrets
            found += re.findall(r'"([^"\\]{16,})"', value)
    return found
