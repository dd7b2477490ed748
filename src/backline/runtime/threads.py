"""How many threads the numeric libraries of a worker may use.

Each of them starts one for every core it sees, in every worker, whatever the control group allows: four workers on
eight cores then have 32 threads that wait for each other. The libraries read these variables when they are loaded, so
they are set in the worker's environment before it starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from backline.runtime import memory

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from backline.config.settings import WorkerSettings

VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


def threads_per_worker(settings: WorkerSettings) -> int:
    """Return what each worker gets: what was asked for, else its share of the cores."""
    return settings.math_threads or max(1, memory.usable_cores() // settings.count)


def bound_threads(environment: MutableMapping[str, str], threads: int) -> None:
    """Bound the threads in a worker's environment; whoever has set such a variable himself is left alone."""
    if "OMP_NUM_THREADS" in environment:  # the others follow it
        return
    for name in VARIABLES:
        environment.setdefault(name, str(threads))
