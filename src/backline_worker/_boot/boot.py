"""Starts a worker: ``python boot.py PACKAGE_DIRECTORY CONNECT``, run by the model's own interpreter.

This file lies alone in its folder because Python puts a script's folder on ``sys.path``: next to the package's modules
it would make ``codecs`` or ``channel`` importable from user code. The package itself is loaded by its path, so that
nothing else of the server's site-packages can be imported by the model.
"""

import gc
import importlib.util
import os
import sys

# While a model loads, nearly everything that is made stays: a collector that looks after every 700 objects costs a
# tenth of the start. It is set back when the model is loaded (``main.py``).
GC_THRESHOLDS_WHILE_LOADING = (100_000, 20, 100)


def load_package(directory: str) -> None:
    """Load ``backline_worker`` from its directory without touching ``sys.path``."""
    spec = importlib.util.spec_from_file_location(
        "backline_worker", os.path.join(directory, "__init__.py"), submodule_search_locations=[directory]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["backline_worker"] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    if sys.version_info < (3, 8):  # noqa: UP036  (the model's interpreter may be anything)
        sys.stderr.write("Backline's worker needs Python 3.8 or later; this is {}\n".format(sys.version.split()[0]))
        sys.exit(2)
    gc_thresholds = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS_WHILE_LOADING)
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != here]
    package, connect = sys.argv[1:3]
    sys.argv[:] = [""]  # user code that parses sys.argv must not see ours
    load_package(package)
    from backline_worker.main import run

    sys.exit(run(connect, gc_thresholds=gc_thresholds))
