from __future__ import annotations

import json
import os
import pickle
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from backline_worker.contract.runtime_params import RuntimeParameters
from backline_worker.errors import (
    EmptyBody,
    HookFailed,
    MissingPart,
    ModelLoadError,
    OperationUnavailable,
    ReportedError,
    ResultInvalid,
    SchemaMismatch,
    UserHTTPError,
)
from backline_worker.model import Model
from backline_worker.types import Answer, ModelSpec, Part, Request

FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [0.5, 0.25, 0.0]})
CSV = FRAME.to_csv(index=False).encode()
BINARY = {"target_type": "binary", "positive_class_label": "yes", "negative_class_label": "no"}

loaded: list[Model] = []


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loading changes the process, as it should in a worker; here it is put back."""
    path, modules, environ = list(sys.path), set(sys.modules), dict(os.environ)
    yield
    while loaded:
        loaded.pop().close()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name in ("custom", "helper") or name.startswith("datarobot_drum"):
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(environ)
    RuntimeParameters.replace({})


def load(folder: Path, source: str | None = None, artifact: Any = None, **spec: Any) -> Model:
    if source is not None:
        (folder / "custom.py").write_text(textwrap.dedent(source))
    if artifact is not None:
        (folder / "model.pkl").write_bytes(pickle.dumps(artifact))
    loaded.append(Model.load(ModelSpec(code_dir=str(folder), **{"threads": 16, "chats": 1024, **spec})))
    return loaded[-1]


def ask(model: Model, operation: str, body: bytes = b"", content_type: str = "", **named: Any) -> Answer:
    request = Request(operation=operation, parts=[Part("X", content_type, body)], **named)
    answers = {
        "predict": model.predict,
        "unstructured": model.unstructured,
        "transform": model.transform,
        "chat": model.chat,
        "models": model.supported_models,
    }
    return answers[operation](request, lambda stage: None)


def values(answer: Answer) -> Any:
    return json.loads(bytes(answer.body))


# Loading


def test_hooks_run_in_order_with_what_each_is_promised(tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("FACTOR = 10")
    model = load(
        tmp_path,
        """
        import io
        import pandas as pd
        import helper
        CALLS = []
        def init(code_dir): CALLS.append(("init", code_dir))
        def load_model(code_dir):
            CALLS.append("load_model")
            return helper.FACTOR
        def read_input_data(input_binary_data):
            CALLS.append(type(input_binary_data).__name__)
            return pd.read_csv(io.BytesIO(input_binary_data))
        def transform(data, model): return data.assign(c=data.a * model)
        def score(data, model, **kwargs):
            CALLS.append(sorted(kwargs))
            return pd.DataFrame({"Predictions": data.c})
        def post_process(predictions, model): return predictions + 1
        """,
        target_type="regression",
    )
    assert values(ask(model, "predict", CSV, "text/csv")) == {"predictions": [11.0, 21.0, 31.0]}
    assert [("init", str(tmp_path)), "load_model", "bytes", []] == sys.modules["custom"].CALLS
    assert model.description["hooks"] == ["init", "load_model", "read_input_data", "transform", "score", "post_process"]
    assert not model.description["rows_independent"]
    assert sys.path[0] == str(tmp_path)


def test_labels_are_given_to_score_by_target_type(tmp_path: Path) -> None:
    source = """
        import pandas as pd
        def score(data, model, **kwargs):
            labels = kwargs.get("class_labels") or [kwargs["positive_class_label"], kwargs["negative_class_label"]]
            return pd.DataFrame({name: [1.0 / len(labels)] * len(data) for name in reversed(labels)})
        """
    assert list(load(tmp_path, source, **BINARY).predict_table(FRAME).columns) == ["yes", "no"]
    model = load(tmp_path, source, target_type="multiclass", class_labels=["b", "c", "a"])
    assert list(model.predict_table(FRAME).columns) == ["b", "c", "a"]


def test_settings_win_over_the_metadata(tmp_path: Path) -> None:
    metadata = {
        "name": "m",
        "targetType": "binary",
        "inferenceModel": {"targetName": "t", "positiveClassLabel": "1", "negativeClassLabel": "0"},
    }
    fitted = LogisticRegression().fit(FRAME, [0, 1, 1])
    model = load(tmp_path, artifact=fitted, metadata=metadata)
    assert model.description["class_labels"] == ["1", "0"]
    assert model.description["target_name"] == "t"
    model = load(tmp_path, metadata=metadata, positive_class_label="0", negative_class_label="1")
    assert model.description["class_labels"] == ["0", "1"]


def test_load_model_may_return_any_librarys_object(tmp_path: Path) -> None:
    fitted = LinearRegression().fit(FRAME, [1, 2, 3])
    for name in ("one.pkl", "two.pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(fitted))
    with pytest.raises(
        ModelLoadError, match=r"found 2 artifacts in .*: one\.pkl, two\.pkl; keep one, or define load_m"
    ):
        load(tmp_path)
    source = """
        import pathlib, pickle
        def load_model(code_dir): return pickle.loads(pathlib.Path(code_dir, "two.pkl").read_bytes())
        """
    model = load(tmp_path, source)
    np.testing.assert_array_equal(model.predict_table(FRAME).columns["Predictions"], fitted.predict(FRAME))
    assert model.description["artifact"] is None
    assert model.description["library"] == "scikit-learn"


def test_score_hook_gets_the_artifact(tmp_path: Path) -> None:
    source = (
        "import pandas as pd\ndef score(data, model): return pd.DataFrame({'Predictions': model.predict(data) * 2})"
    )
    fitted = LinearRegression().fit(FRAME, [1, 2, 3])
    model = load(tmp_path, source, fitted)
    np.testing.assert_array_equal(model.predict_table(FRAME).columns["Predictions"], fitted.predict(FRAME) * 2)


def test_post_process_gets_the_artifacts_frame(tmp_path: Path) -> None:
    source = "def post_process(predictions, model): return predictions.assign(note='x')"
    model = load(tmp_path, source, LogisticRegression().fit(FRAME, ["no", "yes", "yes"]))
    predictions = model.predict_table(FRAME)
    assert list(predictions.columns) == ["yes", "no"]
    assert predictions.extra is not None
    assert list(predictions.extra["note"]) == ["x"] * 3


@pytest.mark.parametrize(
    ("files", "source", "spec", "message"),
    [
        ([], None, {}, r"no artifact \(.*\.pkl.*\), and there is no custom\.py\. The folder holds: nothing"),
        (
            ["notes.txt"],
            "def init(code_dir): pass",
            {},
            r"custom\.py defines init\. The folder holds: custom\.py, notes\.txt",
        ),
        (["model.pmml"], None, {}, r"model\.pmml looks like a PMML artifact, which Backline does not open"),
        (["model.rds", "model.jar"], None, {}, r"model\.jar looks like .*model\.rds looks like a R"),
        ([], "def score(data, model): pass", {}, "cannot be told from the hooks score; set targetType"),
        ([], "def score(data, model): pass", {"target_type": "binary"}, "needs both class labels"),
        ([], "def score(data, model): pass", {"target_type": "multiclass"}, "needs its class labels"),
        ([], "def score(data, model): pass", {"target_type": "unstructured"}, "answers by the hook score_unstructured"),
        ([], "def load_model(d): return 1", {"target_type": "regression"}, "define score in custom.py"),
        ([], "def load_model(d): return 1", {"target_type": "textgeneration"}, "define chat or score in custom.py"),
        ([], "def score(data, model): pass", {"target_type": "transform"}, "needs the hook transform"),
        ([], "def score(data, model): pass", {"target_type": "regresion"}, "unknown target type"),
        ([], "def score(data, model): pass", {"metadata": {"targetType": 3}}, "model-metadata.yaml: targetType"),
        (
            [],
            "import datarobot_drum.drum",
            {},
            "of datarobot_drum Backline offers RuntimeParameters and CustomHTTPError",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_folder_that_cannot_be_loaded_says_why(
    tmp_path: Path, files: list[str], source: str | None, spec: dict[str, Any], message: str
) -> None:
    for name in files:
        (tmp_path / name).touch()
    with pytest.raises(ModelLoadError, match=message):
        load(tmp_path, source, **spec)


def test_folder_that_does_not_exist() -> None:
    with pytest.raises(ModelLoadError, match="there is no model folder /nothing/here"):
        load(Path("/nothing/here"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def score_unstructured(model, data, query): pass", "unstructured"),
        ("def chat(params, model): pass", "textgeneration"),
    ],
    ids=["unstructured", "chat"],
)
def test_target_type_is_told_from_the_hooks(tmp_path: Path, source: str, expected: str) -> None:
    assert load(tmp_path, source).description["target_type"] == expected


def test_runtime_parameters_are_there_before_user_code(tmp_path: Path) -> None:
    source = """
        import os
        from datarobot_drum import RuntimeParameters
        AT_IMPORT = (RuntimeParameters.get("DEPTH"), os.environ["DEPTH"])
        def score_unstructured(model, data, query): return str(AT_IMPORT)
        """
    metadata = {"name": "m", "runtimeParameterDefinitions": [{"fieldName": "DEPTH", "type": "numeric", "minValue": 2}]}
    model = load(tmp_path, source, metadata=metadata, runtime_parameter_values={"DEPTH": 3})
    assert ask(model, "unstructured").body == b"(3, '3')"
    with pytest.raises(ModelLoadError, match="at least 2"):
        load(tmp_path, source, metadata=metadata, runtime_parameter_values={"DEPTH": 1})


def test_warnings_of_loading_end_up_in_the_description(tmp_path: Path) -> None:
    source = """
        import warnings
        warnings.warn("mind the gap", UserWarning)
        warnings.warn("old", DeprecationWarning)
        def score_unstructured(model, data, query): pass
        """
    with pytest.warns(UserWarning, match="mind the gap"), pytest.warns(DeprecationWarning, match="old"):
        model = load(tmp_path, source, metadata={"name": "m", "nmae": 1})
    # What is odd in the metadata is told by the server, which knows the lines.
    assert model.description["warnings"] == ["UserWarning: mind the gap"]


# Reading


def test_part_x_is_the_data(tmp_path: Path) -> None:
    model = load(tmp_path, artifact=LinearRegression().fit(FRAME, [1, 2, 3]))
    table = model.read_table([Part("other", "", b"x"), Part("X", "text/csv", CSV)], "")
    pd.testing.assert_frame_equal(table, FRAME)
    with pytest.raises(MissingPart, match="no part named 'X' with the data; the request has 'x', 'y'"):
        model.read_table([Part("x", "", CSV), Part("y", "", CSV)], "")
    with pytest.raises(EmptyBody):
        model.read_table([], "")


def test_read_input_data_may_ask_for_a_path(tmp_path: Path) -> None:
    source = """
        import pandas as pd
        PATHS = []
        def read_input_data(path):
            PATHS.append(path)
            return pd.read_csv(path)
        def score(data, model): return data[["a"]].rename(columns={"a": "Predictions"})
        """
    model = load(tmp_path, source, target_type="regression", read_input_data_as_path=True)
    table = model.read_table([Part("X", "text/csv", CSV, "rows.tsv")], "")
    pd.testing.assert_frame_equal(table, FRAME)
    (path,) = sys.modules["custom"].PATHS
    assert path.endswith(".tsv")
    assert not Path(path).exists()
    with pytest.raises(EmptyBody):
        model.read_table([Part("X", "text/csv", b"")], "")


# Predicting


def test_what_a_hook_raises_is_reported(tmp_path: Path) -> None:
    source = """
        from datarobot_drum import CustomHTTPError
        def score(data, model):
            if "b" not in data:
                raise CustomHTTPError("column b, please", status_code=422)
            return int("missing")
        """
    model = load(tmp_path, source, target_type="regression")
    with pytest.raises(HookFailed, match=r"making predictions \(score\): ValueError: invalid literal") as caught:
        model.predict_table(FRAME)
    assert "custom.py" in (caught.value.traceback or "")
    with pytest.raises(UserHTTPError) as asked:
        model.predict_table(FRAME[["a"]])
    assert asked.value.details == {"status": 422, "headers": {}, "marked": True}


def test_rows_that_the_library_refuses_are_the_clients_to_mend(tmp_path: Path) -> None:
    model = load(tmp_path, artifact=LinearRegression().fit(FRAME, [1, 2, 3]))
    with pytest.raises(SchemaMismatch, match=r"\(LinearRegression\) refuses these rows: ValueError: could not"):
        model.predict_table(FRAME.assign(a="x"))


def test_result_that_does_not_fit_names_the_hook(tmp_path: Path) -> None:
    model = load(tmp_path, "def score(data, model): return data[:1]", target_type="regression")
    with pytest.raises(ResultInvalid, match="score returned 1 rows for 3 rows"):
        model.predict_table(FRAME)


def test_type_schema_is_checked_on_what_comes_in(tmp_path: Path) -> None:
    schema = {
        "input_requirements": [
            {"field": "data_types", "condition": "EQUALS", "value": "NUM"},
            {"field": "contains_missing", "condition": "EQUALS", "value": "FORBIDDEN"},
        ],
        "output_requirements": [{"field": "number_of_columns", "condition": "EQUALS", "value": 99}],
    }
    model = load(
        tmp_path, artifact=LinearRegression().fit(FRAME, [1, 2, 3]), metadata={"name": "m", "typeSchema": schema}
    )
    assert model.predict_table(FRAME).rows == 3
    with pytest.raises(SchemaMismatch, match="breaks 2 rules") as caught:
        model.predict_table(FRAME.assign(a=["x", "y", "z"], b=None))
    assert len(caught.value.details["violations"]) == 2


def test_accept_is_looked_at_before_anything_is_predicted(tmp_path: Path) -> None:
    source = "CALLS = []\ndef score(data, model):\n    CALLS.append(1)\n"
    model = load(tmp_path, source, target_type="regression")
    with pytest.raises(ReportedError, match="image/png"):
        ask(model, "predict", CSV, "text/csv", accept="image/png")
    assert sys.modules["custom"].CALLS == []


def test_stages_are_told_at_each_border(tmp_path: Path) -> None:
    model = load(tmp_path, artifact=LinearRegression().fit(FRAME, [1, 2, 3]))
    stages: list[str] = []
    model.predict(Request("predict", [Part("X", "text/csv", CSV)]), stages.append)
    assert stages == ["decode", "predict", "encode"]


def test_no_tables_for_unstructured_and_transform_models(tmp_path: Path) -> None:
    model = load(tmp_path, "def score_unstructured(model, data, query): pass")
    with pytest.raises(OperationUnavailable, match="use the unstructured operation"):
        model.predict_table(FRAME)


def test_text_generation_goes_by_the_target_name(tmp_path: Path) -> None:
    source = "def score(data, model): return data.assign(answer='hi')[['answer']]"
    model = load(tmp_path, source, target_type="textgeneration", target_name="answer")
    assert values(ask(model, "predict", CSV, "text/csv")) == {"predictions": ["hi"] * 3}


# Unstructured


def test_unstructured_hook_gets_everything_the_contract_promises(tmp_path: Path) -> None:
    source = """
        def load_model(code_dir): return "model"
        def score_unstructured(model, data, query, **kwargs):
            import json
            return json.dumps([model, repr(data), query, kwargs]), {"mimetype": "application/json"}
        """
    model = load(tmp_path, source)
    named: dict[str, Any] = {"query_lists": {"a": ["1", "2"]}, "headers": {"x-y": "z"}}
    answer = ask(model, "unstructured", b"hi", "text/plain", **named)
    assert answer.content_type == "application/json; charset=utf-8"
    expected = ["model", "'hi'", {"a": "2"}, {"mimetype": "text/plain", "headers": {"x-y": "z"}, "charset": "utf8"}]
    assert values(answer) == expected
    kwargs = values(ask(model, "unstructured", b"hi", "image/png"))[3]
    assert kwargs == {"mimetype": "image/png", "headers": {}}
    assert values(ask(model, "unstructured"))[1] == "''"


def test_operations_without_their_hook_are_unavailable(tmp_path: Path) -> None:
    model = load(tmp_path, artifact=LinearRegression().fit(FRAME, [1, 2, 3]))
    for operation in ("unstructured", "chat", "transform", "models"):
        with pytest.raises(OperationUnavailable):
            ask(model, operation)


# Chat


def test_chat_gets_a_dict_of_its_own_the_model_and_headers(tmp_path: Path) -> None:
    source = """
        def load_model(code_dir): return "the model"
        async def chat(params, model, **kwargs):
            params["seen"] = True
            return {"id": 1, "params": params, "model": model, "header": kwargs["headers"].get("x-y")}
        """
    model = load(tmp_path, source)
    assert model.description["chat"]
    body = values(ask(model, "chat", b'{"model": "m", "unknown": 1}', headers={"x-y": "z"}))
    assert body["params"] == {"model": "m", "unknown": 1, "seen": True}
    assert (body["model"], body["header"]) == ("the model", "z")
    assert body["datarobot_association_id"]
    own = values(ask(model, "chat", b"{}", headers={"x-datarobot-association-id": "mine"}))
    assert own["datarobot_association_id"] == "mine"


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_stream_nobody_asked_for_is_answered_as_one_completion(tmp_path: Path, kind: str) -> None:
    source = f"""
        {kind} chat(params, model):
            for word in ("Hel", "lo"):
                yield {{"id": "c", "object": "chat.completion.chunk", "choices": [{{"delta": {{"content": word}}}}]}}
            yield {{"id": "c", "choices": [{{"delta": {{}}, "finish_reason": "stop"}}]}}
        """
    model = load(tmp_path, source)
    assert model.chats == (1024 if kind == "async def" else 16)
    body = values(ask(model, "chat", b"{}"))
    assert body["object"] == "chat.completion"
    message = {"role": "assistant", "content": "Hello"}
    assert body["choices"] == [{"index": 0, "message": message, "finish_reason": "stop"}]
    assert body["datarobot_association_id"]


def test_what_a_users_completion_raises_when_written_is_reported(tmp_path: Path) -> None:
    source = """
        class Bad:
            def model_dump(self): raise RuntimeError("no")
        def chat(params, model): return {"choices": [Bad()]}
        """
    with pytest.raises(HookFailed, match=r"answering the chat request \(chat\): RuntimeError: no"):
        ask(load(tmp_path, source), "chat", b"{}")


def test_models_list_from_hook_setting_or_nothing(tmp_path: Path) -> None:
    source = "def chat(params, model): pass\n"
    assert values(ask(load(tmp_path, source), "models")) == {"object": "list", "data": []}
    os.environ["LLM_ID"] = "gpt"
    assert values(ask(load(tmp_path, source), "models"))["data"][0]["id"] == "gpt"
    source += "def get_supported_llm_models(model): return [{'id': 'own'}]\n"
    assert [item["id"] for item in values(ask(load(tmp_path, source), "models"))["data"]] == ["own"]


# Transform


def test_transform_by_an_artifact(tmp_path: Path) -> None:
    fitted = StandardScaler().set_output(transform="pandas").fit(FRAME)
    model = load(tmp_path, artifact=fitted)
    assert model.description["target_type"] == "transform"
    answer = ask(model, "transform", CSV, "text/csv", accept="text/csv")
    assert answer.content_type == "text/csv"
    rows = bytes(answer.body).decode().splitlines()
    assert rows[0] == "a,b"
    assert float(rows[1].split(",")[0]) == fitted.transform(FRAME)["a"][0]


def test_transform_of_a_pair_answers_both(tmp_path: Path) -> None:
    source = "def transform(X, transformer, y=None): return X * 2, None if y is None else y + 1"
    model = load(tmp_path, source, target_type="transform")
    parts = [Part("X", "text/csv", CSV), Part("y", "text/csv", b"y\n1\n2\n3\n")]
    answer = model.transform(Request("transform", parts, accept="text/csv"), lambda stage: None)
    assert answer.content_type.startswith("multipart/form-data; boundary=")
    text = bytes(answer.body).decode()
    assert 'name="X"\r\nContent-Type: text/csv\r\n\r\na,b\n2.0,1.0' in text.replace("\r\n2", "\n2")
    assert 'name="y"' in text
    assert ask(model, "transform", CSV, "text/csv", accept="text/csv").content_type == "text/csv"
    with pytest.raises(SchemaMismatch, match="expected one column and 3 rows"):
        model.transform(Request("transform", [parts[0], Part("y", "text/csv", b"y\n1\n")]), lambda stage: None)


def test_sparse_transform_answers_with_its_column_names(tmp_path: Path) -> None:
    fitted = OneHotEncoder(sparse_output=True).fit(FRAME)
    schema = {"output_requirements": [{"field": "sparse", "condition": "EQUALS", "value": "ALWAYS"}]}
    model = load(tmp_path, artifact=fitted, metadata={"name": "m", "typeSchema": schema})
    answer = ask(model, "transform", CSV, "text/csv")
    assert b"%%MatrixMarket" in bytes(answer.body)
    assert b'name="X.colnames"' in bytes(answer.body)
    schema["output_requirements"][0]["value"] = "NEVER"
    with pytest.raises(ResultInvalid, match="breaks the model's type schema"):
        ask(load(tmp_path, metadata={"name": "m", "typeSchema": schema}), "transform", CSV, "text/csv")


# Warming up


def test_warm_up_predicts_the_example(tmp_path: Path) -> None:
    example = tmp_path / "example.csv"
    example.write_bytes(CSV)
    source = "def score(data, model): return data[['a']].rename(columns={'a': 'Predictions'})"
    model = load(tmp_path, source, target_type="regression", example=str(example))
    assert model.warm_up() == {"source": "example", "content_type": "text/csv", "body": "a,b\n1.0,0.5\n"}


def test_failing_example_is_a_load_error(tmp_path: Path) -> None:
    example = tmp_path / "example.csv"
    example.write_text("x\n1\n")
    source = "def score(data, model): return data[['a']]"
    model = load(tmp_path, source, target_type="regression", example=str(example))
    with pytest.raises(ModelLoadError, match=r"on the example example\.csv fails: .*looked up .*a") as caught:
        model.warm_up()
    assert "in score" in (caught.value.traceback or "")
    with pytest.raises(ModelLoadError, match="cannot be read"):
        load(tmp_path, source, target_type="regression", example=str(tmp_path / "none.csv")).warm_up()


def test_example_of_an_unstructured_model(tmp_path: Path) -> None:
    (tmp_path / "example.json").write_text('{"a": 1}')
    source = "def score_unstructured(model, data, query, mimetype):\n    assert mimetype == 'application/json'\n"
    model = load(tmp_path, source, example=str(tmp_path / "example.json"))
    assert model.warm_up() == {"source": "example", "content_type": "application/json", "body": '{"a": 1}'}


def test_artifact_warms_up_on_a_row_of_zeros(tmp_path: Path) -> None:
    model = load(tmp_path, artifact=LinearRegression().fit(FRAME, [1, 2, 3]))
    assert model.warm_up() == {"source": "synthetic", "content_type": "text/csv", "body": "a,b\n0,0\n"}


def test_hooks_without_an_example_do_not_warm_up(tmp_path: Path) -> None:
    assert load(tmp_path, "def score(data, model): 1 / 0", target_type="regression").warm_up() is None


@pytest.mark.parametrize("look_up", ['data["z"]', 'data[["a", "z"]]', 'data[["y", "z"]]', 'data.drop(columns=["z"])'])
def test_a_column_that_a_hook_looks_up_and_the_rows_lack_is_the_clients_to_mend(tmp_path: Path, look_up: str) -> None:
    model = load(
        tmp_path,
        f"""
        def load_model(code_dir):
            return None

        def score(data, model):
            return {look_up}
        """,
        target_type="regression",
    )
    with pytest.raises(SchemaMismatch, match=r"score hook looked up .*z.*no such column; its columns are a, b"):
        ask(model, "predict", CSV, "text/csv")


def test_a_key_that_the_models_own_dictionary_lacks_is_the_models_fault(tmp_path: Path) -> None:
    source = """
        def load_model(code_dir):
            return {}

        def score(data, model):
            return model["z"]
        """
    with pytest.raises(HookFailed, match="KeyError: 'z'"):
        ask(load(tmp_path, source, target_type="regression"), "predict", CSV, "text/csv")
