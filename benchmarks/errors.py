"""What the benchmarks cannot do, said to the one who runs them."""

from __future__ import annotations


class BenchmarkError(Exception):
    """The run cannot go on; the message says what is missing and how to get it."""


class ServerFailed(Exception):
    """A contender did not start or answered wrongly: noted in the results, and the run goes on with the next."""
