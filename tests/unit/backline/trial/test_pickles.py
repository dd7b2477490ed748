"""Pickles are read without being unpickled, in every container, and what they name is judged by a list."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from backline.trial.pickle_reader import NotReadable, Pickle, read_pickles
from backline.trial.pickles import Scan, scan_folder

RAN = "BACKLINE_TEST_PICKLE_RAN"


class Evil:
    """Sets a variable when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.putenv, (RAN, "1")


@pytest.fixture(scope="module")
def model() -> Any:
    rows = pd.DataFrame({"a": np.arange(20.0), "b": np.arange(20.0) % 3})
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, ["x", "y"] * 10)


def refused(scan: Scan) -> set[tuple[str, str]]:
    return {(named.file, named.verdict) for named in scan.names if not named.allowed}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_model_of_a_known_library_is_allowed_and_says_its_version(tmp_path: Path, model: Any, protocol: int) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model, protocol))
    scan = scan_folder(tmp_path)
    assert (scan.files, scan.problems, refused(scan)) == (["model.pkl"], [], set())
    assert [(library, version) for _, library, version in scan.versions] == [
        ("scikit-learn", __import__("sklearn").__version__)
    ]


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)], ids=str)
def test_arrays_that_joblib_leaves_in_the_middle_are_passed_over(tmp_path: Path, model: Any, compress: Any) -> None:
    content = [model, np.ones((3, 4)), np.array(["text", None, 1], dtype=object), np.array(["abc", "d"]), Evil()]
    joblib.dump(content, tmp_path / "model.joblib", compress=compress)
    scan = scan_folder(tmp_path)
    assert not scan.problems
    assert refused(scan) == {("model.joblib", "can run anything")}


@pytest.mark.parametrize(
    "write",
    [
        lambda path: (path / "a.pkl").write_bytes(pickle.dumps(Evil())),
        lambda path: (path / "a.bin").write_bytes(pickle.dumps([1]) + pickle.dumps(Evil())),
        lambda path: (path / "weights").write_bytes(pickle.dumps(Evil())),
        lambda path: np.save(path / "a.npy", np.array([Evil()], dtype=object), allow_pickle=True),
        lambda path: np.savez(path / "a.npz", a=np.array([Evil()], dtype=object)),
        lambda path: in_zip(path / "a.pt", "archive/data.pkl", pickle.dumps(Evil())),
        lambda path: joblib.dump({"deep": [np.ones(3), np.array([Evil()], dtype=object)]}, path / "a.joblib"),
    ],
    ids=["pickle", "second", "no-extension", "npy", "npz", "torch", "object-array"],
)
def test_what_can_run_anything_is_found_in_every_container_and_never_run(tmp_path: Path, write: Any) -> None:
    os.environ.pop(RAN, None)
    write(tmp_path)
    scan = scan_folder(tmp_path)
    assert {verdict for _, verdict in refused(scan)} == {"can run anything"}
    assert RAN not in os.environ


def in_zip(path: Path, name: str, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)


def test_a_pickle_that_ends_early_is_told_with_what_it_names_until_there(tmp_path: Path, model: Any) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps([Evil(), model])[:-30])
    scan = scan_folder(tmp_path)
    assert "could not be read to its end" in scan.problems[0][1]
    assert refused(scan)


@pytest.mark.parametrize(
    "name", [("numpy", "load"), ("pandas", "read_pickle"), ("sklearn.x", "exec"), ("numpy.core.multiarray", "eval")]
)
def test_an_allowed_library_is_not_allowed_everything(tmp_path: Path, name: tuple[str, str]) -> None:
    (tmp_path / "a.pkl").write_bytes(f"c{name[0]}\n{name[1]}\n.".encode())
    assert refused(scan_folder(tmp_path))


def test_code_of_the_folder_is_its_own_and_other_names_have_to_be_allowed(tmp_path: Path) -> None:
    (tmp_path / "features.py").write_text("class Scaler: ...\n")
    (tmp_path / "a.pkl").write_bytes(b"(cfeatures\nScaler\ncsktime.forecasting\nNaive\nl.")
    assert refused(scan_folder(tmp_path)) == {("a.pkl", "not on the list")}
    assert not refused(scan_folder(tmp_path, ["sktime"]))


def test_a_lambda_layer_of_keras_is_code(tmp_path: Path) -> None:
    in_zip(tmp_path / "a.keras", "config.json", b'{"config": {"layers": [{"class_name": "Dense"}]}}')
    assert not scan_folder(tmp_path).problems
    in_zip(tmp_path / "a.keras", "config.json", b'{"config": {"layers": [{"class_name": "Lambda"}]}}')
    assert "Lambda" in scan_folder(tmp_path).problems[0][1]


def test_what_is_no_pickle_is_left_alone(tmp_path: Path) -> None:
    for name, content in (("a.onnx", b"\x08\x07"), ("readme.md", b"# a"), ("vocabulary.bin", b"words"), ("x", b"")):
        (tmp_path / name).write_bytes(content)
    scan = scan_folder(tmp_path)
    assert (scan.files, scan.problems) == ([], [])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=30,
)


@given(VALUES, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_any_pickle_is_read_to_its_end(value: Any, protocol: int) -> None:
    stream = io.BytesIO(pickle.dumps(value, protocol) + pickle.dumps(len, protocol))
    found = Pickle()
    assert read_pickles(stream, found) == 2
    assert any(named.name == "len" for named in found.globals)


@given(st.binary(max_size=200), st.integers(0, 3000), st.data())
def test_a_damaged_pickle_raises_nothing_else(noise: bytes, place: int, data: st.DataObject) -> None:
    content = bytearray(pickle.dumps([Evil(), {"a": np.arange(10)}, "text"], data.draw(st.integers(0, 5))))
    content[place % len(content) : place % len(content) + len(noise)] = noise
    with contextlib.suppress(NotReadable):
        read_pickles(io.BytesIO(bytes(content)), Pickle())
