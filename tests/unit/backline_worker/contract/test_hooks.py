from __future__ import annotations

import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from backline_worker.contract.hooks import Hooks, find_custom, import_custom
from backline_worker.errors import HookFailed, ModelLoadError, OutOfMemory, UserHTTPError

made: list[Hooks] = []


@pytest.fixture(autouse=True)
def forget_custom() -> Any:
    yield
    sys.modules.pop("custom", None)
    while made:
        made.pop().close()


def hooks(folder: Path, source: str) -> Hooks:
    (folder / "custom.py").write_text(textwrap.dedent(source))
    made.append(Hooks(import_custom(str(folder / "custom.py"), str(folder)), str(folder)))
    return made[-1]


# Signatures


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def score(data, model): return (data, model)", ("d", "m")),
        ("def score(X, thing, **kw): return sorted(kw)", ["negative_class_label", "positive_class_label"]),
        ("def score(data, model, positive_class_label): return positive_class_label", "yes"),
        ("def score(data, model=None, *, negative_class_label='x'): return negative_class_label", "no"),
        ("def score(*args): return args", ("d", "m")),
        ("def score(data, positive_class_label, **kw): return sorted(kw)", ["negative_class_label"]),
        ("class S:\n    def __call__(self, data, model): return model\nscore = S()", "m"),
        ("import functools\nscore = functools.partial(lambda a, data, model: (a, data), 1)", (1, "d")),
        ("async def score(data, model): return model", "m"),
        ("def score(data, model):\n    import asyncio\n    return asyncio.sleep(0, 'slept')", "slept"),
    ],
    ids=str,
)
def test_arguments_go_by_position_and_extras_only_where_they_are_taken(
    tmp_path: Path, source: str, expected: Any
) -> None:
    found = hooks(tmp_path, source)
    assert found.call("score", "d", "m", positive_class_label="yes", negative_class_label="no") == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def score_unstructured(model, data, query, **kwargs): return query, sorted(kwargs)", ("q", ["mimetype"])),
        ("def score_unstructured(model, data, q): return q", "q"),
        ("def score_unstructured(model, data, *, query): return query", "q"),
        ("def score_unstructured(model, data, **kwargs): return kwargs['query']", "q"),
        ("def score_unstructured(model, data): return data", "d"),
        ("def score_unstructured(model, data, mimetype, query): return (mimetype, query)", ("t", "q")),
    ],
    ids=str,
)
def test_query_goes_by_its_name_or_as_the_third_argument(tmp_path: Path, source: str, expected: Any) -> None:
    assert hooks(tmp_path, source).call("score_unstructured", "m", "d", query="q", mimetype="t") == expected


@pytest.mark.parametrize(
    "source",
    [
        "def init(code_dir): SEEN.append(code_dir)",
        "def init(path): SEEN.append(path)",
        "def init(**kwargs): SEEN.append(kwargs['code_dir'])",
        "def init(): SEEN.append('dir')",
    ],
    ids=str,
)
def test_init_may_be_written_in_every_way_folders_write_it(tmp_path: Path, source: str) -> None:
    found = hooks(tmp_path, "SEEN = []\n" + source)
    found.load("init", code_dir="dir")
    assert sys.modules["custom"].SEEN == ["dir"]


@pytest.mark.parametrize("source", ["def get_supported_llm_models(): return [1]",
                                    "def get_supported_llm_models(model): return [1]"], ids=str)  # fmt: skip
