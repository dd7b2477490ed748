"""Each example trains, serves, and answers what its library answers for the same rows."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.environments import environment
from tests.integration.load import post, request
from tests.serving import ServeFixture, Server

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())


@pytest.fixture(scope="module")
def python() -> Path:
    return environment("sklearn")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory, python: Path) -> Path:
    """A copy of the examples, trained."""
    folder = tmp_path_factory.mktemp("trained") / "examples"
    shutil.copytree(EXAMPLES, folder, ignore=shutil.ignore_patterns("*.pkl", "markov.json", "__pycache__"))
    for script in folder.glob("*/train.py"):
        subprocess.run([python, script.name], cwd=script.parent, check=True, capture_output=True, timeout=120)
    return folder


def serve_example(serve: ServeFixture, examples: Path, python: Path, name: str, *flags: str) -> Server:
    return serve(examples / name, "--python", str(python), *flags)


def predict(server: Server, folder: Path, route: str = "predict", accept: str = "application/json") -> Any:
    body = (folder / "example.csv").read_bytes()
    answer = post(f"{server.url}/{route}/", body, headers={"Content-Type": "text/csv", "Accept": accept})
    assert answer.status == 200, answer.body
    return answer.json() if accept == "application/json" else answer.body.decode()


def ask_library(python: Path, folder: Path, expression: str, artifact: str = "model.pkl") -> Any:
    """Evaluate ``expression`` over ``model`` and ``rows`` in the model's own environment."""
    code = (
        "import json, pickle, sys, pandas as pd\n"
        f"model = pickle.load(open({artifact!r}, 'rb'))\n"
        "rows = pd.read_csv('example.csv')\n"
        f"json.dump(({expression}).tolist(), sys.stdout)\n"
    )
    done = subprocess.run([python, "-c", code], cwd=folder, check=True, capture_output=True, text=True, timeout=120)
    return json.loads(done.stdout)


def by_label(labels: list[str], rows: list[list[float]]) -> list[dict[str, float]]:
    return [dict(zip(labels, row, strict=True)) for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_example_rows_in_the_repository_are_those_that_train_py_writes(examples: Path, name: str) -> None:
    for file in (EXAMPLES / name).glob("example.*"):
        assert (examples / name / file.name).read_bytes() == file.read_bytes()


def test_regression(serve: ServeFixture, examples: Path, python: Path) -> None:
    folder = examples / "regression-diabetes"
    server = serve_example(serve, examples, python, folder.name)
    assert predict(server, folder) == {"predictions": ask_library(python, folder, "model.predict(rows)")}


def test_binary_labels_the_positive_class_first(serve: ServeFixture, examples: Path, python: Path) -> None:
    folder = examples / "binary-breast-cancer"
    server = serve_example(serve, examples, python, folder.name)
    answer = predict(server, folder)
    library = ask_library(python, folder, "model.predict_proba(rows)[:, ::-1]")
    assert answer == {"predictions": by_label(["malignant", "benign"], library)}
    assert list(answer["predictions"][0]) == ["malignant", "benign"]


def test_multiclass_as_json_and_csv(serve: ServeFixture, examples: Path, python: Path) -> None:
    folder = examples / "multiclass-iris"
    server = serve_example(serve, examples, python, folder.name)
    library = ask_library(python, folder, "model.predict_proba(rows)")
    labels = ["setosa", "versicolor", "virginica"]
    assert predict(server, folder) == {"predictions": by_label(labels, library)}
    header, *rows = csv.reader(predict(server, folder, accept="text/csv").splitlines())
    assert header == labels
    assert [[float(cell) for cell in row] for row in rows] == library


def test_anomaly_the_freak_stands_out(serve: ServeFixture, examples: Path, python: Path) -> None:
    folder = examples / "anomaly-wine"
    predictions = predict(serve_example(serve, examples, python, folder.name), folder)["predictions"]
    assert predictions == ask_library(python, folder, "-model.score_samples(rows)")
    *ordinary, freak = predictions
    assert max(ordinary) < 0.5 < freak


def test_hooks_add_a_feature_and_extra_output(serve: ServeFixture, examples: Path, python: Path) -> None:
    folder = examples / "hooks-wine"
    answer = predict(serve_example(serve, examples, python, folder.name), folder)
    features = "__import__('custom').add_features(rows)"
    library = ask_library(python, folder, f"model.predict_proba({features})", "wine.pkl")
    expected = by_label(["barbera", "barolo", "grignolino"], library)
    assert answer["predictions"] == expected
    assert answer["extraModelOutput"]["columns"] == ["doubtful"]
    assert answer["extraModelOutput"]["data"] == [[max(row.values()) < 0.8] for row in expected]


def test_transform(serve: ServeFixture, examples: Path, python: Path) -> None:
    folder = examples / "transform-scaler"
    server = serve_example(serve, examples, python, folder.name)
    header, *rows = csv.reader(predict(server, folder, "transform", "text/csv").splitlines())
    assert header[:2] == ["magnesium", "proline"]
    assert [[float(cell) for cell in row] for row in rows] == ask_library(
        python, folder, "model.transform(rows).to_numpy()"
    )


def test_runtime_parameters_from_the_file_and_by_default(serve: ServeFixture, examples: Path, python: Path) -> None:
    folder = examples / "runtime-parameters"
    library = ask_library(python, folder, "model.predict(rows)", "ridge.pkl")
    answer = predict(serve_example(serve, examples, python, folder.name), folder)
    assert answer["predictions"] == [min(value, 200) for value in library]
    assert answer["extraModelOutput"]["data"] == [["unnamed"]] * 3
    values = str(folder / "values.yaml")
    answer = predict(serve_example(serve, examples, python, folder.name, "--runtime-params-file", values), folder)
    assert answer["predictions"] == [round(min(value, 150)) for value in library]
    assert answer["extraModelOutput"]["data"] == [["harbour"]] * 3


def test_unstructured_needs_no_package(serve: ServeFixture, examples: Path) -> None:
    folder = examples / "unstructured-text"
    server = serve_example(serve, examples, environment("bare"), folder.name)
    body = (folder / "example.txt").read_bytes()
    answer = post(f"{server.url}/predictUnstructured/?top=2", body, headers={"Content-Type": "text/plain"})
    assert answer.status == 200, answer.body
    assert answer.headers["content-type"].startswith("application/json")
    figures = answer.json()
    assert (figures["sentences"], figures["words"]) == (4, len(re.findall(rb"\w+", body)))
    assert figures["frequent"] == [["ferry", 3], ["late", 3]]


def test_text_generation_chat_and_models(serve: ServeFixture, examples: Path, python: Path) -> None:
    folder = examples / "textgeneration-markov"
    server = serve_example(serve, examples, python, folder.name)
    texts = predict(server, folder)["predictions"]
    assert len(texts) == 2
    assert all(len(text.split()) > 5 for text in texts)
    question = {"model": "any", "messages": [{"role": "user", "content": "In the morning"}]}
    chat = post(
        f"{server.url}/v1/chat/completions", json.dumps(question).encode(), headers={"Content-Type": "application/json"}
    )
    assert chat.status == 200, chat.body
    assert chat.json()["choices"][0]["message"] == {"role": "assistant", "content": texts[0]}
    models = request("GET", f"{server.url}/v1/models").json()
    assert [model["id"] for model in models["data"]] == ["markov-harbour"]
