"""One server, models of several pythons: each keeps its own packages, and sees nothing of the server's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import backline
from tests.integration.load import post, request
from tests.serving import ServeFixture

pytestmark = pytest.mark.slow

ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"

# Run by the model's own python, 3.8 among them: the artifact, rows in each format and what the library predicts.
TRAIN = """
import json, pickle, sys
import numpy as np
import pandas as pd
import pyarrow as pa
import sklearn
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

folder = sys.argv[1]
random = np.random.RandomState(3)
x = pd.DataFrame(random.normal(size=(500, 3)), columns=["a", "b", "c"])
x["n"] = random.randint(0, 9, 500)
y = np.array(["no", "yes"])[(x["a"] + x["n"] / 9 > 0.5).astype(int)]
model = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=9, max_depth=4, random_state=1)).fit(x, y)
with open(folder + "/model.pkl", "wb") as file:
    pickle.dump(model, file)
x.to_csv(folder + "/rows.csv", index=False)
x.to_json(folder + "/rows.json", orient="records", double_precision=15)
x.to_parquet(folder + "/rows.parquet", index=False)
table = pa.Table.from_pandas(x, preserve_index=False)
with pa.ipc.new_stream(folder + "/rows.arrows", table.schema) as writer:
    writer.write_table(table)
frames = {
    "csv": pd.read_csv(folder + "/rows.csv"),
    "json": pd.DataFrame(json.load(open(folder + "/rows.json"))),
    "parquet": pd.read_parquet(folder + "/rows.parquet"),
    "arrows": pa.ipc.open_stream(folder + "/rows.arrows").read_pandas(),
}
answers = {}
for name, frame in frames.items():
    answers[name] = [{"yes": b, "no": a} for a, b in model.predict_proba(frame).tolist()]
versions = {"numpy": np.__version__, "pandas": pd.__version__, "sklearn": sklearn.__version__}
with open(folder + "/own.json", "w") as file:
    json.dump({"answers": answers, "versions": versions, "python": sys.version.split()[0]}, file)
"""

WITH_PYDANTIC_1 = """
import pickle

import pydantic
from pydantic import BaseModel, validator

assert pydantic.VERSION.startswith("1."), pydantic.VERSION


class Row(BaseModel):
    a: float
    n: int

    @validator("n")
    def small(cls, value):
        if value > 1000:
            raise ValueError("n is too large")
        return value

    class Config:
        extra = "ignore"


def load_model(code_dir):
    with open(code_dir + "/model.pkl", "rb") as file:
        return pickle.load(file)


def transform(data, model):
    for record in data.to_dict("records"):
        Row.parse_obj(record)
    return data
"""

# What can a model see of the server? Its names, its packages and its variables, each asked from within a hook.
SPY = """
import importlib
import json
import os
import sys


def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    def importable(name):
        try:
            return getattr(importlib.import_module(name), "__file__", None) or "namespace"
        except ImportError:
            return None

    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return json.dumps(
        {
            "modules": files,
            "path": sys.path,
            "argv": sys.argv,
            "importable": {name: importable(name) for name in json.loads(data)},
            "executable": sys.executable,
            "version": sys.version.split()[0],
            "variables": dict(os.environ),
        }
    )
"""
REVERSE = """
def load_model(code_dir):
    return None


def score_unstructured(model, data, query, **kwargs):
    return data[::-1]
