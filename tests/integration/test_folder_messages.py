"""A folder that cannot be served ends the server at once with a message to act on; the error server answers with it."""

from __future__ import annotations

import dataclasses
import os
import pickle
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

import backline
from tests.environments import environment
from tests.integration.load import request
from tests.serving import SERVER_PYTHON, ServeFixture

pytestmark = pytest.mark.slow

PROMPTLY = 60.0  # seconds: an idle machine needs two, this one may be building or training beside us
SOURCES = Path(backline.__file__).parents[1]
LOAD_MODEL = "def load_model(code_dir):\n    return None\n"

# A model with classes whose pickle needs no library: its module lies in the folder.
SHOP = """
class Model:
    classes_ = ["cat", "dog"]

    def predict(self, data):
        return ["cat"] * len(data)

    def predict_proba(self, data):
        return [[0.5, 0.5]] * len(data)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """``files`` by name; ``make`` for what is more than text. ``words`` have to be in the message, the mend too."""

    words: tuple[str, ...]
    files: dict[str, str | bytes] = dataclasses.field(default_factory=dict)
    make: Callable[[Path], object] = lambda folder: None
    flags: tuple[str, ...] = ()
    exit_code: int = 1
    environment: str = "bare"


def pickle_of(folder: Path, source: str, module: str) -> None:
    """Write ``model.pkl`` with an instance of ``Model`` as the module ``module`` defines it."""
    script = textwrap.dedent(
        f"""
        import pickle, sys, types
        module = types.ModuleType({module!r})
        sys.modules[{module!r}] = module
        exec({source!r}, module.__dict__)
        module.Model.__module__ = {module!r}
        pickle.dump(module.Model(), open("model.pkl", "wb"))
        """
    )
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)


def a_pickle_from_a_notebook(folder: Path) -> None:
    script = "import pickle\nclass Scaler: pass\npickle.dump(Scaler(), open('model.pkl', 'wb'))"
    subprocess.run([sys.executable, "-c", script], cwd=folder, check=True)


def a_shop(folder: Path) -> None:
    (folder / "shop.py").write_text(SHOP)
    pickle_of(folder, SHOP, "shop")


CASES = {
    "a directory with no model": Case(
        files={"README.md": "nothing here"},
        words=("found no model in", "/model", ".pkl", "no custom.py", "README.md", "define load_model or one of score"),
    ),
    "custom.py without a hook": Case(
        files={"custom.py": "def predict(data):\n    return data\n"},
        words=("found no model", "custom.py defines no hook", "score"),
    ),
    "two artifacts": Case(
        files={"a.pkl": b"", "b.onnx": b""},
        words=("found 2 artifacts", "a.pkl, b.onnx", "keep one, or define load_model(code_dir) in custom.py"),
    ),
    "broken YAML": Case(
        files={"custom.py": LOAD_MODEL, "model-metadata.yaml": "name: shop\ntargetType: [binary\n"},
        words=("model-metadata.yaml:3:1", "expected ',' or ']'", "close the list with ]"),
    ),
    "a tab in the YAML": Case(
        files={"custom.py": LOAD_MODEL, "model-metadata.yaml": "inferenceModel:\n\ttargetName: y\n"},
        words=("model-metadata.yaml:2:1", "YAML allows no tabs"),
    ),
    "a value of the wrong type": Case(
        files={"custom.py": LOAD_MODEL, "model-metadata.yaml": "name: shop\ninferenceModel:\n  classLabels: 7\n"},
        words=("model-metadata.yaml:3", "inferenceModel.classLabels", "expected a list of strings", "write a list of"),
    ),
    "an unknown target type": Case(
        files={"custom.py": LOAD_MODEL, "model-metadata.yaml": "name: shop\ntargetType: binry\n"},
        words=("model-metadata.yaml:2", "targetType", "'binry'", "binary"),
    ),
    "an unknown setting": Case(
        files={"custom.py": LOAD_MODEL, "backline.toml": "[workers]\ntimout = 3\n"},
        words=("backline.toml:2", "unknown key workers.timout", "did you mean timeout"),
    ),
    "a hook with a wrong signature": Case(
        files={"custom.py": LOAD_MODEL + "\n\ndef score(data):\n    return data\n"},
        words=(
            "custom.py:5",
            "score(data) cannot be called",
            "too many positional",
            "def score(data, model, **kwargs)",
        ),
    ),
    "a hook that is no function": Case(
        files={"custom.py": "score = 3\n"},
        words=("custom.py", "score is int", "a hook has to be a function"),
    ),
    "a missing package": Case(
        files={"custom.py": "import os\nimport lightgbmx.basic\n"},
        words=("custom.py:2", "'lightgbmx' is not installed", "Python 3", "-m pip install lightgbmx"),
    ),
    "a missing package that requirements.txt has": Case(
        files={"custom.py": "import sklearn\n", "requirements.txt": "scikit-learn\n"},
        words=("custom.py:1", "'sklearn' is not installed", "-m pip install -r", "requirements.txt", "scikit-learn"),
    ),
    "a syntax error": Case(
        files={"custom.py": "import os\n\n\ndef score(data, model:\n    return 1\n"},
        words=("could not import custom.py", "custom.py:4", "def score(data, model:", "as Python 3"),
    ),
    "custom.py that raises": Case(
        files={"custom.py": "import os\n\nraise RuntimeError('no licence')\n"},
        words=("could not import custom.py", "RuntimeError: no licence", "custom.py:3"),
    ),
    "custom.py that exits": Case(
        files={"custom.py": "import sys\n\nsys.exit('no licence')\n"},
        words=("could not import custom.py", "SystemExit: no licence", "custom.py:3"),
    ),
    "load_model that raises": Case(
        files={"custom.py": "def load_model(code_dir):\n    return open(code_dir + '/weights.bin')\n"},
        words=("hook load_model failed", "FileNotFoundError", "weights.bin"),
    ),
    "an artifact of another world": Case(
        files={"model.pmml": "<PMML/>"},
        words=("model.pmml", "PMML", "Backline does not open", "ONNX", "define load_model and score"),
    ),
    "an artifact that is no pickle": Case(
        files={"model.pkl": "hello, world\n"},
        words=("artifact model.pkl", "is no pickle", "hello, world", "write it again"),
    ),
    "a pointer in place of the artifact": Case(
        files={"model.pkl": "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"},
        words=("artifact model.pkl", "Git LFS", "git lfs pull"),
    ),
    "an empty artifact": Case(files={"model.pkl": b""}, words=("artifact model.pkl", "is empty", "write it again")),
    "half an artifact": Case(
        files={"model.pkl": pickle.dumps(list(range(1000)))[:900]},
        words=("artifact model.pkl", "ends in the middle", "900 bytes", "copy or write it again"),
    ),
    "an artifact that cannot predict": Case(
        files={"model.pkl": pickle.dumps({"weights": [1, 2]})},
        words=("model.pkl holds builtins.dict", "neither predict nor transform", "define load_model and score"),
    ),
    "a pickle from a notebook": Case(
        make=a_pickle_from_a_notebook,
        words=("artifact model.pkl", "__main__.Scaler", "Move Scaler into a module in the model folder"),
    ),
    "a pickle that needs a package": Case(
        make=lambda folder: pickle_of(folder, SHOP, "warehouse"),
        words=("artifact model.pkl", "needs 'warehouse'", "-m pip install warehouse", "put the module into the model"),
    ),
    "class labels that do not fit": Case(
        make=a_shop,
        files={
            "model-metadata.yaml": "name: shop\ntargetType: binary\ninferenceModel:\n"
            "  positiveClassLabel: fish\n  negativeClassLabel: dog\n"
        },
        words=("the model knows the classes 'cat', 'dog'", "class labels are 'fish', 'dog'", "correct the labels"),
    ),
    "a target type that does not fit": Case(
        make=a_shop,
        flags=("--target-type", "regression"),
        environment="sklearn",
        words=("Model is a classifier of 'cat', 'dog'", "a regression model answers with numbers", "--target-type"),
    ),
    "a target type that cannot be told": Case(
        files={"custom.py": LOAD_MODEL + "\n\ndef score(data, model):\n    return data\n"},
        words=("what the model predicts cannot be told", "load_model, score", "set targetType in model-metadata.yaml"),
    ),
    "an environment without pandas": Case(
        files={"custom.py": LOAD_MODEL + "\n\ndef score(data, model):\n    return data\n"},
        flags=("--target-type", "regression"),
        words=("regression model is given its rows as a pandas DataFrame", "'pandas' is not installed", "pip install"),
    ),
    "an example that the model does not take": Case(
        files={
            "custom.py": "def score_unstructured(model, data, query):\n    return {}[data]\n",
            "example.txt": "hello",
        },
        flags=("--example", "example.txt"),
        words=("the model loads, and predicting on the example example.txt fails", "KeyError: 'hello'"),
    ),
    "a python that is not there": Case(
        files={"custom.py": LOAD_MODEL},
        flags=("--python", "env/bin/python"),
        exit_code=2,
        words=("env/bin/python does not exist", "flag --python", "name a python, an environment directory"),
    ),
    "a target type that there is none of": Case(
        files={"custom.py": LOAD_MODEL},
        flags=("--target-type", "binry"),
        exit_code=2,
        words=("unknown target type 'binry'", "flag --target-type", "did you mean binary?"),
    ),
}


def make_folder(parent: Path, case: Case) -> Path:
    folder = parent / "model"
    folder.mkdir()
    for name, content in case.files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    case.make(folder)
    return folder


class Run:
    """``backline serve`` on a folder that it cannot serve: runs beside whatever the test does until ``wait``."""

    def __init__(self, folder: Path, *flags: str, cwd: Path, address: str = "127.0.0.1:0") -> None:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("BACKLINE_")}
        command = [SERVER_PYTHON, "-m", "backline", "serve", str(folder), "--address", address, *flags]
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def wait(self) -> tuple[int, str]:
        """Return exit code and output."""
        try:
            output, _ = self._process.communicate(timeout=PROMPTLY)
        finally:
            self._process.kill()
        return self._process.returncode, output


def assert_no_traceback_of_ours(output: str) -> None:
    assert str(SOURCES) not in output
    assert "Backline itself" not in output
    assert "<frozen" not in output


def flags_for(case: Case, folder: Path) -> tuple[str, ...]:
    python = () if "--python" in case.flags else ("--python", str(environment(case.environment)))
    return (*python, *(str(folder / "example.txt") if flag == "example.txt" else flag for flag in case.flags))


@pytest.mark.parametrize("name", CASES)
def test_what_where_and_how_to_mend_is_told_at_the_end_and_by_the_error_server(
    serve: ServeFixture, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    folder = make_folder(tmp_path, case)
    flags = flags_for(case, folder)
    run = Run(folder, *flags, cwd=tmp_path)
    try:
        server = serve(folder, *flags, "--with-error-server", ready=513)
    finally:
        code, output = run.wait()
    assert code == case.exit_code, output
    assert_told_once(output, case.words)
    assert_told_once(server.log(), case.words)
    predict = request("POST", f"{server.url}/predict/", b"a\n1\n", headers={"Content-Type": "text/csv"})
    chat = request("POST", f"{server.url}/v1/chat/completions", b"{}")
    health = request("GET", f"{server.url}/health/")
    for answer in (predict, chat, health):
        assert answer.status == 513
        assert answer.json()["message"].startswith("ERROR: ")
        for word in case.words:
            assert word in answer.json()["message"]
        assert_no_traceback_of_ours(answer.body.decode())
    for alive in ("/", "/livez", "/info/", "/stats/", "/capabilities/", "/openapi.json"):
        assert request("GET", f"{server.url}{alive}").status == 200


def assert_told_once(output: str, words: tuple[str, ...]) -> None:
    before, error, message = output.partition("Error: ")
    assert error, output
    for word in words:
        assert word in message, output
    assert words[0] not in before, "told twice"
    assert_no_traceback_of_ours(output)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("modle", ("there is no directory", "/modle", "did you mean", "/model?")),
        ("file.txt", ("is a file", "name the")),
    ],
)
def test_a_directory_that_is_none(serve: ServeFixture, tmp_path: Path, path: str, words: tuple[str, ...]) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "file.txt").write_text("x")
    code, output = Run(tmp_path / path, cwd=tmp_path).wait()
    assert code == 2
    server = serve(tmp_path / path, "--with-error-server", ready=513)
    answered = request("GET", f"{server.url}/ping/").json()
    assert answered["code"] == "config_error"
    for word in words:
        assert word in output
        assert word in answered["message"]
    assert_no_traceback_of_ours(output)


def test_a_port_in_use_is_named_with_what_to_do(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, CASES["a directory with no model"])
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        # An error server cannot help: there is nowhere to answer.
        code, output = Run(folder, "--with-error-server", cwd=tmp_path, address=address).wait()
    assert code == 1
    for word in (f"--address {address}", "Address already in use", "Choose another port"):
        assert word in output
    assert_no_traceback_of_ours(output)


def test_an_unknown_key_in_the_metadata_is_a_warning_with_the_nearest_name(serve: ServeFixture, tmp_path: Path) -> None:
    hooks = "def score_unstructured(model, data, query):\n    return data\n"
    metadata = "name: shop\ntargetTyp: unstructured\ninferenceModel:\n  targetname: y\n"
    folder = make_folder(tmp_path, Case(words=(), files={"custom.py": hooks, "model-metadata.yaml": metadata}))
    server = serve(folder, "--python", str(environment("bare")))
    assert "model-metadata.yaml:2: targetTyp: unknown key, ignored; did you mean targetType?" in server.log()
    assert "model-metadata.yaml:4: inferenceModel.targetname: unknown key, ignored; did you mean targetName?" in (
        server.log()
    )


def test_a_settings_file_that_is_wrong_does_not_keep_the_error_server_from_its_address(
    serve: ServeFixture, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path, Case(words=(), files={"backline.toml": "[server\n"}))
    server = serve(folder, "--with-error-server", "--url-prefix", "/x", ready=513)
    answer = request("GET", f"{server.url}/health/")
    assert (answer.status, answer.json()["code"]) == (513, "config_error")
    assert "backline.toml:1" in answer.json()["message"]
    assert server.url.endswith("/x")
