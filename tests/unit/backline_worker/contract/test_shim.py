from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest

from backline_worker.contract import shim
from backline_worker.contract.runtime_params import RuntimeParameters


@pytest.fixture(autouse=True)
def installed() -> Any:
    shim.install()
    yield
    for name in [name for name in sys.modules if name.startswith(shim.MODULE_NAME)]:
        del sys.modules[name]


def test_documented_names_can_be_imported() -> None:
    module = importlib.import_module("datarobot_drum")
    assert module.RuntimeParameters is RuntimeParameters
    assert module.CustomHTTPError is shim.CustomHTTPError
    assert importlib.import_module("datarobot_drum.runtime_parameters").RuntimeParameters is RuntimeParameters
    assert importlib.util.find_spec("datarobot_drum") is not None


def test_other_submodules_are_not_found() -> None:
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("datarobot_drum.drum.common")


@pytest.mark.parametrize(
    "error",
    [
        shim.CustomHTTPError(422, "no such thing"),
        shim.CustomHTTPError("no such thing", 422),
        shim.CustomHTTPError("no such thing", status_code=422),
        shim.CustomHTTPError(status=422, detail="no such thing"),
        shim.CustomHTTPError(code=422, message="no such thing"),
    ],
    ids=["status-text", "text-status", "text-named", "status-detail", "code-message"],
)
def test_http_error_can_be_built_in_any_likely_way(error: shim.CustomHTTPError) -> None:
    assert error.status_code == 422
    assert str(error) == error.detail == "no such thing"


def test_http_error_without_a_status_is_500() -> None:
    assert shim.CustomHTTPError("broken", headers={"Retry-After": "3"}).status_code == 500
