"""Builds the environments named, or all of them, and prints where their interpreters are."""

from __future__ import annotations

import sys

from tests.environments.build import ENVIRONMENTS, MissingInterpreter, build

for name in sys.argv[1:] or ENVIRONMENTS:
    if name not in ENVIRONMENTS:
        sys.exit(f"no environment {name!r}; there are: {', '.join(ENVIRONMENTS)}")
    try:
        print(f"{name}\t{build(name)}")
    except MissingInterpreter as exc:
        print(f"{name}\tnot built: {exc}", file=sys.stderr)
