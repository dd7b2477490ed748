"""Environments that models of the tests live in: real interpreters with real packages, built once and kept.

``python -m tests.environments [NAME ...]`` builds them ahead of a test run. What is in one stands in ``NAME.txt``
beside this file, every version pinned. They lie under ``.cache/environments`` and are built anew when their
requirements or their interpreter change.
"""

from __future__ import annotations

from tests.environments.build import ENVIRONMENTS, environment

__all__ = ["ENVIRONMENTS", "environment"]