def test_models_hook_may_go_without_its_argument(tmp_path: Path, source: str) -> None:
    assert hooks(tmp_path, source).call("get_supported_llm_models", "m") == [1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "\n\ndef score(data): pass",
            (
                r"custom\.py:3: score\(data\) cannot be called: .*Backline passes data and model by position, and "
                r".* change the hook to def score\(data, model, \*\*kwargs\)"
            ),
        ),
        ("def score(data, model, threshold): pass", r"missing a required argument: 'threshold'"),
        (
            "def load_model(): pass",
            r"passes code_dir by position; change the hook to def load_model\(code_dir\)",
        ),
        ("def transform(data, model, *, columns): pass", "columns"),
        ("def init(a, b): pass", r"def init\(code_dir, \*\*kwargs\)|missing a required argument"),
        ("chat = 3", "chat is int; a hook has to be a function"),
    ],
    ids=str,
)
def test_signature_that_cannot_be_called_is_refused_at_load(tmp_path: Path, source: str, message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        hooks(tmp_path, source)


def test_names_that_are_no_hooks_and_a_leftover_fit_are_ignored(tmp_path: Path) -> None:
    found = hooks(tmp_path, "def fit(a, b, c, d, e, f): pass\nscore = None\ndef load_model(d): pass")
    assert found.names == ["load_model"]
    assert "score" not in found


def test_coroutines_share_one_event_loop(tmp_path: Path) -> None:
    found = hooks(
        tmp_path,
        """
        import asyncio
        async def load_model(code_dir): return asyncio.get_running_loop()
        async def score(data, model): return asyncio.get_running_loop() is model
        """,
    )
    assert found.call("score", "d", found.load("load_model", "dir"))


# Import


def test_missing_package_is_told_with_its_line_the_interpreter_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError) as caught:
        hooks(tmp_path, "import os\nimport no_such_package_here.thing\n")
    message = caught.value.message
    assert "custom.py:2" in message
    assert "'no_such_package_here'" in message
    assert f"{sys.executable} -m pip install no_such_package_here" in message


def test_missing_package_imported_by_a_sibling_module_names_that_module(tmp_path: Path) -> None:
    (tmp_path / "helper_of_hooks.py").write_text("\n\nimport no_such_package_here\n")
    (tmp_path / "requirements.txt").write_text("x")
    sys.path.insert(0, str(tmp_path))
    try:
        with pytest.raises(ModelLoadError, match=r"helper_of_hooks\.py:3: .*pip install -r .*requirements\.txt"):
            hooks(tmp_path, "import helper_of_hooks")
    finally:
        sys.path.remove(str(tmp_path))


