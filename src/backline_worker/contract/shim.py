"""The module that user code imports as ``datarobot_drum``.

Our own code, made from the documented use of two names: ``RuntimeParameters`` and ``CustomHTTPError``.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from typing import Any, Dict, Optional

from .runtime_params import RuntimeParameters

MODULE_NAME = "datarobot_drum"
_DEFAULT_STATUS = 500


class CustomHTTPError(Exception):
    """Raised by a hook to answer with an HTTP status of its own choice.

    How it is built is documented nowhere, so every likely way is taken: a status as the first or second argument or as
    ``status_code``, ``status`` or ``code``, and a text as the other or as ``message``, ``detail`` or ``description``.
    """

    def __init__(self, *args: Any, headers: Optional[Dict[str, str]] = None, **named: Any) -> None:
        super().__init__(*args)
        numbers = [value for value in args if isinstance(value, int) and not isinstance(value, bool)]
        texts = [value for value in args if not isinstance(value, int)]
        for name in ("status_code", "status", "code"):
            if name in named:
                numbers.insert(0, int(named[name]))
        for name in ("message", "detail", "description"):
            if name in named:
                texts.insert(0, named[name])
        self.status_code = numbers[0] if numbers else _DEFAULT_STATUS
        self.code = self.status = self.status_code
        self.message = texts[0] if texts else ""
        self.detail = self.description = self.message
        self.headers = dict(headers or {})

    def __str__(self) -> str:
        return str(self.message) or "HTTP status {}".format(self.status_code)


def install() -> None:
    """Put the module into ``sys.modules``, in place of an installed package of that name."""
    for name in [name for name in sys.modules if name == MODULE_NAME or name.startswith(MODULE_NAME + ".")]:
        del sys.modules[name]
    module = _module(MODULE_NAME, "What Backline offers to code that imports {}.".format(MODULE_NAME))
    module.__path__ = []  # a package without files: other submodules are not found
    submodule = _module(MODULE_NAME + ".runtime_parameters", "Runtime parameters under their longer name.")
    module.RuntimeParameters = submodule.RuntimeParameters = RuntimeParameters  # type: ignore[attr-defined]
    module.CustomHTTPError = CustomHTTPError  # type: ignore[attr-defined]
    module.runtime_parameters = submodule  # type: ignore[attr-defined]
    module.__all__ = ["CustomHTTPError", "RuntimeParameters"]  # type: ignore[attr-defined]


def _module(name: str, doc: str) -> types.ModuleType:
    module = types.ModuleType(name, doc)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package="." not in name)
    sys.modules[name] = module
    return module