"""
SERVER_PACKAGES = [
    "backline",
    "fastapi",
    "uvicorn",
    "uvloop",
    "starlette",
    "click",
    "rich",
    "httptools",
    "python_multipart",
    "planted",
    "channel",  # a module of the worker, which must not be there by its bare name
    "boot",
]


def write_model(folder: Path, target_type: str, code: str | None = None) -> Path:
    folder.mkdir()
    labels = {"positiveClassLabel": "yes", "negativeClassLabel": "no"} if target_type == "binary" else {}
    metadata = {"name": "m", "type": "inference", "targetType": target_type, "inferenceModel": labels}
    (folder / "model-metadata.yaml").write_text(json.dumps(metadata))
    if code is not None:
        (folder / "custom.py").write_text(code)
    return folder


@pytest.mark.parametrize(
    ("name", "version", "numpy", "code"),
    [("py38-pydantic1", "3.8.", "1.", WITH_PYDANTIC_1), ("py313-numpy2", "3.13.", "2.", None)],
    ids=["python 3.8 with pydantic 1", "python 3.13 with numpy 2"],
)
def test_a_model_keeps_the_packages_it_was_trained_with(
    environment: Callable[[str], Path],
    serve: ServeFixture,
    tmp_path: Path,
    name: str,
    version: str,
    numpy: str,
    code: str | None,
) -> None:
    python = environment(name)
    folder = write_model(tmp_path / "model", "binary", code)
    subprocess.run([str(python), "-c", TRAIN, str(folder)], check=True, timeout=120)
    own = json.loads((folder / "own.json").read_text())
    server = serve(folder, "--python", str(python))

    for suffix, content_type in (
        ("csv", "text/csv"),
        ("json", "application/json"),
        ("parquet", PARQUET),
        ("arrows", ARROW),
    ):
        body = (folder / f"rows.{suffix}").read_bytes()
        answer = post(f"{server.url}/predict/", body, headers={"Content-Type": content_type})
        assert answer.status == 200, answer.body[:2000]
        assert answer.json() == {"predictions": own["answers"][suffix]}, suffix

    info = request("GET", f"{server.url}/info/").json()["model"]
    assert info["python"] == own["python"]
    assert info["python"].startswith(version)
    assert info["library"] == "scikit-learn"
    assert info["library_version"] == own["versions"]["sklearn"]
    assert info["packages"]["numpy"] == own["versions"]["numpy"]
    assert info["packages"]["numpy"].startswith(numpy)


@pytest.mark.parametrize("name", ["py38-pydantic1", "py313-numpy2", "bare"])
def test_nothing_of_the_server_can_be_seen_by_a_model(
    environment: Callable[[str], Path], serve: ServeFixture, tmp_path: Path, name: str
) -> None:
    python = environment(name)
    planted = tmp_path / "planted-path"
    planted.mkdir()
    (planted / "planted.py").write_text("raise SystemExit('a module of the server\\'s PYTHONPATH was imported')\n")
    folder = write_model(tmp_path / "model", "unstructured", SPY)
    # The server may be started with a PYTHONPATH of its own, which a model must not inherit.
    paths = [str(planted), *filter(None, [os.environ.get("PYTHONPATH")])]
    server = serve(folder, "--python", str(python), env={"PYTHONPATH": os.pathsep.join(paths), "MODEL_SETTING": "kept"})
    answer = post(
        f"{server.url}/predictUnstructured/",
        json.dumps([*SERVER_PACKAGES, "pydantic"]).encode(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status == 200, answer.body
    seen: dict[str, Any] = answer.json()

    assert Path(seen["executable"]) == python
    assert seen["argv"] == [""]
    assert seen["variables"]["MODEL_SETTING"] == "kept"
    assert not {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"} & set(seen["variables"])
    assert {package: seen["importable"][package] for package in SERVER_PACKAGES} == dict.fromkeys(SERVER_PACKAGES)
    loaded = {module.partition(".")[0] for module in seen["modules"]}
    assert not loaded & set(SERVER_PACKAGES)
    # pydantic is the one package that both may have: it is the model's, or there is none.
    pydantic = seen["importable"]["pydantic"]
    if name == "py38-pydantic1":
        assert Path(pydantic).is_relative_to(python.parents[1])
    else:
        assert pydantic is None
    site_packages = Path(sysconfig.get_path("purelib"))
    source = Path(backline.__file__).parents[1]
    for entry in seen["path"]:
        assert not Path(entry).is_relative_to(site_packages), entry
        assert not Path(entry).is_relative_to(source), entry
    for module, file in seen["modules"].items():
        if file and module.partition(".")[0] != "backline_worker" and module != "__main__":
            assert not Path(file).is_relative_to(site_packages), module
            assert not Path(file).is_relative_to(source), module

    info = request("GET", f"{server.url}/info/").json()["model"]
    assert info["python"] == seen["version"]


def test_without_pandas_unstructured_models_are_served_and_others_say_what_is_missing(
    environment: Callable[[str], Path], serve: ServeFixture, tmp_path: Path
) -> None:
    python = environment("bare")
    server = serve(write_model(tmp_path / "unstructured", "unstructured", REVERSE), "--python", str(python))
    answer = post(f"{server.url}/predictUnstructured/", b"abc", headers={"Content-Type": "text/plain"})
    assert (answer.status, answer.body) == (200, b"cba")
    code = "def load_model(code_dir):\n    return None\n\n\ndef score(data, model, **kwargs):\n    return data\n"
    folder = write_model(tmp_path / "regression", "regression", code)
    server = serve(folder, "--python", str(python), "--with-error-server", ready=513)
    message = post(f"{server.url}/predict/", b"a\n1\n", headers={"Content-Type": "text/csv"}).json()["message"]
    assert "'pandas' is not installed" in message
    assert f"{python} -m pip install pandas" in message


WITHOUT_UNIX_SOCKETS = """
import types

import backline.runtime.launch as launch

launch.socket = types.SimpleNamespace(
    **{name: getattr(launch.socket, name) for name in ("create_server", "socket")}
)
"""


def test_where_there_are_no_unix_sockets_the_channel_is_loopback_tcp(
    environment: Callable[[str], Path], serve: ServeFixture, tmp_path: Path
) -> None:
    """Python's own start-up hook takes the sockets away from the server, as on a system without them."""
    python = environment("bare")
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(WITHOUT_UNIX_SOCKETS)
    folder = write_model(tmp_path / "model", "unstructured", REVERSE)
    paths = [str(site), *filter(None, [os.environ.get("PYTHONPATH")])]
    server = serve(folder, "--python", str(python), "--workers", "2", env={"PYTHONPATH": os.pathsep.join(paths)})
    workers = request("GET", f"{server.url}/stats/").json()["workers"]
    if sys.platform == "linux":
        for worker in workers:
            command = Path(f"/proc/{worker['pid']}/cmdline").read_bytes().split(b"\0")
            assert any(part.startswith(b"tcp:127.0.0.1:") for part in command), command
    for body in (b"abc", b"0123456789" * 500_000):
        answer = post(f"{server.url}/predictUnstructured/", body, headers={"Content-Type": "application/octet-stream"})
        assert (answer.status, answer.body) == (200, body[::-1])