def test_missing_submodule_of_an_installed_package_is_not_called_uninstalled(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no module 'json.nothing' in the installed package 'json'"):
        hooks(tmp_path, "import json.nothing")


def test_syntax_error_is_told_with_file_and_line(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"custom\.py:3: retrun x"):
        hooks(tmp_path, "\ndef f(x):\n    retrun x\n")


@pytest.mark.parametrize("statement", ["raise SystemExit(3)", "1 / 0", "raise KeyboardInterrupt"])
def test_whatever_the_import_raises_is_a_load_error_with_its_line(tmp_path: Path, statement: str) -> None:
    with pytest.raises(ModelLoadError, match=r"custom\.py:2") as caught:
        hooks(tmp_path, f"\n{statement}")
    assert statement in (caught.value.traceback or "")
    assert "custom" not in sys.modules


def test_module_is_importable_as_custom_while_it_runs(tmp_path: Path) -> None:
    found = hooks(tmp_path, "import custom\nVALUE = 1\ndef load_model(d): return custom.VALUE")
    assert found.load("load_model", "d") == 1


def test_custom_py_beside_the_artifact_wins_over_others(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "lib", tmp_path / ".git", tmp_path / "venv"):
        folder.mkdir(exist_ok=True)
        (folder / "custom.py").touch()
    assert find_custom(str(tmp_path)) == str(tmp_path / "custom.py")
    (tmp_path / "custom.py").unlink()
    assert find_custom(str(tmp_path)) == str(tmp_path / "lib" / "custom.py")


def test_several_custom_py_in_subfolders_are_an_error(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "custom.py").touch()
    with pytest.raises(ModelLoadError, match=r"several custom\.py .*: a/custom\.py, b/custom\.py"):
        find_custom(str(tmp_path))


def test_hooks_in_r_are_told_to_be_unsupported(tmp_path: Path) -> None:
    assert find_custom(str(tmp_path)) is None
    (tmp_path / "custom.R").touch()
    with pytest.raises(ModelLoadError, match="hooks in R are not run"):
        find_custom(str(tmp_path))


# What user code raises


def failure(folder: Path, body: str, hook: str = "score") -> Any:
    found = hooks(folder, f"def {hook}(data, model):\n" + textwrap.indent(textwrap.dedent(body), "    "))
    with pytest.raises((HookFailed, UserHTTPError, OutOfMemory)) as caught:
        found.call(hook, "d", "m")
    return caught.value


def test_exception_names_the_phase_and_keeps_the_users_frames_only(tmp_path: Path) -> None:
    error = failure(tmp_path, "import json\njson.loads('{')")
    assert error.message.startswith("error was raised when making predictions (score): JSONDecodeError: ")
    trace = error.traceback
    assert 'custom.py", line 3, in score' in trace
    assert "hooks.py" not in trace
    assert trace.count("File ") == 2  # the user's frame, and where the library raised
    assert trace.rstrip().splitlines()[-1].startswith("json.decoder.JSONDecodeError: ")


def test_library_frames_between_the_users_are_kept_to_the_last_one(tmp_path: Path) -> None:
    body = "import json\ndef inner(x):\n    raise ValueError('deep')\njson.loads('{}', object_hook=inner)"
    trace = failure(tmp_path, body).traceback
    places = [line.rpartition(" in ")[2] for line in trace.splitlines() if line.startswith("  File ")]
    assert places == ["score", "raw_decode", "inner"]


def test_chained_exceptions_are_trimmed_too(tmp_path: Path) -> None:
    error = failure(tmp_path, "try:\n    1 / 0\nexcept ZeroDivisionError as exc:\n    raise ValueError('bad') from exc")
    assert "ZeroDivisionError" in error.traceback
    assert "direct cause" in error.traceback
    assert "hooks.py" not in error.traceback


@pytest.mark.parametrize("body", ["import sys; sys.exit(1)", "raise KeyboardInterrupt", "raise GeneratorExit"])
def test_leaving_the_process_is_a_failed_hook(tmp_path: Path, body: str) -> None:
    assert failure(tmp_path, body).code == "hook_failed"


def test_exception_without_text_is_named_by_its_type(tmp_path: Path) -> None:
    assert failure(tmp_path, "raise ValueError").message.endswith("(score): ValueError")


def test_memory_error_is_told_apart(tmp_path: Path) -> None:
    assert failure(tmp_path, "raise MemoryError").code == "out_of_memory"


@pytest.mark.parametrize(
    ("body", "details", "message"),
    [
        (
            "class NotFound(Exception):\n    code = 404\n    description = 'no such row'\nraise NotFound()",
            {"status": 404, "headers": {}, "marked": False},
            "no such row",
        ),
        (
            "class E(Exception):\n    status_code, detail, headers = 429, {'why': 1}, {'Retry-After': 3}\nraise E()",
            {"status": 429, "headers": {"Retry-After": "3"}, "marked": False},
            '{"why": 1}',
        ),
        (
            "from backline_worker.contract.shim import CustomHTTPError\nraise CustomHTTPError(418, 'teapot')",
            {"status": 418, "headers": {}, "marked": True},
            "teapot",
        ),
    ],
    ids=["werkzeug", "starlette", "shim"],
)
def test_http_exceptions_are_known_by_their_looks(
    tmp_path: Path, body: str, details: dict[str, Any], message: str
) -> None:
    error = failure(tmp_path, body)
    assert (error.code, error.details, error.message) == ("user_http_error", details, message)


@pytest.mark.parametrize(
    "body",
    [
        "class E(Exception):\n    code = 404\nraise E()",
        "class E(Exception):\n    code = 200\n    description = ''\nraise E()",
        "class E(Exception):\n    status_code = 503\n    message = 'upstream'\nraise E()",
    ],
    ids=["code-only", "not-an-error", "client-library"],
)
def test_exceptions_that_only_resemble_them_are_failures(tmp_path: Path, body: str) -> None:
    assert failure(tmp_path, body).code == "hook_failed"


def test_failure_of_load_model_is_a_load_error_with_the_users_frames(tmp_path: Path) -> None:
    found = hooks(tmp_path, "def load_model(code_dir):\n    return open(code_dir + '/nothing')")
    with pytest.raises(ModelLoadError, match="the hook load_model failed: FileNotFoundError") as caught:
        found.load("load_model", str(tmp_path))
    assert "line 2, in load_model" in (caught.value.traceback or "")
